"""Scripts that need PyTorch say so where it is not installed."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RUN = """
import runpy, sys
class Missing:
    def find_spec(self, name, *_):
        if name == "torch":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("scripts/train_torch.py", []),
        ("scripts/convert_weights.py", ["run", "model.pt"]),
        ("scripts/kill_test.py", []),
        ("scripts/benchmark.py", ["train"]),
        ("parity/__main__.py", []),
    ],
)
def test_a_missing_pytorch_is_said_in_one_line(script: str, arguments: list[str], tmp_path: Path):
    command = [sys.executable, "-c", RUN, str(ROOT / script), *arguments]
    process = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=240)
    assert process.returncode == 2
    assert process.stderr == (
        'error: PyTorch is needed for this, and not installed: pip install -e ".[torch]"\n'
    )

"""Runs that are killed and resumed; `scripts/kill_test.py` does the same at more moments."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("framework", ["jax", "torch"])
def test_a_killed_run_goes_on_exactly(framework: str, tmp_path: Path):
    out = tmp_path / "points.json"
    arguments = ["--points", "2", "--frameworks", framework, "--seed", "3", "--out", str(out)]
    # As the run would be compiled takes twice as long.
    quick = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "kill_test.py"), *arguments],
        env=os.environ | quick,
        check=True,
    )
    points = json.loads(out.read_text())
    assert [point["framework"] for point in points] == [framework] * 2
    for point in points:
        assert point["different"] == []
        assert point["resumed_from"] <= point["step"]

"""What XLA has compiled is kept for the next process."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = """
import json, sys
from pathlib import Path
import jax
import unet_jax.compiled

unet_jax.compiled.WORTH = 0.0
unet_jax.compiled.keep_compiled(Path(sys.argv[1]))
events = []
jax.monitoring.register_event_listener(lambda event, **_: events.append(event))
jax.jit(lambda x: x**3 + 1)(2.0)
print(json.dumps({
    "folder": jax.config.jax_compilation_cache_dir,
    "hits": sum(event.endswith("cache_hits") for event in events),
    "misses": sum(event.endswith("cache_misses") for event in events),
}))
"""


def compile_once(folder: Path, given: str | None = None) -> dict[str, Any]:
    env = {n: v for n, v in os.environ.items() if n != "JAX_COMPILATION_CACHE_DIR"}
    env |= {} if given is None else {"JAX_COMPILATION_CACHE_DIR": given}
    command = [sys.executable, "-c", PROGRAM, str(folder)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=120)
    assert done.stderr == ""
    return json.loads(done.stdout)


def test_the_next_process_takes_what_is_there(tmp_path: Path):
    folder = tmp_path / "home" / "compiled"
    first, second = compile_once(folder), compile_once(folder)
    assert first["hits"] == 0
    assert first["misses"] > 0
    assert second["hits"] == first["misses"]
    assert second["misses"] == 0
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("kept", [True, False])
def test_a_folder_that_the_user_names_is_used(kept: bool, tmp_path: Path):
    given = str(tmp_path / "given") if kept else ""
    assert compile_once(tmp_path / "usual", given)["folder"] == given
    assert [path.name for path in tmp_path.iterdir()] == (["given"] if kept else [])


def test_a_folder_that_cannot_be_made_is_done_without(tmp_path: Path):
    (tmp_path / "file").touch()
    assert compile_once(tmp_path / "file" / "compiled")["folder"] is None

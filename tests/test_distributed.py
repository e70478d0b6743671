"""Two processes, as on two hosts: they train together, and what they leave goes on in one."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
EPOCHS = 8
ARGUMENTS = (
    *("--size", "16", "24", "--scenes", "12", "--val-fraction", "0.25"),
    *("--architecture", "plain", "--channels", "4", "--norm", "batch"),
    *("--epochs", str(EPOCHS), "--batch-size", "4", "--learning-rate", "0.01"),
)
PATIENCE = 240  # Seconds; a busy machine takes 20 to start both and compile.


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared set, and a compilation, for all commands here."""
    return tmp_path_factory.mktemp("shared")


def start(shared: Path, workdir: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {
        "JAX_COMPILATION_CACHE_DIR": str(shared / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }
    script = str(ROOT / "scripts" / "train_jax.py")
    where = ("--workdir", str(workdir), "--prepared-dir", str(shared / "prepared"))
    return subprocess.Popen(
        [sys.executable, script, *where, *ARGUMENTS, *arguments],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_two(shared: Path, workdir: Path) -> Iterator[subprocess.Popen[str]]:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    for n in range(2):
        which = ("--coordinator", f"localhost:{port}", "--processes", "2", "--process", str(n))
        yield start(shared, workdir, "--distributed", *which)


def records(workdir: Path) -> list[dict[str, Any]]:
    path = workdir / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def wait_for_epoch(processes: list[subprocess.Popen[str]], workdir: Path, epochs: int) -> None:
    patience = time.monotonic() + PATIENCE
    while len(records(workdir)) < epochs:
        assert all(process.poll() is None for process in processes), processes[0].communicate()
        assert time.monotonic() < patience, "no epoch was finished in time"
        time.sleep(0.02)


@pytest.fixture
def alone(shared: Path, tmp_path: Path) -> list[dict[str, Any]]:
    """What one process records."""
    process = start(shared, tmp_path / "alone")
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    return records(tmp_path / "alone")


def assert_same(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    assert [record["epoch"] for record in ours] == list(range(1, EPOCHS + 1))
    for a, b in zip(ours, theirs, strict=True):
        for name in ("train_loss", "val_loss"):
            # Sums in another order, in float32, over 16 steps.
            assert a[name] == pytest.approx(b[name], rel=1e-5), (a["epoch"], name)


def test_what_two_train_one_goes_on_with_when_one_of_them_is_killed(
    shared: Path, tmp_path: Path, alone: list[dict[str, Any]]
):
    workdir = tmp_path / "run"
    processes = list(start_two(shared, workdir))
    try:
        wait_for_epoch(processes, workdir, 3)
        processes[1].kill()
        processes[1].wait(timeout=PATIENCE)
        # The other one waits for it, and gives up after 100 s; a scheduler does not wait.
        processes[0].kill()
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    before = records(workdir)
    assert 3 <= len(before) < EPOCHS
    names = [path.name for path in (workdir / "checkpoints").iterdir()]
    newest = max(float(name) for name in names if name.replace(".", "").isdigit())
    saved = [record for record in before if record["step"] <= newest]
    resumed = start(shared, workdir, "--resume")
    output, errors = resumed.communicate(timeout=PATIENCE)
    assert resumed.returncode == 0, errors
    assert "Going on after step" in output
    assert_same(records(workdir), alone)
    # What was saved is not done again. The last epoch may not have been, and the state of the one
    # before may still have been on its way to the disk.
    assert len(saved) >= len(before) - 2
    assert records(workdir)[: len(saved)] == saved


def test_a_signal_to_one_stops_both_after_the_same_step(shared: Path, tmp_path: Path):
    workdir = tmp_path / "run"
    processes = list(start_two(shared, workdir))
    try:
        wait_for_epoch(processes, workdir, 1)
        processes[1].send_signal(signal.SIGTERM)
        outputs = [process.communicate(timeout=PATIENCE) for process in processes]
        assert [process.returncode for process in processes] == [0, 0], outputs
    finally:
        for process in processes:
            process.kill()
    assert "Saved after step" in outputs[0][0]
    assert len(records(workdir)) < EPOCHS
    resumed = start(shared, workdir, "--resume")
    _, errors = resumed.communicate(timeout=PATIENCE)
    assert resumed.returncode == 0, errors
    assert [record["epoch"] for record in records(workdir)] == list(range(1, EPOCHS + 1))


def test_a_host_that_cannot_start_ends_the_other(shared: Path, tmp_path: Path):
    workdir = tmp_path / "run"
    workdir.mkdir()
    (workdir / "config.yaml").touch()  # Which the first host alone looks at.
    processes = list(start_two(shared, workdir))
    try:
        begun = time.monotonic()
        outputs = [process.communicate(timeout=PATIENCE) for process in processes]
        assert [process.returncode for process in processes] == [2, 2], outputs
    finally:
        for process in processes:
            process.kill()
    assert f"error: --workdir: {workdir} holds a run already" in outputs[0][1]
    assert "error: another host could not start; it says why" in outputs[1][1]
    assert time.monotonic() - begun < 90  # JAX itself notices after 100 s.

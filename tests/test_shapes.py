"""The rendered set: the same whatever number of processes renders it, and whatever ends them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE
from typing import Any

import psutil
import pytest
from drawing import contents, files, open_set

from unet_jax.datasets import DataError, renderer, scene
from unet_jax.datasets.shapes import Shapes

SCENES, SIZE = 150, (16, 24)  # More than are under way at once.


@pytest.fixture(scope="module")
def expected() -> list[tuple[str, str, bytes, bytes]]:
    """The scenes, rendered one by one, the last one first."""
    rendered = {n: scene.render(Shapes.SEED, n, *SIZE) for n in reversed(range(SCENES))}
    names = [f"scene_{n:05d}" for n in range(SCENES)]
    return [
        (name, name, rendered[n][0].tobytes(), rendered[n][1].tobytes())
        for n, name in enumerate(names)
    ]


def on(cores: int, worth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    monkeypatch.setattr(renderer, "WORTH", worth)


def children() -> set[psutil.Process]:
    """The processes that this one has started, and not ended."""
    return set(psutil.Process().children())


@pytest.mark.parametrize("cores", [1, 2, 3])
def test_any_number_of_processes_renders_the_same_set(
    cores: int, expected, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    on(cores, 1, monkeypatch)
    assert contents(open_set("shapes", None, tmp_path, SIZE, scenes=SCENES)) == expected


@pytest.mark.parametrize(
    ("count", "size", "processes"),
    [(100, (64, 96), 0), (500, (64, 96), 0), (900, (64, 96), 2), (900, (256, 384), 3)],
)
def test_processes_are_started_where_they_are_worth_it(
    count: int, size: tuple[int, int], processes: int, monkeypatch: pytest.MonkeyPatch
):
    on(3, renderer.WORTH, monkeypatch)
    scenes, before = renderer.rendered(0, count, size), children()
    next(scenes)
    assert len(children() - before) == processes
    scenes.close()
    assert children() == before


def test_a_killed_process_ends_it_with_one_line(monkeypatch: pytest.MonkeyPatch):
    on(2, 1, monkeypatch)
    scenes, before = renderer.rendered(0, 10_000, SIZE), children()
    next(scenes)
    (children() - before).pop().kill()
    with pytest.raises(DataError, match=r"^a process that renders scenes was killed"):
        list(scenes)
    assert children() == before


@contextmanager
def preparing(folder: Path) -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """A preparation that has begun to write, as in a terminal, and its processes."""
    script = Path(__file__).parents[1] / "scripts" / "prepare_data.py"
    command = [sys.executable, script, "--dataset", "shapes", "--scenes", "100000"]
    command += ["--prepared-dir", folder]
    options: dict[str, Any] = {
        **{"stdout": PIPE, "stderr": PIPE, "text": True, "start_new_session": True},
        # A job in the background ignores Ctrl-C, and so does what it starts.
        "preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    }
    with subprocess.Popen(command, **options) as process:
        try:
            until, renderers = time.monotonic() + 120, []
            while len(renderers) < 2 or not files(folder):
                assert process.poll() is None
                assert time.monotonic() < until
                time.sleep(0.05)
                renderers = psutil.Process(process.pid).children()
            yield process, renderers
        finally:
            process.kill()


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nobody_outlives_the_one_who_prepares(how: signal.Signals, tmp_path: Path):
    with preparing(tmp_path) as (process, renderers):
        assert all("incomplete" in name for name in files(tmp_path))
        if how == signal.SIGINT:
            os.killpg(process.pid, how)  # Ctrl-C in a terminal.
        else:
            process.send_signal(how)
        out, err = process.communicate(timeout=60)
    _, alive = psutil.wait_procs(renderers, timeout=30)
    assert alive == []
    assert out == ""
    assert "Traceback" not in err
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert files(tmp_path) == {}

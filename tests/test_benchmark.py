"""The benchmark script: turns, every stage measured, and how it stops."""

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from drawing import NAMES, SIZE, write_folder, zipped

from parity.benchmark import contest, data, encodings

SCRIPT = Path(__file__).parents[1] / "scripts" / "benchmark.py"
BATCH_SIZE, EPOCH = 2, 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("pairs"))


def arguments(subject: str, folder: Path, tmp_path: Path) -> list[str]:
    """A quick command line; results go to `out.json`."""
    options = {
        "dataset": "folder",
        "data-dir": folder,
        "prepared-dir": tmp_path / "prepared",
        "batch-size": BATCH_SIZE,
        "rounds": 1,
        "images": len(NAMES),
        "out": tmp_path / "out.json",
    }
    if subject == "data":
        options["workers"] = 0
    flags = [str(part) for name, value in options.items() for part in (f"--{name}", value)]
    return [subject, *flags, "--size", *map(str, SIZE)]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    def run(*args: str) -> int:
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *args])
        return runpy.run_path(str(SCRIPT))["main"]()

    return run


def results(tmp_path: Path) -> dict[str, Any]:
    """What was written, its rates checked."""
    written = json.loads((tmp_path / "out.json").read_text())
    for name, rate in written["results"].items():
        assert 0 < rate["slowest"] <= rate["median"] <= rate["fastest"], name
    return written


def test_contenders_take_turns_after_one_unmeasured_run(monkeypatch: pytest.MonkeyPatch):
    ran, now = [], 0

    def contender(name: str, seconds: list[int]) -> Callable[[], int]:
        def run() -> int:
            nonlocal now
            now += seconds[ran.count(name)]
            ran.append(name)
            return 12

        return run

    monkeypatch.setattr(contest.time, "perf_counter", lambda: now)
    contenders = {"A": contender("A", [1000, 1, 2, 6]), "B": contender("B", [1000, 4, 4, 3])}
    rates = contest.contest(contenders, rounds=3)
    assert "".join(ran) == "AB" + "AB" * 3
    assert rates == {"A": (6, 2, 12), "B": (3, 3, 4)}


@pytest.mark.parametrize(
    ("zips", "workers"), [pytest.param(False, 0, id="plain"), pytest.param(True, 1, id="zips")]
)
def test_data_measures_every_stage(zips, workers, folder, tmp_path, run, monkeypatch):
    counts = {}

    def counting(contenders, rounds):
        counts.update({name: contender() for name, contender in contenders.items()})
        return contest.contest(contenders, rounds)

    monkeypatch.setattr(data, "contest", counting)
    monkeypatch.setattr(data, "EPOCH", EPOCH)
    if zips:
        (tmp_path / "zips").mkdir()
        for name in ("images", "masks"):
            (tmp_path / "zips" / f"{name}.zip").write_bytes(zipped(folder / name))
        folder = tmp_path / "zips"
    assert run(*arguments("data", folder, tmp_path), "--workers", str(workers)) == 0
    files = dict.fromkeys(
        (data.READ, data.DECODE, data.PREPARE, data.STORE, data.TORCH), len(NAMES)
    )
    batches = dict.fromkeys((data.BATCH, data.HOST, data.TRANSFER, data.AUGMENT), EPOCH)
    assert counts == files | batches
    written = results(tmp_path)
    assert written["results"].keys() == counts.keys()
    assert "torch" in written["versions"]


def test_encodings_are_measured_without_torch(folder: Path, tmp_path: Path):
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(__name__)")
    command = [sys.executable, SCRIPT, *arguments("encodings", folder, tmp_path)]
    paths = (str(tmp_path), str(SCRIPT.parents[1]))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    process = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert process.returncode == 0, process.stderr
    written = results(tmp_path)
    assert written["results"].keys() == encodings.WAYS.keys()
    assert all(result["kilobytes"] > 0 for result in written["results"].values())
    assert "torch" not in written["versions"]


@pytest.mark.parametrize(
    ("out", "message"),
    [("none/out.json", "there is no folder {}/none"), (".", "{} is a folder")],
    ids=["missing", "folder"],
)
def test_a_bad_out_is_refused_first(out, message, folder, tmp_path, run, capsys):
    with pytest.raises(SystemExit) as stop:
        run(*arguments("data", folder, tmp_path), "--out", str(tmp_path / out))
    assert stop.value.code == 2
    assert capsys.readouterr() == ("", f"error: --out: {message.format(tmp_path)}\n")
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_ends_it_quietly(folder, tmp_path, run, monkeypatch, capsys):
    def interrupt(*args: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(data, "contest", interrupt)
    assert run(*arguments("data", folder, tmp_path)) == 130
    assert "Traceback" not in "".join(capsys.readouterr())
    assert not (tmp_path / "out.json").exists()

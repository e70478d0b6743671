"""What is logged beside the run's own files: TensorBoard's histograms, Weights & Biases."""

import json
import resource
import runpy
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wandb
from PIL import Image
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from wandb.proto import wandb_internal_pb2

from unet_jax.config import Config, SaveConfig
from unet_jax.events import Events
from unet_jax.launch import Launch
from unet_jax.run import Run
from unet_jax.weights_and_biases import WeightsAndBiases

Record: Any = vars(wandb_internal_pb2)["Record"]
ROOT = Path(__file__).parents[1]
RECORD = {"epoch": 1, "step": 2, "train_loss": 0.5, "seconds": 1.0}
RECORD |= {"val_loss": 0.75, "dice": 0.5, "iou": 0.25, "accuracy": 0.125}
NAN, INF = float("nan"), float("inf")


def test_histograms_count_what_is_finite(tmp_path: Path):
    log = Events(tmp_path)
    values = np.array([[-2.0, NAN, 1.0], [INF, 3.0, 3.0]], np.float32)
    arrays = {"some": values, "none": np.array([NAN]), "same": np.full(7, 0.5, np.float32)}
    log.histograms(arrays, step=5)
    log.close()
    [path] = tmp_path.iterdir()
    [event] = [event for event in LegacyEventFileLoader(str(path)).Load() if event.step]
    found = {value.tag: value.histo for value in event.summary.value}
    assert found.keys() == {"some", "same"}
    some = found["some"]
    assert (some.num, some.min, some.max) == (4, -2, 3)
    assert (some.sum, some.sum_squares) == (5, 4 + 1 + 9 + 9)
    counts, limits = np.array(some.bucket), np.array(some.bucket_limit)
    # 64 equal buckets from -2 to 3; the last one has its upper limit, too.
    np.testing.assert_allclose(limits, -2 + 5 / 64 * np.arange(1, 65))
    assert counts[0] == 1
    assert counts[np.searchsorted(limits, 1, side="right")] == 1
    assert counts[-1] == 2
    assert counts.sum() == 4
    assert sum(found["same"].bucket) == 7


def test_a_full_disk_is_an_error_where_it_is_noticed(tmp_path: Path, capsys):
    log = Events(tmp_path)
    [path] = tmp_path.iterdir()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 9, before[1]))
        with pytest.raises(OSError, match="File too large"):
            log.scalars({"loss": 1.0}, 1)
        log.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert capsys.readouterr().err == ""


def test_the_deciding_score_is_logged(tmp_path: Path):
    run = Run(tmp_path / "run", Config(save=SaveConfig(best="boundary_f")), Launch(), resume=False)
    run.epoch({**RECORD, "boundary_f": 0.625}, Image.new("RGB", (8, 6)))
    run.close()
    [path] = (tmp_path / "run" / "events").iterdir()
    found = {v.tag for e in LegacyEventFileLoader(str(path)).Load() for v in e.summary.value}
    names = {"val_loss", "dice", "iou", "accuracy", "boundary_f"}
    assert found == {f"validation/{name}" for name in names} | {"predictions"}


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Weights & Biases without a network, account or word."""
    for name, value in {"MODE": "offline", "SILENT": "true", "PROJECT": "tests"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    yield
    wandb.teardown()


def kept(workdir: Path) -> list[Any]:
    """The records that would be sent, of all the run's processes.

    They are in LevelDB's log format: blocks of 32 KiB, in which parts of records follow a checksum,
    a length and a kind (1: whole, 2: first, 3: middle, 4: last).
    """
    wandb.teardown()  # Files are closed a moment after a run is finished.
    records = []
    for path in sorted((workdir / "wandb").glob("offline-run-*/*.wandb")):
        data, place, whole = path.read_bytes(), 7, b""
        while place + 7 <= len(data):
            rest = 32768 - place % 32768
            if rest < 7:
                place += rest
                continue
            length, kind = struct.unpack_from("<HB", data, place + 4)
            whole += data[place + 7 : place + 7 + length]
            place += 7 + length
            if kind in (1, 4):
                records.append(Record.FromString(whole))
                whole = b""
    return records


def logged(records: list[Any]) -> dict[int, dict[str, Any]]:
    """Values by step and name."""
    found: dict[int, dict[str, Any]] = {}
    for record in records:
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            values = {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items}
            found.setdefault(values["_step"], {}).update(values)
    return found


def log_epoch(run: Run) -> None:
    run.step(1, {"loss": 0.5, "grad_norm": 2.0})
    run.step(2, {"loss": 0.25, "grad_norm": 1.0})
    run.epoch(RECORD, Image.new("RGB", (8, 6), "red"))
    run.weights({"conv/kernel": np.arange(12.0)}, 2)


def test_weights_and_biases_has_what_tensorboard_has(offline, tmp_path: Path):
    workdir = tmp_path / "a run"
    run = Run(workdir, Config(), Launch(), resume=False)
    run.log_to(WeightsAndBiases(workdir, Config()))
    log_epoch(run)
    run.close()
    records = kept(workdir)
    [started] = [r.run for r in records if r.WhichOneof("record_type") == "run"][:1]
    assert (started.project, started.display_name) == ("tests", "a run")
    settings = {item.key: json.loads(item.value_json) for item in started.config.update}
    assert settings["train"]["batch_size"] == Config().train.batch_size
    found = logged(records)
    assert (found[1]["train/loss"], found[1]["train/grad_norm"]) == (0.5, 2.0)
    assert (found[2]["train/loss"], found[2]["validation/dice"]) == (0.25, 0.5)
    [folder] = (workdir / "wandb").glob("offline-run-*")
    with Image.open(folder / "files" / found[2]["predictions/path"]) as picture:
        assert picture.size == (8, 6)
    assert sum(found[2]["weights/conv/kernel/values"]) == 12
    # Resumed, it is the same run.
    first = (workdir / "wandb_id").read_text()
    WeightsAndBiases(workdir, Config()).close()
    ids = {r.run.run_id for r in kept(workdir) if r.WhichOneof("record_type") == "run"}
    assert ids == {first} == {(workdir / "wandb_id").read_text()}


def test_without_the_flag_there_is_none_of_it(tmp_path: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    run = Run(tmp_path / "run", Config(), Launch(), resume=False)
    log_epoch(run)
    run.close()
    assert not (tmp_path / "run" / "wandb").exists()


def test_the_missing_package_is_named(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb", None)
    small = ("--size", "16", "24", "--scenes", "12", "--batch-size", "2")
    where = ("--workdir", str(tmp_path / "run"), "--prepared-dir", str(tmp_path / "prepared"))
    monkeypatch.setattr(sys, "argv", ["train_torch.py", *where, *small, "--wandb"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROOT / "scripts" / "train_torch.py"), run_name="__main__")
    assert stop.value.code == 2
    assert capsys.readouterr().err.endswith(
        '\nerror: --wandb: the package wandb is missing: pip install -e ".[wandb]"\n'
    )
    assert not (tmp_path / "run").exists()

"""Every preset trains for two epochs in both frameworks, on the data that it is made for.

Networks are narrow and pictures few and small; all else is the recipe's: loss, optimiser, schedule,
precision, augmentation, accumulation.
"""

import json
import math
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import pytest
from drawing import REAL, levels, write_ade20k, write_folder, write_kaggle, write_segnet
from PIL import Image

from unet_jax.config import load, presets

ROOT = Path(__file__).parents[1]
TRAINING, VALIDATION = "abcdefgh", "ij"
DRAWN: dict[str, Callable[[Path], Path]] = {
    "carvana": lambda place: write_kaggle(place, TRAINING, ["01", "02"]),
    "camvid": lambda place: write_segnet(place, {"train": list(TRAINING), "val": list(VALIDATION)}),
    "ade20k": lambda place: write_ade20k(place, TRAINING, VALIDATION),
    "folder": lambda place: write_folder(
        place, names=TRAINING + VALIDATION, save=levels(0, 255, 255)
    ),
}
PLACES = {"carvana": "carvana", "camvid": "camvid", "ade20k": "ade20k", "folder": "nuclei"}


@pytest.fixture(scope="module", autouse=True)
def compiled_quickly():
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where each data set's few pictures lie, and their prepared copies."""
    return tmp_path_factory.mktemp("places")


def few(dataset: str, places: Path) -> Path:
    """A folder of links to every n-th file of the set, whole pairs of which are kept; where it is
    not there, of a few drawn ones in its layout."""
    source, folder = REAL / PLACES[dataset], places / dataset
    if folder.exists():
        return folder
    if not source.is_dir():
        return DRAWN[dataset](folder)
    step = {"carvana": 24, "camvid": 40, "ade20k": 3, "folder": 4}[dataset]
    for path in sorted(p for p in source.rglob("*") if p.is_dir()):
        files = sorted(p for p in path.iterdir() if p.is_file())
        link = folder / path.relative_to(source)
        link.mkdir(parents=True, exist_ok=True)
        for file in files[::step] if len(files) > 8 else files:
            (link / file.name).symlink_to(file)
    if dataset == "ade20k":
        names = folder / "ADEChallengeData2016" / "objectInfo150.txt"
        names.unlink(missing_ok=True)
        names.symlink_to(source / "ADEChallengeData2016" / names.name)
    return folder


def command(preset: str, places: Path) -> list[str]:
    config = load(preset)
    side = 32 if config.data.size[0] == config.data.size[1] else 48
    size = ("32", str(side))
    stored = ("64", str(2 * side)) if config.data.stored_size else size
    arguments = ["--preset", preset, "--dataset", config.data.dataset, "--size", *size]
    arguments += ["--stored-size", *stored, "--channels", "8", "--epochs", "2"]
    arguments += ["--batch-size", str(min(config.train.batch_size, 4))]
    if config.model.norm == "group":
        arguments += ["--groups", "4"]
    if config.train.accumulate > 1:  # Each part is compiled for itself on a CPU.
        arguments += ["--accumulate", "2"]
    if config.optim.warmup_steps:  # More than two epochs of few pictures have.
        arguments += ["--warmup-steps", "2"]
    if config.data.dataset == "shapes":
        arguments += ["--scenes", "12"]
    else:
        arguments += ["--data-dir", str(few(config.data.dataset, places))]
    return [*arguments, "--prepared-dir", str(places / "prepared")]


@pytest.mark.parametrize("framework", ["jax", "torch"])
@pytest.mark.parametrize("preset", presets())
def test_a_preset_trains_for_two_epochs(
    preset: str, framework: str, places: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run = tmp_path / "run"
    script = ROOT / "scripts" / f"train_{framework}.py"
    arguments = command(preset, places)
    monkeypatch.setattr(
        sys, "argv", [str(script), *arguments, "--workdir", str(run), "--parallel", "jit"]
    )
    assert runpy.run_path(str(script))["main"]() == 0
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records] == [1, 2]
    # In float16 the first steps may overflow, until the scale of the loss is low enough.
    assert records[-1]["step"] - records[-1]["skipped"] >= 2
    for record in records:
        for name in ("train_loss", "val_loss", "dice", "iou", "accuracy", "boundary_f"):
            assert math.isfinite(record[name]), name
    assert load(run / "config.yaml").optim.optimizer == load(preset).optim.optimizer
    assert json.loads((run / "summary.json").read_text())["framework"] == framework
    for name in ("predictions/epoch_002.png", "curves.png", "confusion.png"):
        Image.open(run / name).verify()

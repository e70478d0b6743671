"""Carvana: every layout reads the same, and what a car is does not depend on how it is spelt."""

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from drawing import (
    NATIVE,
    SIZE,
    as_zips,
    contents,
    draw,
    nearest,
    open_set,
    real,
    refused,
    save_image,
    save_mask,
    write_kaggle,
    zipped,
)
from PIL import Image

from unet_jax.datasets import PairBuilder
from unet_jax.datasets.carvana import COMPETITION

CARS, VIEWS = ("00087a6bd4dc", "0cdf5b5d0ce1", "ff_9d5c1b2a77"), ("01", "05", "16")


def as_nested_zip(source: Path, target: Path) -> Path:
    target.mkdir()
    with zipfile.ZipFile(target / f"{COMPETITION}.zip", "w", zipfile.ZIP_DEFLATED) as outer:
        outer.writestr("metadata.csv.zip", b"not looked at")
        for name in ("train", "train_masks"):
            outer.writestr(f"{name}.zip", zipped(source / name, f"{name}/"))
    return target


def as_mixture(source: Path, target: Path) -> Path:
    as_zips(source, target)
    (target / "train.zip").unlink()
    shutil.copytree(source / "train", target / "train")
    return target


@pytest.fixture(scope="session")
def kaggle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read-only: tests that change files take a copy."""
    return write_kaggle(tmp_path_factory.mktemp("carvana") / "kaggle", CARS, VIEWS)


@pytest.fixture(scope="session")
def prepared(kaggle: Path, tmp_path_factory: pytest.TempPathFactory) -> PairBuilder:
    return open_set("carvana", kaggle, tmp_path_factory.mktemp("prepared"))


@pytest.fixture
def copy(kaggle: Path, tmp_path: Path) -> Path:
    return shutil.copytree(kaggle, tmp_path / "copy")


@pytest.fixture
def one_car(tmp_path: Path) -> Path:
    return write_kaggle(tmp_path / "one_car", ("car",), ("01", "02"))


def test_records_are_the_files_resized(kaggle: Path, prepared: PairBuilder):
    names = [f"{car}_{view}" for car in CARS for view in VIEWS]
    assert prepared.facts.names == names
    for name, record in zip(names, prepared.records(), strict=True):
        image = Image.open(kaggle / "train" / f"{name}.jpg")
        small = image.resize((SIZE[1], SIZE[0]), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(record["image"], np.asarray(small))
        mask = np.asarray(Image.open(kaggle / "train_masks" / f"{name}_mask.gif"))
        np.testing.assert_array_equal(record["mask"], nearest(mask, SIZE))
        assert record["image"].dtype == record["mask"].dtype == np.uint8
        assert set(np.unique(record["mask"])) == {0, 1}


def test_groups_are_cars(prepared: PairBuilder):
    assert prepared.facts.groups == [car for car in CARS for _ in VIEWS]


def test_kaggle_leaves_the_split_to_us(prepared: PairBuilder):
    assert prepared.facts.splits == [""] * len(CARS) * len(VIEWS)


def test_native_sizes_are_kept(prepared: PairBuilder):
    assert prepared.facts.native == [list(NATIVE)] * len(CARS) * len(VIEWS)


def test_the_classes_are_background_and_car(prepared: PairBuilder):
    assert prepared.facts.classes == ["background", "car"]
    assert len(prepared.facts.palette) == 2


@pytest.mark.parametrize(
    "layout",
    [
        pytest.param(shutil.copytree, id="folders"),
        pytest.param(as_zips, id="zips"),
        pytest.param(lambda s, t: as_zips(s, t, top=True), id="zips with a top folder"),
        pytest.param(lambda s, t: as_zips(s, t, top=True, junk=True), id="zips made on macOS"),
        pytest.param(as_nested_zip, id="competition zip"),
        pytest.param(
            lambda s, t: as_nested_zip(s, t) / f"{COMPETITION}.zip", id="competition zip itself"
        ),
        pytest.param(as_mixture, id="one folder and one zip"),
        pytest.param(lambda s, t: shutil.copytree(s, t / "a" / "b").parents[1], id="deeper"),
    ],
)
def test_every_layout_reads_the_same(
    layout: Callable[[Path, Path], Path], kaggle: Path, prepared: PairBuilder, tmp_path: Path
):
    data = layout(kaggle, tmp_path / "data")
    assert contents(open_set("carvana", data, tmp_path / "prepared")) == contents(prepared)


def test_what_is_unpacked_goes_before_its_zip_which_is_read_where_it_lies(
    kaggle: Path, copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    data = as_zips(kaggle, tmp_path / "data")
    for path in (copy / "train").iterdir():
        save_image(np.zeros((*NATIVE, 3), np.uint8), path)
    shutil.copytree(copy / "train", data / "train")
    monkeypatch.setattr("unet_jax.datasets.carvana.unpack", lambda *_: pytest.fail("copied"))
    records = open_set("carvana", data, tmp_path / "prepared").records()
    assert not any(record["image"].any() for record in records)


def write_own_splits(folder: Path, splits: dict[str, list[str]]) -> Path:
    for split, names in splits.items():
        for name in names:
            image, mask = draw(ord(name[0]))
            save_image(image, folder / f"{split}_images" / f"{name}.jpg")
            save_mask(mask, folder / f"{split}_masks" / f"{name}_mask.gif")
    return folder


@pytest.mark.parametrize("packed", [False, True], ids=["folders", "zips"])
@pytest.mark.parametrize("test", [[], ["d_01"]], ids=["train and val", "train, val and test"])
def test_own_splits_are_kept(test: list[str], packed: bool, tmp_path: Path):
    splits = {"train": ["a_01", "a_02", "b_01"], "val": ["c_01"], "test": test}
    data = write_own_splits(tmp_path / "data", splits)
    if packed:
        for folder in [path for path in data.iterdir() if path.is_dir()]:
            folder.with_suffix(".zip").write_bytes(zipped(folder))
            shutil.rmtree(folder)
    facts = open_set("carvana", data, tmp_path / "prepared").facts
    assert facts.splits == [split for split, names in splits.items() for _ in names]
    assert facts.names == [f"{split}/{name}" for split, names in splits.items() for name in names]
    assert facts.groups == ["a", "a", "b", "c", *(["d"] if test else [])]


def test_own_splits_must_match_too(tmp_path: Path):
    data = write_own_splits(tmp_path / "data", {"train": ["a_01"], "val": ["b_01", "c_01"]})
    (data / "val_masks" / "c_01_mask.gif").unlink()
    message = refused("carvana", data, tmp_path / "prepared")
    assert "val_images/c_01.jpg: has no mask" in message


def test_files_that_macos_leaves_in_folders_are_passed_over(copy: Path, tmp_path: Path):
    (copy / "train" / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (copy / "train" / "._ff_01.jpg").write_bytes(b"\0\5\26\7")
    (copy / "train" / "notes.txt").write_text("not an image")
    names = open_set("carvana", copy, tmp_path / "prepared").facts.names
    assert len(names) == len(CARS) * len(VIEWS)


@pytest.mark.parametrize("spelling", ["0 and 255", "1-bit PNG", "all car", "all 255", "no car"])
def test_masks_may_be_spelt(spelling: str, one_car: Path, tmp_path: Path):
    folder = one_car / "train_masks"
    for path in sorted(folder.iterdir()):
        mask = np.asarray(Image.open(path))
        path.unlink()
        if spelling == "0 and 255":
            Image.fromarray(mask * np.uint8(255)).save(path.with_suffix(".png"))
        elif spelling == "1-bit PNG":
            Image.fromarray(mask > 0).save(path.with_suffix(".png"))
        else:
            value = {"all car": 1, "all 255": 255, "no car": 0}[spelling]
            save_mask(np.full_like(mask, value), path)
    builder = open_set("carvana", one_car, tmp_path / "p", NATIVE)
    stored = [record["mask"] for record in builder.records()]
    drawn = [draw(seed)[1] for seed in range(2)]
    for mask, original in zip(stored, drawn, strict=True):
        if spelling.startswith(("all", "no")):
            original = np.full(NATIVE, spelling != "no car")
        np.testing.assert_array_equal(mask, original)


ADVICE = (f"https://www.kaggle.com/c/{COMPETITION}", "--download", "--dataset shapes")


def test_no_data_dir(tmp_path: Path):
    message = refused("carvana", None, tmp_path / "prepared")
    assert all(part in message for part in ("--data-dir", *ADVICE))


@pytest.mark.parametrize("kind", ["missing", "empty"])
def test_a_folder_without_data(kind: str, tmp_path: Path):
    place = tmp_path / "data"
    if kind == "empty":
        place.mkdir()
    message = refused("carvana", place, tmp_path / "prepared")
    assert all(part in message for part in (str(place), *ADVICE))
    if kind == "empty":
        assert all(name in message for name in ("train", "train_masks", "train_images", "zips"))


def test_a_train_folder_without_images(copy: Path, tmp_path: Path):
    for folder in ("train", "train_masks"):
        shutil.rmtree(copy / folder)
        (copy / folder).mkdir()
        (copy / folder / "notes.txt").write_text("moved elsewhere")
    message = refused("carvana", copy, tmp_path / "prepared")
    assert f"train in {copy} holds no images" in message
    assert all(part in message for part in ADVICE)


def test_a_competition_zip_without_the_masks(kaggle: Path, tmp_path: Path):
    with zipfile.ZipFile(tmp_path / f"{COMPETITION}.zip", "w") as outer:
        outer.writestr("train.zip", zipped(kaggle / "train"))
    message = refused("carvana", tmp_path, tmp_path / "prepared")
    assert "looked for train, train_masks; or" in message


@pytest.mark.parametrize("packed", [False, True], ids=["folders", "zips"])
@pytest.mark.parametrize(
    ("lost", "complaint"),
    [
        ("train_masks/car_02_mask.gif", "train/car_02.jpg: has no mask"),
        ("train/car_01.jpg", "train_masks/car_01_mask.gif: has no image"),
    ],
    ids=["image without mask", "mask without image"],
)
def test_unpaired(lost: str, complaint: str, packed: bool, one_car: Path, tmp_path: Path):
    (one_car / lost).unlink()
    data = as_zips(one_car, tmp_path / "zips") if packed else one_car
    message = refused("carvana", data, tmp_path / "prepared")
    assert complaint in message
    assert "1 files" in message


@pytest.mark.parametrize(
    ("kept", "twin"),
    [
        ("train/car_01.jpg", "train/car_01.png"),
        ("train_masks/car_01_mask.gif", "train_masks/car_01_mask.png"),
        ("train_masks/car_01_mask.gif", "train_masks/car_01.gif"),
    ],
    ids=["images", "masks", "masks with and without their suffix"],
)
def test_two_files_of_one_name(kept: str, twin: str, one_car: Path, tmp_path: Path):
    shutil.copy(one_car / kept, one_car / twin)
    message = refused("carvana", one_car, tmp_path / "prepared")
    assert "has the same name as" in message
    assert kept in message
    assert twin in message


def test_the_published_files(tmp_path: Path):
    builder = open_set("carvana", real("carvana"), tmp_path, (32, 48))
    facts = builder.facts
    assert len(builder.records()) == len(set(facts.names)) == 284
    assert len(set(facts.groups)) == 26
    assert set(map(tuple, facts.native)) == {(1280, 1918)}
    views = np.unique(facts.groups, return_counts=True)[1]
    assert sorted(views) == [4] * 11 + [16] * 15
    masks = np.stack([record["mask"] for record in builder.records()])
    # Cars fill a fifth of these pictures; the wrong palette index would give four fifths.
    assert 0.15 < masks.mean() < 0.3
    # Seen from any side, a car neither vanishes nor fills its picture.
    share = masks.mean(axis=(1, 2))
    assert share.min() > 0.05
    assert share.max() < 0.5

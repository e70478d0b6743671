"""CamVid: both published layouts, what is ignored, and lists and tables that cannot be followed."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from drawing import (
    NATIVE,
    RED,
    SIZE,
    SPLITS,
    contents,
    draw,
    draw_classes,
    masks,
    nearest,
    open_set,
    real,
    refused,
    save_image,
    write_segnet,
    zipped,
)
from PIL import Image

from unet_jax.datasets.camvid import CamVid

VOID = 11
NAMES = [f"{split}/{name}" for split, names in SPLITS.items() for name in names]


COLOURS = ((64, 128, 64), (0, 128, 192), (128, 0, 0), (0, 0, 0), (64, 192, 0))
TABLE = """name,r,g,b
Animal,64,128,64
Bicyclist,0,128, 192
Building,128, 0, 0
Void,0, 0, 0
Wall,64, 192, 0"""
CLASS_IDS = np.array([0, 1, 2, 255, 3])


def write_kaggle(folder: Path, splits: dict[str, list[str]] = SPLITS, table: str = TABLE) -> Path:
    """Masks of the colours in `class_dict.csv`, with spaces in it as published."""
    for split, names in splits.items():
        for name in names:
            save_image(draw(ord(name))[0], folder / split / f"{name}.png")
            colours = np.array(COLOURS, np.uint8)[draw_classes(ord(name), len(COLOURS))]
            save_image(colours, folder / f"{split}_labels" / f"{name}_L.png")
    (folder / "class_dict.csv").write_text(table)
    return folder


@pytest.fixture
def segnet(tmp_path: Path) -> Path:
    return write_segnet(tmp_path / "data")


@pytest.fixture
def kaggle(tmp_path: Path) -> Path:
    return write_kaggle(tmp_path / "data")


def test_the_list_files_are_followed(segnet: Path, tmp_path: Path):
    facts = open_set("camvid", segnet, tmp_path / "prepared").facts
    assert facts.names == NAMES
    assert facts.splits == ["train"] * 3 + ["val"] * 2
    assert facts.groups == NAMES


def test_a_file_that_is_not_listed_is_not_used(segnet: Path, tmp_path: Path):
    lines = (segnet / "train.txt").read_text().splitlines(keepends=True)
    (segnet / "train.txt").write_text("".join(lines[1:]))
    assert open_set("camvid", segnet, tmp_path / "prepared").facts.names == NAMES[1:]


def test_without_lists_the_folders_are_the_split(segnet: Path, tmp_path: Path):
    listed = contents(open_set("camvid", segnet, tmp_path / "prepared"))
    for split in SPLITS:
        (segnet / f"{split}.txt").unlink()
    assert contents(open_set("camvid", segnet, tmp_path / "prepared")) == listed


def test_a_published_test_set_is_kept_apart(tmp_path: Path):
    data = write_segnet(tmp_path / "data", {**SPLITS, "test": ["f"]})
    facts = open_set("camvid", data, tmp_path / "prepared").facts
    assert facts.splits == ["train"] * 3 + ["val"] * 2 + ["test"]


def test_a_listed_test_set_without_masks_is_left_out(tmp_path: Path):
    data = write_segnet(tmp_path / "data", {**SPLITS, "test": ["f", "g"]})
    shutil.rmtree(data / "testannot")
    assert open_set("camvid", data, tmp_path / "prepared").facts.names == NAMES


def test_a_listed_test_set_that_lacks_one_mask_is_refused(tmp_path: Path):
    data = write_segnet(tmp_path / "data", {**SPLITS, "test": ["f", "g"]})
    (data / "testannot" / "g.png").unlink()
    message = refused("camvid", data, tmp_path / "prepared")
    assert "test.txt, line 2: there is no testannot/g.png" in message


@pytest.mark.parametrize("size", [NATIVE, SIZE], ids=["native", "smaller"])
def test_eleven_classes_and_void_is_ignored(size: tuple[int, int], segnet: Path, tmp_path: Path):
    builder = open_set("camvid", segnet, tmp_path / "prepared", size)
    assert len(builder.facts.classes) == len(builder.facts.palette) == 11
    for name, mask in masks(builder).items():
        drawn = draw_classes(ord(name[-1]), 12)
        expected = np.where(drawn == VOID, 255, drawn)
        np.testing.assert_array_equal(mask, nearest(expected, size))


def test_a_value_above_void_is_refused(segnet: Path, tmp_path: Path):
    save_image(draw_classes(0, 13), segnet / "valannot" / "e.png")
    message = refused("camvid", segnet, tmp_path / "prepared")
    assert "valannot/e.png: holds the values 12; allowed: 0, 1, 2, 3, 4, 5, 6, 7, …" in message


@pytest.mark.parametrize("write", [write_segnet, write_kaggle], ids=["11 classes", "32 classes"])
def test_a_zip_reads_as_the_folder(write: Callable[[Path], Path], tmp_path: Path):
    data = write(tmp_path / "data")
    (tmp_path / "zips").mkdir()
    (tmp_path / "zips" / "archive.zip").write_bytes(zipped(data, "CamVid/"))
    folder = contents(open_set("camvid", data, tmp_path / "prepared"))
    assert contents(open_set("camvid", tmp_path / "zips", tmp_path / "prepared")) == folder


def test_the_classes_are_those_of_the_table_but_void(kaggle: Path, tmp_path: Path):
    facts = open_set("camvid", kaggle, tmp_path / "prepared").facts
    assert facts.classes == ["Animal", "Bicyclist", "Building", "Wall"]
    assert facts.palette == [list(COLOURS[n]) for n in (0, 1, 2, 4)]
    assert facts.names == NAMES
    assert facts.splits == ["train"] * 3 + ["val"] * 2


@pytest.mark.parametrize("size", [NATIVE, SIZE], ids=["native", "smaller"])
def test_colours_become_classes_and_void_is_ignored(
    size: tuple[int, int], kaggle: Path, tmp_path: Path
):
    for name, mask in masks(open_set("camvid", kaggle, tmp_path / "prepared", size)).items():
        expected = CLASS_IDS[draw_classes(ord(name[-1]), len(COLOURS))]
        np.testing.assert_array_equal(mask, nearest(expected, size))


def test_an_unknown_colour_is_refused(kaggle: Path, tmp_path: Path):
    path = kaggle / "train_labels" / "b_L.png"
    mask = np.asarray(Image.open(path)).copy()
    mask[0, 0] = RED
    save_image(mask, path)
    message = refused("camvid", kaggle, tmp_path / "prepared")
    assert "train_labels/b_L.png: holds the values #ff0000; allowed: #000000, #0080c0" in message


def test_another_table_is_another_set(kaggle: Path, tmp_path: Path):
    assert "Wall" in open_set("camvid", kaggle, tmp_path / "prepared").facts.classes
    (kaggle / "class_dict.csv").write_text(TABLE.replace("Wall", "Fence"))
    assert "Fence" in open_set("camvid", kaggle, tmp_path / "prepared").facts.classes


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ("", "names 0 classes"),
        ("name,r,g,b\nVoid,0,0,0\nCar,1,1,1", "names 1 classes"),
        (TABLE + "\nCar,1,2", "line 7: 'Car,1,2' is not a name and three numbers"),
        (TABLE + "\nCar,1,2,3,4", "line 7: 'Car,1,2,3,4' is not"),
        (TABLE + "\nCar,1,2,256", "line 7: 'Car,1,2,256' is not"),
        (TABLE + "\nCar,1,2,-3", "line 7: 'Car,1,2,-3' is not"),
        (TABLE + "\nCar,1,2,x", "line 7: 'Car,1,2,x' is not"),
        (TABLE + "\n,1,2,3", "line 7: ',1,2,3' is not"),
        (TABLE + "\nCar,64,128,64", "line 7: Car has another class's colour"),
        (TABLE + "\nWall,1,2,3", "line 7: Wall has a colour already"),
        (TABLE + '\n"Car' + "x" * 200_000, "cannot be read"),
        ("\n".join(f"c{n},0,{n // 256},{n % 256}" for n in range(256)), "names 256 classes"),
    ],
    ids=[
        *("empty", "one class", "two numbers", "four numbers", "256", "negative", "letter"),
        *("no name", "colour twice", "name twice", "endless cell", "256 classes"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_followed(table: str, complaint: str, kaggle: Path, tmp_path: Path):
    (kaggle / "class_dict.csv").write_text(table)
    message = refused("camvid", kaggle, tmp_path / "prepared")
    assert "class_dict.csv" in message
    assert complaint in message


LINE = "/SegNet/CamVid/train/a.png /SegNet/CamVid/trainannot/a.png"


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("/x/train/q.png /x/trainannot/q.png", "no train/q.png and no trainannot/q.png"),
        ("/x/train/a.png", "'/x/train/a.png' is not an image and a mask"),
        ("/x/train/a.png /x/trainannot/a.png c", "is not an image and a mask"),
        (LINE, "has been listed before"),
        ("/x/train/b.png /x/trainannot/a.png", "has been listed before"),
    ],
    ids=["not there", "one path", "three paths", "twice", "one mask for two images"],
)
def test_a_list_that_cannot_be_followed(line: str, complaint: str, segnet: Path, tmp_path: Path):
    (segnet / "train.txt").write_text(f"{LINE}\n{line}\n")
    message = refused("camvid", segnet, tmp_path / "prepared")
    assert "train.txt, line 2: " in message
    assert complaint in message


def test_training_images_cannot_be_listed_for_validation(segnet: Path, tmp_path: Path):
    with (segnet / "val.txt").open("a") as file:
        file.write(LINE)
    message = refused("camvid", segnet, tmp_path / "prepared")
    assert "val.txt, line 3: " in message
    assert "has been listed before" in message


@pytest.mark.parametrize("text", [b"", b"\n \n"], ids=["empty", "blank"])
def test_lists_of_nothing(text: bytes, segnet: Path, tmp_path: Path):
    for split in SPLITS:
        (segnet / f"{split}.txt").write_bytes(text)
    message = refused("camvid", segnet, tmp_path / "prepared")
    assert f"no pairs of images and masks in {segnet}" in message


@pytest.mark.parametrize("lost", ["val", "trainannot"])
def test_a_folder_that_is_not_there(lost: str, segnet: Path, tmp_path: Path):
    shutil.rmtree(segnet / lost)
    message = refused("camvid", segnet, tmp_path / "prepared")
    for part in (str(segnet), "train, trainannot, val, valannot", "class_dict.csv", "--download"):
        assert part in message


def test_the_published_11_classes(tmp_path: Path):
    builder = open_set("camvid", real("camvid"), tmp_path, (45, 60))
    facts = builder.facts
    assert facts.splits == ["train"] * 367 + ["val"] * 101
    assert facts.classes == list(CamVid.NAMES)
    assert set(map(tuple, facts.native)) == {(360, 480)}
    stored = np.stack([record["mask"] for record in builder.records()])
    # A few percent of CamVid is void; it and all eleven classes occur.
    assert 0.01 < (stored == 255).mean() < 0.08
    assert set(np.unique(stored)) == {*range(11), 255}
    # Road is what a camera behind the windscreen sees most of in the lower half, and sky in none.
    lower = stored[:, 30:]
    assert np.bincount(lower[lower != 255]).argmax() == facts.classes.index("road")
    assert (lower == facts.classes.index("sky")).mean() < 0.01


def test_the_published_32_classes(tmp_path: Path):
    builder = open_set("camvid", real("camvid32"), tmp_path, (45, 60))
    facts = builder.facts
    assert facts.splits == ["train"] * 16 + ["val"] * 6
    assert len(facts.classes) == 31
    assert "Void" not in facts.classes
    assert set(map(tuple, facts.native)) == {(720, 960)}
    stored = np.stack([record["mask"] for record in builder.records()])
    assert 0.005 < (stored == 255).mean() < 0.08
    lower = stored[:, 30:]
    assert np.bincount(lower[lower != 255]).argmax() == facts.classes.index("Road")

"""ADE20K: label 0 is ignored exactly once, names come from the list, and sizes vary."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from drawing import (
    ADE20K_LINES,
    ADE20K_SIZES,
    NATIVE,
    SIZE,
    ade20k_labels,
    contents,
    draw,
    draw_classes,
    masks,
    nearest,
    open_set,
    real,
    refused,
    save_image,
    write_ade20k,
    zipped,
)
from PIL import Image

from unet_jax.datasets.ade20k import COUNT

HEADER, *LINES = ADE20K_LINES
LIST = "\n".join(ADE20K_LINES)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_ade20k(tmp_path / "data" / "ADEChallengeData2016")


@pytest.mark.parametrize("size", [NATIVE, SIZE], ids=["a's own size", "smaller"])
def test_zero_is_ignored_once_and_the_others_move_down(
    size: tuple[int, int], data: Path, tmp_path: Path
):
    stored = masks(open_set("ade20k", data, tmp_path / "prepared", size))
    assert list(stored) == ["train/a", "train/b", "val/c"]
    for name, mask in stored.items():
        drawn = ade20k_labels(name[-1]).astype(int)
        expected = np.where(drawn == 0, 255, drawn - 1)
        np.testing.assert_array_equal(mask, nearest(expected, size))


def test_native_sizes_are_kept(data: Path, tmp_path: Path):
    facts = open_set("ade20k", data, tmp_path / "prepared").facts
    assert facts.native == [list(ADE20K_SIZES.get(name, NATIVE)) for name in "abc"]
    assert facts.splits == ["train", "train", "val"]


def test_a_class_has_the_first_of_its_names(data: Path, tmp_path: Path):
    facts = open_set("ade20k", data, tmp_path / "prepared").facts
    assert facts.classes == [f"class {n}" for n in range(1, COUNT + 1)]
    assert len(set(map(tuple, facts.palette))) == COUNT


@pytest.mark.parametrize("layout", ["the folder above", "zip", "folder with the zip"])
def test_every_layout_reads_the_same(layout: str, data: Path, tmp_path: Path):
    expected = contents(open_set("ade20k", data, tmp_path / "prepared"))
    place = data.parent
    if layout != "the folder above":
        (tmp_path / "zips").mkdir()
        place = tmp_path / "zips" / "ADEChallengeData2016.zip"
        place.write_bytes(zipped(data, "ADEChallengeData2016/"))
    if layout == "folder with the zip":
        place = place.parent
    assert contents(open_set("ade20k", place, tmp_path / "prepared")) == expected


def test_a_value_above_150_is_refused(data: Path, tmp_path: Path):
    save_image(draw_classes(0, 152, (60, 60)), data / "annotations" / "training" / "b.png")
    save_image(draw(0, (60, 60))[0], data / "images" / "training" / "b.jpg")
    message = refused("ade20k", data, tmp_path / "prepared")
    assert "annotations/training/b.png: holds the values 151; allowed: 0, 1, 2," in message


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "names 0 classes; 150 are expected"),
        ("\n".join([HEADER, *LINES[:-1]]), "names 149 classes"),
        ("\n".join([HEADER, *LINES, LINES[-1].replace("150", "151")]), "names 151 classes"),
        ("\n".join(LINES), "is not 1, three numbers"),
        ("\n".join([HEADER, *LINES[1:]]), "is not 1, three numbers"),
        (LIST.replace("7\t0.1\t", "7 0.1 ", 1), "'7 0.1 63\\t7\\tclass 7, other 7' is not 7"),
        (LIST.replace("7\t0.1\t", "7\t", 1), "'7\\t63\\t7\\tclass 7, other 7' is not 7"),
        (LIST.replace("class 9, other 9", ", other 9", 1), "is not 9, three numbers and names"),
    ],
    ids=["empty", "149", "151", "no header", "one left out", "spaces for tabs", "four", "no name"],
)
def test_a_list_that_cannot_be_followed(text: str, complaint: str, data: Path, tmp_path: Path):
    (data / "objectInfo150.txt").write_text(text)
    message = refused("ade20k", data, tmp_path / "prepared")
    assert "objectInfo150.txt: " in message
    assert complaint in message


def test_an_image_without_its_mask_is_named(data: Path, tmp_path: Path):
    (data / "annotations" / "validation" / "c.png").unlink()
    save_image(ade20k_labels("a"), data / "annotations" / "validation" / "d.png")
    message = refused("ade20k", data, tmp_path / "prepared")
    assert "images/validation/c.jpg: has no mask" in message
    assert "annotations/validation/d.png: has no image" in message


@pytest.mark.parametrize("lost", ["images", "annotations", "objectInfo150.txt"])
def test_a_part_that_is_not_there(lost: str, data: Path, tmp_path: Path):
    place = data / lost
    place.unlink() if place.is_file() else shutil.rmtree(place)
    message = refused("ade20k", data, tmp_path / "prepared")
    for part in (str(data), "images, annotations, objectInfo150.txt", "--download"):
        assert part in message


def test_the_published_files(tmp_path: Path):
    builder = open_set("ade20k", real("ade20k"), tmp_path, (96, 128))
    facts = builder.facts
    assert facts.splits == ["train"] * 25 + ["val"] * 9
    assert facts.classes[:4] == ["wall", "building", "sky", "floor"]
    assert len(set(facts.classes)) == COUNT
    assert len(set(map(tuple, facts.native))) > 10
    folders = {"train": "training", "val": "validation"}
    for name, native in zip(facts.names, facts.native, strict=True):
        split, stem = name.split("/")
        path = real("ade20k") / "ADEChallengeData2016" / "images" / folders[split] / f"{stem}.jpg"
        assert list(Image.open(path).size[::-1]) == native
    stored = np.stack([record["mask"] for record in builder.records()])
    assert stored[stored != 255].max() < COUNT
    # A twelfth of ADE20K is "other" at most; had 0 been kept as wall, none would be.
    assert 0.005 < (stored == 255).mean() < 0.08
    # Walls and buildings are what there is most of.
    assert np.bincount(stored[stored != 255]).argmax() in (0, 1, 2)

"""Masks as run lengths, Carvana's and COCO's; and masks cleaned of small regions."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

from unet_jax.prediction.coco import coco_file, regions
from unet_jax.prediction.regions import remove_small_regions
from unet_jax.prediction.run_length import decode_runs, encode_runs, submission

MASKS = arrays.arrays(np.uint8, st.tuples(*[st.integers(1, 12)] * 2), elements=st.integers(0, 2))
decoding = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)
"""pycocotools 2.0.11 decodes as NumPy 1 had it; we only encode."""


def test_pixels_are_counted_from_1_along_rows():
    mask = np.array([[0, 1, 1, 0], [1, 0, 0, 1], [1, 1, 0, 1]])
    # Rows of four: pixels 2 and 3; 5; 8 to 10, across the row's end; 12.
    assert encode_runs(mask) == "2 2 5 1 8 3 12 1"
    np.testing.assert_array_equal(decode_runs("2 2 5 1 8 3 12 1", (3, 4)), mask)


def test_nothing_and_everything():
    assert encode_runs(np.zeros((3, 5))) == ""
    assert encode_runs(np.ones((3, 5))) == "1 15"
    assert not decode_runs("", (3, 5)).any()


@settings(deadline=None)
@given(MASKS)
def test_runs_come_back_as_the_mask(mask: np.ndarray):
    np.testing.assert_array_equal(decode_runs(encode_runs(mask), mask.shape), mask != 0)


@pytest.mark.parametrize("runs", ["0 2", "5 0", "11 2", "3"])
def test_runs_that_cannot_be_are_refused(runs: str):
    with pytest.raises(ValueError, match=r"lies outside of 2×5|pairs of start and length"):
        decode_runs(runs, (2, 5))


def test_a_submission_has_the_competitions_header(tmp_path: Path):
    with submission(tmp_path / "s.csv") as table:
        table.writerow(("a_01.jpg", "1 3"))
        table.writerow(("b,1.jpg", ""))
        assert not (tmp_path / "s.csv").exists()
    assert (tmp_path / "s.csv").read_text() == 'img,rle_mask\na_01.jpg,1 3\n"b,1.jpg",\n'


@decoding
@settings(deadline=None)
@given(MASKS)
def test_coco_reads_the_masks_back(mask: np.ndarray):
    coco = pytest.importorskip("pycocotools.mask")
    covered = np.full(mask.shape, 255)
    for region in regions(mask, ("a", "b", "c")):
        pixels = coco.decode(region["segmentation"]) != 0
        assert region["area"] == pixels.sum() > 0
        assert (covered[pixels] == 255).all()
        covered[pixels] = region["category_id"]
        ys, xs = np.nonzero(pixels)
        box = [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
        assert region["bbox"] == box
    np.testing.assert_array_equal(covered, mask)


@decoding
def test_pycocotools_opens_the_file(tmp_path: Path):
    coco = pytest.importorskip("pycocotools.coco")
    mask = np.array([[0, 1], [1, 1]], np.uint8)
    with coco_file(tmp_path / "c.json", ("background", "car")) as made:
        made.add("a.jpg", (2, 2), regions(mask, ("background", "car")))
        made.add("b.jpg", (2, 2), regions(0 * mask, ("background", "car")))
        made.add("c.jpg", (2, 2), regions(mask.T, ("background", "car")))
    opened = coco.COCO(tmp_path / "c.json")
    names = [image["file_name"] for image in opened.loadImgs([1, 2, 3])]
    assert names == ["a.jpg", "b.jpg", "c.jpg"]
    (car,) = opened.loadAnns(opened.getAnnIds(imgIds=[1]))
    assert opened.loadCats([car["category_id"]])[0]["name"] == "car"
    np.testing.assert_array_equal(opened.annToMask(car), mask)
    assert opened.getAnnIds(imgIds=[2]) == []
    assert json.loads((tmp_path / "c.json").read_text())["categories"][0]["name"] == "background"


# Small regions.


def drawn(text: str) -> np.ndarray:
    return np.array([[int(c) for c in line] for line in text.split()], np.uint8)


def test_specks_and_holes_take_the_class_around_them():
    before = drawn("""
        0000000000
        0100011111
        0000011011
        0020011111
        0220011111""")
    after = drawn("""
        0000000000
        0000011111
        0000011111
        0020011111
        0220011111""")
    np.testing.assert_array_equal(remove_small_regions(before, 3), after)


def test_a_speck_in_a_small_hole_goes_with_it():
    before = drawn("1111111 1000001 1002001 1000001 1111111 1111111 1111111")
    np.testing.assert_array_equal(remove_small_regions(before, 20), np.ones((7, 7)))


def test_regions_touch_at_edges_not_at_corners():
    np.testing.assert_array_equal(
        remove_small_regions(drawn("1000 0100 0000"), 2), np.zeros((3, 4))
    )


def test_if_all_is_small_all_stays():
    mask = drawn("0101 1010")
    np.testing.assert_array_equal(remove_small_regions(mask, 2), mask)


@settings(deadline=None)
@given(MASKS, st.integers(1, 8))
def test_each_small_pixel_takes_a_nearest_large_one(mask: np.ndarray, least: int):
    """The distance of the taken class is looked up over the whole picture."""
    kept = mask.copy()
    cleaned = remove_small_regions(mask, least)
    np.testing.assert_array_equal(mask, kept)
    large = np.zeros(mask.shape, bool)
    for each in range(3):
        found: Any = ndimage.label(mask == each)
        labels = found[0]
        areas = np.bincount(labels.ravel())
        large |= (areas[labels] >= least) & (mask == each)
    if not large.any():
        np.testing.assert_array_equal(cleaned, mask)
        return
    np.testing.assert_array_equal(cleaned[large], mask[large])
    places = np.argwhere(large)
    for y, x in np.argwhere(~large):
        distances = ((places - (y, x)) ** 2).sum(1)
        nearest = places[distances == distances.min()]
        assert cleaned[y, x] in mask[tuple(nearest.T)]

"""The map of the borders between objects: by hand, and against its definition."""

import numpy as np
import pytest
from scipy import ndimage

from unet_jax.batch import IGNORED
from unet_jax.border import border_map

SIGMA = 5.0


def by_definition(mask: np.ndarray, sigma: float) -> np.ndarray:
    """From every pixel to every object, over the whole picture."""
    pieces = []
    for index in set(np.unique(mask)) - {0, IGNORED}:
        labels = np.zeros(mask.shape, np.int32)
        ndimage.label(mask == index, output=labels)
        pieces += [labels == number for number in range(1, labels.max() + 1)]
    if len(pieces) < 2:
        return np.zeros_like(mask)
    ys, xs = np.indices(mask.shape)
    distances = []
    for piece in pieces:
        y, x = (axis[:, None, None] for axis in np.nonzero(piece))
        distances.append(np.sqrt((y - ys) ** 2 + (x - xs) ** 2).min(axis=0))
    one, two = np.sort(distances, axis=0)[:2]
    weight = 255 * np.exp(-((one + two) ** 2) / (2 * sigma**2))
    return np.where(mask == 0, np.rint(weight), 0).astype(np.uint8)


def test_between_two_objects_by_hand():
    # d1 + d2 is 4 on the straight line between them, 1 + 5 and 2 + 6 to the left of both.
    mask = np.array([[0, 0, 1, 0, 0, 0, 1]], np.uint8)
    between, beside, far = (round(255 * np.exp(-(d**2) / 50)) for d in (4, 6, 8))
    assert border_map(mask, SIGMA).tolist() == [[far, beside, 0, between, between, between, 0]]


@pytest.mark.parametrize("sigma", [1.0, 2.5, 5.0])
@pytest.mark.parametrize("objects", [10, 40])
def test_it_is_as_defined(sigma, objects):
    rng = np.random.default_rng(objects)
    mask = np.zeros((20, 50), np.uint8)
    for y, x in rng.integers(0, (16, 46), (objects, 2)):
        height, width = rng.integers(1, 5, 2)
        mask[y : y + height, x : x + width] = rng.choice([1, 2, IGNORED])
    found = border_map(mask, sigma)
    assert found.dtype == np.uint8
    assert np.array_equal(found, by_definition(mask, sigma))
    assert found.any()


def test_objects_touching_at_a_corner_are_two():
    mask = np.array([[1, 0], [0, 1]], np.uint8)
    # Both pixels of the background are beside both objects: d1 + d2 is 2.
    assert border_map(mask, SIGMA).tolist() == [[0, 235], [235, 0]]  # 255 exp(-4 / 50) = 235.4


def test_two_classes_side_by_side_are_two_objects():
    assert border_map(np.array([[0, 1, 2]], np.uint8), SIGMA)[0, 0] == round(255 * np.exp(-9 / 50))


def test_objects_and_ignored_pixels_have_none():
    mask = np.array([[1, 0, IGNORED, 0, 1]], np.uint8)
    assert (border_map(mask, SIGMA) > 0).tolist() == [[False, True, False, True, False]]


@pytest.mark.parametrize(
    "mask",
    [
        pytest.param(np.zeros((4, 5), np.uint8), id="none"),
        pytest.param(np.eye(1, 7, 2, dtype=np.uint8), id="one"),
        pytest.param(np.ones((4, 5), np.uint8), id="nothing-else"),
        pytest.param(np.full((4, 5), IGNORED, np.uint8), id="ignored"),
    ],
)
def test_fewer_than_two_objects_have_no_border(mask):
    assert not border_map(mask, SIGMA).any()

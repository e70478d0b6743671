"""Class weights: worked by hand, and against the definitions."""

import numpy as np
import pytest

from unet_jax.balance import class_weights
from unet_jax.batch import IGNORED
from unet_jax.config import LossConfig
from unet_jax.datasets.errors import DataError

# Class 0 in both masks: 6 of 12 pixels; class 1 in the first alone: 3 of its 4 that are labelled;
# class 2 in the second alone: 3 of 8; class 3 nowhere.
MASKS = [
    np.array([[0, 1, 1, 1, IGNORED, IGNORED]], np.uint8),
    np.array([[0, 0, 0, 0], [0, 2, 2, 2]], np.uint8),
]


def weights(kind: str, classes: int = 4, masks=MASKS):
    return class_weights(LossConfig(class_weights=kind), classes, masks)  # type: ignore[arg-type]


def test_inverse_frequency_by_hand():
    # 12 pixels, 3 classes that occur: 12 / (3·6), 12 / (3·3), 12 / (3·3).
    found = weights("inverse")
    assert found == pytest.approx((2 / 3, 4 / 3, 4 / 3, 0), rel=1e-15)
    # The mean weight of a pixel is 1.
    assert found is not None
    assert np.dot(found, (6, 3, 3, 0)) / 12 == pytest.approx(1, rel=1e-15)


def test_median_frequency_by_hand():
    # Frequencies 6/12, 3/4 and 3/8: the median is that of class 0.
    assert weights("median") == pytest.approx((1, 2 / 3, 4 / 3, 0), rel=1e-15)


def test_median_frequency_of_two_classes_is_between_them():
    # All of one class, 2 pixels; half of each, 4 pixels: 4/6 and 2/4, whose median is 7/12.
    masks = [np.array([0, 0], np.uint8), np.array([0, 0, 1, 1], np.uint8)]
    assert weights("median", 2, masks) == pytest.approx((7 / 8, 7 / 6), rel=1e-15)


@pytest.mark.parametrize("kind", ["inverse", "median"])
def test_masks_may_come_one_by_one_and_in_any_order(kind):
    assert weights(kind, masks=iter(MASKS[::-1])) == weights(kind)


@pytest.mark.parametrize("kind", ["inverse", "median"])
def test_without_a_labelled_pixel_there_is_no_frequency(kind):
    empty = [np.full((2, 2), IGNORED, np.uint8)]
    message = f"^class_weights: {kind} needs pixels to count, and every training pixel is ignored$"
    with pytest.raises(DataError, match=message):
        weights(kind, masks=empty)


def test_weights_that_are_given_are_taken_unseen():
    def unread():
        raise AssertionError("no mask need be read")
        yield

    assert class_weights(LossConfig(), 2, unread()) is None
    assert class_weights(LossConfig(class_weights=(3.0, 0.0)), 2, unread()) == (3.0, 0.0)


def test_settings_that_do_not_go_with_the_classes_are_refused():
    config = LossConfig(class_weights=(1.0, 2.0))
    message = "^class_weights: 2 numbers are given for 3 classes$"
    with pytest.raises(ValueError, match=message):
        class_weights(config, 3, MASKS)

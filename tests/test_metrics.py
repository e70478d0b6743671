"""Scores: against small examples worked by hand, and the two frameworks together."""

import jax.numpy as jnp
import numpy as np
import pytest

import unet_jax.metrics
import unet_torch_ref.metrics
from parity.components.losses import to_torch
from parity.components.metrics import CLASSES, both_counts, compare_metrics
from parity.row import first_divergence
from unet_jax.batch import IGNORED
from unet_jax.metrics import scores

pytestmark = pytest.mark.usefixtures("x64")


@pytest.mark.parametrize("classes", [2, 3, 150])
def test_ignored_pixels_leave_counts_unchanged(classes):
    rng = np.random.default_rng(classes)
    mask, predicted = rng.integers(0, classes, (2, 3, 16, 16), np.uint8)
    valid = np.array([True, False, True])
    counted = valid[:, None, None] & (rng.random(mask.shape) < 0.5)
    expected = np.zeros((classes, classes), int)
    np.add.at(expected, (mask[counted], predicted[counted]), 1)
    ignoring = np.where(counted | ~valid[:, None, None], mask, IGNORED).astype(np.uint8)
    for counts in both_counts(predicted, ignoring, valid, classes):
        assert np.array_equal(counts, expected)
    for counts in both_counts(predicted, np.full_like(mask, IGNORED), valid, classes):
        assert not counts.any()


# Classes from logits.


@pytest.mark.parametrize(
    ("logits", "expected"),
    [
        pytest.param([[0.5], [0.0], [-0.5]], [1, 0, 0], id="one-logit-above-0"),
        pytest.param([[1, 3, 2], [2, 2, 1], [0, -1, 0]], [1, 0, 0], id="the-first-of-equals"),
    ],
)
def test_predicted_classes(logits, expected):
    array = np.asarray(logits, np.float64)[None, None]  # [1, 1, pixels, K]
    ours = np.asarray(unet_jax.metrics.predict_classes(jnp.asarray(array)))
    theirs = unet_torch_ref.metrics.predict_classes(to_torch(array)).numpy()
    assert ours.tolist() == theirs.tolist() == [[expected]]


# Confusion counts.


MASK = np.array([[[0, 0, 0], [1, 1, 2]]], np.uint8)
PREDICTED = np.array([[[0, 0, 1], [1, 2, 2]]], np.uint8)
CONFUSION = [[2, 1, 0], [0, 1, 1], [0, 0, 1]]


def test_confusion_by_hand_has_the_truth_in_rows():
    for counts in both_counts(PREDICTED, MASK, np.array([True]), 3):
        assert counts.tolist() == CONFUSION


def test_padding_images_leave_counts_unchanged():
    # The padding's 255 would be a cell far outside, its 0 the background hit.
    for fill in (0, 2, 255):
        padding = np.full_like(MASK, fill)
        mask, predicted = (np.concatenate([a, padding]) for a in (MASK, PREDICTED))
        for counts in both_counts(predicted, mask, np.array([True, False]), 3):
            assert counts.tolist() == CONFUSION


def test_counts_of_padding_alone_are_zero():
    for counts in both_counts(PREDICTED, MASK, np.array([False]), 3):
        assert counts.tolist() == np.zeros((3, 3)).tolist()


@pytest.mark.parametrize("classes", CLASSES)
def test_counts_agree(classes):
    assert first_divergence(compare_metrics((classes,))) is None


@pytest.mark.parametrize("classes", [2, 32, 150])
def test_confusion_counts_are_those_of_numpy(classes):
    rng = np.random.default_rng(classes)
    mask, predicted = rng.integers(0, classes, (2, 3, 16, 16), np.uint8)
    valid = np.array([True, False, True])
    expected = np.zeros((classes, classes), int)
    np.add.at(expected, (mask[valid], predicted[valid]), 1)
    for counts in both_counts(predicted, mask, valid, classes):
        assert np.array_equal(counts, expected)


# Scores. A ratio of two small integers is rounded once in each of two ways: 1e-15 is a few units.


def close(value: float) -> object:
    return pytest.approx(value, rel=1e-15)


def test_scores_of_several_classes_by_hand():
    # Class 0: 2 hits, truth 3, predicted 2; class 1: 1, 2, 2; class 2: 1, 1, 2.
    result = scores(np.array(CONFUSION), ("ground", "tree", "car"))
    assert result["dice_per_class"] == {
        "ground": close(2 * 2 / (3 + 2)),
        "tree": close(2 * 1 / (2 + 2)),
        "car": close(2 * 1 / (1 + 2)),
    }
    assert result["iou_per_class"] == {
        "ground": close(2 / 3),
        "tree": close(1 / 3),
        "car": close(1 / 2),
    }
    assert result["dice"] == close((4 / 5 + 1 / 2 + 2 / 3) / 3)
    assert result["iou"] == close((2 / 3 + 1 / 3 + 1 / 2) / 3)
    assert result["accuracy"] == close(4 / 6)
    assert result["accuracy_per_class"] == {"ground": close(2 / 3), "tree": 1 / 2, "car": 1}
    assert result["mean_class_accuracy"] == close((2 / 3 + 1 / 2 + 1) / 3)


def test_scores_of_two_classes_are_the_foregrounds():
    # 5 of 8 foreground pixels found, 1 background pixel taken for foreground.
    result = scores(np.array([[90, 1], [3, 5]]), ("background", "car"))
    assert result["dice"] == close(2 * 5 / (8 + 6))
    assert result["iou"] == close(5 / 9)
    assert result["accuracy"] == close(95 / 99)
    assert result["mean_class_accuracy"] == close((90 / 91 + 5 / 8) / 2)
    assert result["dice_per_class"]["background"] == close(2 * 90 / (91 + 93))
    assert result["iou_per_class"]["background"] == close(90 / 94)


def test_a_class_in_neither_truth_nor_prediction_has_no_score():
    counts = np.zeros((4, 4), int)
    counts[np.ix_([0, 1, 3], [0, 1, 3])] = CONFUSION
    result = scores(counts, ("ground", "tree", "ghost", "car"))
    without = scores(np.array(CONFUSION), ("ground", "tree", "car"))
    for name in ("dice", "iou", "accuracy"):
        assert result[f"{name}_per_class"].pop("ghost") is None
    assert result == without


@pytest.mark.parametrize(
    "counts",
    [
        pytest.param([[4, 0, 2], [0, 3, 0], [0, 0, 0]], id="predicted-only"),
        pytest.param([[4, 0, 0], [0, 3, 0], [2, 0, 0]], id="true-only"),
    ],
)
def test_a_class_that_is_always_missed_scores_0_and_counts(counts):
    result = scores(np.array(counts), ("ground", "tree", "car"))
    without_truth = counts[2] == [0, 0, 0]
    assert result["accuracy_per_class"]["car"] == (None if without_truth else 0)
    # Of the class' own pixels none is right; without any, it has no say.
    accuracy = (4 / 6 + 1) / 2 if without_truth else (1 + 1 + 0) / 3
    assert result["mean_class_accuracy"] == close(accuracy)
    assert result["iou_per_class"]["car"] == 0
    assert result["iou"] == close((4 / 6 + 1 + 0) / 3)


@pytest.mark.parametrize(
    ("pixels", "dtype"),
    [
        pytest.param(2**29, np.int32, id="sums-beyond-int32"),
        pytest.param(5088 * 1918 * 1280, np.int64, id="a-whole-data-set"),
    ],
)
def test_large_counts_do_not_overflow(pixels, dtype):
    # Of 4 shares of foreground 3 are found, and 1 share of the background is taken for it.
    shares = np.array([[0, 1], [1, 3]])
    result = scores((shares * pixels).astype(dtype), ("background", "car"))
    assert result["dice"] == close(2 * 3 / (4 + 4))
    assert result["iou"] == close(3 / 5)
    assert result["accuracy"] == close(3 / 5)


def test_nothing_to_score_is_an_error():
    with pytest.raises(ValueError, match="every validation pixel is ignored"):
        scores(np.zeros((2, 2)), ("background", "foreground"))

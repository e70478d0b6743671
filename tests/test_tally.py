"""What is counted of a sample, against a loop over its pixels and what training counts."""

import jax.numpy as jnp
import numpy as np
import pytest

from unet_jax.boundary import count_boundaries
from unet_jax.evaluation.tally import Tally, all_rates, count
from unet_jax.metrics import boundary_counts, boundary_scores, boundary_tolerance, scores


def draw(seed: int, classes: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A coarse truth with ignored pixels, and a prediction that is often like it."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, classes, (-(-size[0] // 4), -(-size[1] // 4)))
    truth = coarse.repeat(4, 0).repeat(4, 1)[: size[0], : size[1]].astype(np.uint8)
    other = rng.integers(0, classes, size).astype(np.uint8)
    predicted = np.where(rng.random(size) < 0.2, other, np.roll(truth, 1, 1))
    truth[rng.random(size) < 0.1] = 255
    return predicted, truth


def counts_in_training(
    predicted: np.ndarray, truth: np.ndarray, classes: int, tolerance: int
) -> np.ndarray:
    """Boundary counts of one picture, as validation counts them."""
    batch = jnp.asarray(predicted)[None], jnp.asarray(truth)[None], jnp.ones(1, bool)
    return np.asarray(boundary_counts(*batch, classes, tolerance))


@pytest.mark.parametrize("tolerance", [1, 2, 5])
@pytest.mark.parametrize("classes", [2, 5])
def test_boundaries_are_counted_as_in_training(classes: int, tolerance: int):
    for seed in range(4):
        predicted, truth = draw(seed, classes, (21, 33))
        expected = counts_in_training(predicted, truth, classes, tolerance)
        found = count_boundaries(predicted, truth, classes, tolerance)
        np.testing.assert_array_equal(found, expected)
        assert 0 < found[:, 1].sum() <= found[:, 0].sum()


def test_boundaries_of_nothing():
    whole = np.ones((8, 8), np.uint8)
    assert not count_boundaries(whole, whole, 2, 1).any()
    assert not count_boundaries(whole, np.full((8, 8), 255, np.uint8), 2, 1).any()


@pytest.mark.parametrize("logits", [1, 3])
def test_counts_are_those_of_a_loop_over_pixels(logits: int):
    rng, classes = np.random.default_rng(0), max(logits, 2)
    band = rng.random((11, 17, logits)).astype(np.float32)
    truth = rng.integers(0, classes, (11, 17)).astype(np.uint8)
    truth[:2] = 255
    found = count([band[:4], band[4:]], truth, classes, 0.3 if classes == 2 else 0.5)
    confusion = np.zeros((classes, classes), int)
    for p, true, guess in zip(band.reshape(-1, logits), truth.flat, found.mask.flat, strict=True):
        assert guess == (p[0] > 0.3 if classes == 2 else p.argmax())
        if true != 255:
            confusion[true, guess] += 1
    np.testing.assert_array_equal(found.confusion, confusion)
    tolerance = boundary_tolerance((11, 17))
    expected = counts_in_training(found.mask, truth, classes, tolerance)
    np.testing.assert_array_equal(found.boundary, expected)
    assert found.calibration.pixels.sum() == confusion.sum()


def test_scores_of_a_sample_by_hand():
    """Foreground: 2 hits, 3 true, 4 predicted, so that Dice is 4/7. Then two classes of three, with
    1 hit of 2 that are either, each. Then nothing that counts."""
    tally = Tally(1, 2)
    truth = np.array([[1, 1, 1, 0, 0, 0]], np.uint8)
    band = np.array([[1, 1, 0, 1, 1, 0]], np.float32)[..., None]
    assert tally.add(0, count([band], truth, 2, 0.5)) == pytest.approx(4 / 7)
    assert tally.pixels.tolist() == [[[1, 2], [3, 3], [2, 4]]]
    three = Tally(1, 3)
    truth = np.array([[0, 0, 2, 255]], np.uint8)
    band = np.eye(3, dtype=np.float32)[[[0, 2, 2, 1]]]
    assert three.add(0, count([band], truth, 3, 0.5)) == pytest.approx((1 / 2 + 1 / 2) / 2)
    nothing = Tally(1, 2)
    ignored = count([np.ones((1, 4, 1))], np.full((1, 4), 255, np.uint8), 2, 0.5)
    assert np.isnan(nothing.add(0, ignored))


@pytest.mark.parametrize("classes", [2, 4])
def test_sums_give_the_scores_of_training(classes: int):
    tally, names = Tally(3, classes), [str(n) for n in range(classes)]
    for n in range(3):
        predicted, truth = draw(n, classes, (16, 20))
        tally.add(n, count([np.eye(classes)[predicted]], truth, classes, 0.5))
    found = all_rates(tally.pixels.sum(0), tally.boundary.sum(0))
    expected = scores(tally.confusion, names) | boundary_scores(tally.boundary.sum(0), names)
    for name, value in expected.items():
        given = list(value.values()) if isinstance(value, dict) else value
        np.testing.assert_array_equal(found[name], np.array(given, float))

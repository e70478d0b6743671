"""Calibration and thresholds, from sums, against what all pixels say one by one."""

import numpy as np
import pytest

from unet_jax.calibration import BINS, LEVELS, best_threshold, calibration_of, dice_by_threshold


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return (powers / powers.sum(-1, keepdims=True)).astype(np.float32)


def test_what_comes_true_as_often_as_it_says_has_no_error():
    """Of 90,000 pixels of each probability, that share is foreground, exactly."""
    p = np.array([0.1, 0.3, 0.5, 0.7, 0.9], np.float32)
    band = np.repeat(p, 90_000)[:, None]
    mask = np.concatenate([np.arange(90_000) < round(90_000 * share) for share in p.tolist()])
    mask = mask.astype(np.uint8)
    found = calibration_of(band, mask, 2)
    assert found.error < 1e-6  # float32 has 0.1 to 1e-8.
    # Each pixel's variance.
    assert found.brier_score == pytest.approx(np.mean(p * (1 - p)), rel=1e-6)


def test_an_overconfident_network_by_hand():
    """1 in 4 is wrong where 0.95 is said; all are right where 0.05 is said."""
    band = np.array([0.95] * 8 + [0.05] * 8, np.float32)[:, None]
    mask = np.array([1] * 6 + [0] * 2 + [0] * 8, np.uint8)
    found = calibration_of(band, mask, 2)
    assert found.error == pytest.approx((0.2 + 0.05) / 2, rel=1e-6)
    expected = (6 * 0.05**2 + 2 * 0.95**2 + 8 * 0.05**2) / 16
    assert found.brier_score == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("logits", [1, 2, 4])
def test_sums_are_those_of_a_loop_over_pixels(logits: int):
    rng = np.random.default_rng(logits)
    classes = max(logits, 2)
    given = rng.normal(size=(6, 9, logits)) * 2
    band = softmax(given) if logits > 1 else (1 / (1 + np.exp(-given))).astype(np.float32)
    mask = rng.integers(0, classes, (6, 9)).astype(np.uint8)
    mask[0, :4] = 255
    found = calibration_of(band[:2], mask[:2], classes) + calibration_of(
        band[2:], mask[2:], classes
    )

    bins: list[list[tuple[float, bool]]] = [[] for _ in range(BINS)]
    squares, count = 0.0, 0
    for p, true in zip(band.reshape(-1, logits).tolist(), mask.ravel().tolist(), strict=True):
        if true == 255:
            continue
        count += 1
        if classes == 2:
            said, came = p[-1], true == 1
            squares += (said - came) ** 2
        else:
            best = max(range(classes), key=lambda k: p[k])
            said, came = p[best], best == true
            squares += sum((p[k] - (k == true)) ** 2 for k in range(classes))
        bins[min(int(said * BINS), BINS - 1)].append((said, came))
    error = sum(abs(sum(s for s, _ in b) - sum(c for _, c in b)) for b in bins) / count
    assert found.pixels.tolist() == [len(b) for b in bins]
    assert found.error == pytest.approx(error, rel=1e-6)
    assert found.brier_score == pytest.approx(squares / count, rel=1e-6)


def test_dice_of_every_threshold_is_that_of_all_pixels():
    """Probabilities that are thresholds themselves, too: above is not at."""
    rng = np.random.default_rng(0)
    p = np.concatenate([rng.random(300), rng.integers(0, LEVELS + 1, 100) / LEVELS, [0, 1, 0.5]])
    p = p.astype(np.float32)
    mask = (rng.random(p.size) < p).astype(np.uint8)
    values, dice = dice_by_threshold(calibration_of(p[:, None], mask, 2).levels)
    for n in [0, 1, *range(2, LEVELS - 1, 37), LEVELS // 2 - 1, LEVELS - 2]:
        predicted = p > values[n]
        hits = (predicted & (mask == 1)).sum()
        assert dice[n] == 2 * hits / (predicted.sum() + mask.sum())


def test_best_threshold_is_that_of_brute_force():
    rng = np.random.default_rng(1)
    mask = (rng.random(2000) < 0.3).astype(np.uint8)
    p = np.clip(0.15 + 0.2 * mask + rng.normal(0, 0.1, 2000), 0, 1).astype(np.float32)
    found = best_threshold(calibration_of(p[:, None], mask, 2).levels)
    tried = {}
    for value in np.arange(1, LEVELS) / LEVELS:
        hits = (mask[p > value] == 1).sum()
        tried[value] = 2 * hits / ((p > value).sum() + mask.sum())
    assert found.dice == max(tried.values())
    assert tried[found.value] == found.dice
    assert 0.2 < found.value < 0.35


def test_of_equal_thresholds_the_one_nearest_to_a_half_is_best():
    p = np.array([0.1, 0.9], np.float32)[:, None]
    assert best_threshold(calibration_of(p, np.array([0, 1], np.uint8), 2).levels) == (0.5, 1.0)


def test_without_foreground_the_best_prediction_has_none():
    found = best_threshold(calibration_of(np.full((4, 1), 0.7), np.zeros(4, np.uint8), 2).levels)
    assert found.dice == 1
    assert found.value >= 0.7

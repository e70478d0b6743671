"""Confidence intervals: groups are drawn as wholes, and intervals hold what they promise."""

import numpy as np
import pytest

from unet_jax.evaluation.bootstrap import by_group, interval, resampled
from unet_jax.evaluation.measured import measure
from unet_jax.evaluation.tally import Tally
from unet_jax.metrics import boundary_scores, scores


def make_tally(samples: int, classes: int, seed: int = 0) -> Tally:
    rng, tally = np.random.default_rng(seed), Tally(samples, classes)
    for n in range(samples):
        confusion = rng.integers(0, 50, (classes, classes))
        tally.pixels[n] = np.diag(confusion), confusion.sum(1), confusion.sum(0)
        tally.confusion += confusion
        found = rng.integers(1, 20, (classes, 2)).repeat(2, 1)
        tally.boundary[n] = found - [0, 1, 0, 1] * rng.integers(0, 2, (classes, 4))
    return tally


def test_sums_of_groups_by_hand():
    values = np.array([[1, 10], [2, 20], [4, 40], [8, 80]])
    np.testing.assert_array_equal(
        by_group(values, ["b", "a", "b", "c"]), [[2, 20], [5, 50], [8, 80]]
    )


def test_groups_are_drawn_as_wholes():
    """A group's three samples are 1, 10 and 100: each resample has as many of one as of another."""
    sums = by_group(np.tile(np.diag([1, 10, 100]), (6, 1)), np.repeat(list("uvwxyz"), 3).tolist())
    drawn = resampled(sums, 50, 0)
    assert drawn.shape == (50, 3)
    np.testing.assert_array_equal(drawn, np.full((50, 1), 6) * [1, 10, 100])


def test_groups_come_several_times_or_not_at_all():
    drawn = resampled(np.eye(6, dtype=int), 400, 0)
    assert (drawn.sum(1) == 6).all()
    # A group is absent with a probability of (5/6)⁶ = 0.335; of 2400, ± 5 deviations of 0.0096.
    assert abs((drawn == 0).mean() - (5 / 6) ** 6) < 0.048
    assert drawn.max() > 2


@pytest.mark.parametrize("classes", [2, 4])
def test_intervals_are_those_of_a_direct_loop(classes: int):
    """The loop draws groups, repeats their samples, and scores each resample by itself."""
    samples, names = 12, [str(n) for n in range(classes)]
    groups = [f"g{n % 5}" for n in range(samples)]
    tally = make_tally(samples, classes)
    measured = measure(tally, groups, 60, 3)

    rng, unique = np.random.default_rng(3), sorted(set(groups))
    found: dict[str, list[float]] = {"iou": [], "dice": [], "mean_class_accuracy": [], "f": []}
    for _ in range(60):
        chosen = [unique[n] for n in rng.integers(5, size=5)]
        members = [n for group in chosen for n in range(samples) if groups[n] == group]
        hits, true, predicted = tally.pixels[members].sum(0)
        either = true + predicted
        one = classes == 2
        dice, iou = 2 * hits / either, hits / (either - hits)
        found["dice"].append(dice[1] if one else dice.mean())
        found["iou"].append(iou[1] if one else iou.mean())
        found["mean_class_accuracy"].append((hits / true).mean())
        counts = tally.boundary[members].sum(0)
        found["f"].append(boundary_scores(counts, names)["boundary_f"])
    for name, values in found.items():
        estimate = measured.estimate("boundary_f" if name == "f" else name)
        low, high = np.percentile(values, [2.5, 97.5])
        np.testing.assert_allclose(estimate[1:], [low, high], rtol=1e-12)  # Order of summing.
        assert low < estimate.value < high
    assert measured.values["dice"] == scores(tally.confusion, names)["dice"]


def test_an_interval_holds_the_truth_as_often_as_it_says():
    """Groups are right for a share p of 100 pixels, p itself drawn about 0.8, as cars differ. Of
    400 intervals 95 % should hold 0.8; with 30 groups the percentile bootstrap is known to hold it
    a little less often. ± 4 deviations of 1.1 % below and above 94 %."""
    rng, held = np.random.default_rng(0), 0
    for seed in range(400):
        right = rng.binomial(100, rng.beta(8, 2, 30))
        drawn = resampled(np.stack([right, np.full(30, 100)], 1), 200, seed)
        low, high = interval(drawn[:, 0] / drawn[:, 1])
        held += low <= 0.8 <= high
    assert 0.896 < held / 400 < 0.984


def test_a_difference_is_paired():
    """The same weights differ by nothing, whatever is drawn; where all samples are better by the
    same count, the paired interval is far narrower than either network's."""
    one = make_tally(10, 3)
    groups = [str(n) for n in range(10)]
    first, again = measure(one, groups, 100, 0), measure(one, groups, 100, 0)
    assert again.minus(first).estimate("iou") == (0, 0, 0)
    better = make_tally(10, 3)
    better.pixels[:, 0] += 3
    apart = measure(better, groups, 100, 0).minus(first).estimate("accuracy")
    own = first.estimate("accuracy")
    assert apart.low > 0
    assert apart.high - apart.low < 0.3 * (own.high - own.low)


def test_a_class_that_resamples_lack_is_left_out_of_them():
    tally = make_tally(6, 3)
    tally.pixels[1:, :, 2] = 0  # Only the first sample has it.
    measured = measure(tally, list("abcdef"), 100, 0)
    hits, true, predicted = tally.pixels[0][:, 2]
    value = hits / (true + predicted - hits)
    np.testing.assert_allclose(measured.estimates("iou_per_class")[2], value, rtol=1e-12)
    tally.pixels[:, :, 2] = 0
    assert np.isnan(measure(tally, list("abcdef"), 100, 0).estimates("iou_per_class")[2]).all()


def test_without_draws_there_is_no_interval():
    estimate = measure(make_tally(3, 2), list("abc"), 0, 0).estimate("dice")
    assert 0 < estimate.value < 1
    assert np.isnan(estimate[1:]).all()

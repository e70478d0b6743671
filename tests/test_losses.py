"""Every loss: worked by hand, against PyTorch's own criteria, and the two frameworks together."""

import math
from collections.abc import Iterator
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import unet_jax.losses
import unet_torch_ref.losses
from parity.components.losses import (
    BATCH,
    LOSSES,
    STRICT,
    TERMS,
    WEIGHTS,
    Example,
    Result,
    compare_losses,
    example,
    in_jax,
    in_torch,
    only,
    to_torch,
    value_and_gradient,
)
from parity.row import first_divergence
from unet_jax.batch import IGNORED
from unet_jax.config import LossConfig
from unet_jax.losses import build_loss


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def compiled(function):
    """It runs a few times: optimising its code takes longer than running it as it is."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def test_examples_have_few_classes_and_many():
    few = unet_jax.losses.FEW
    assert {few, few + 1} <= {channels for channels, _ in LOSSES.values()}


BOTH = pytest.mark.parametrize("run", [in_jax, in_torch], ids=["jax", "torch"])


def distance(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Relative, in the Euclidean norm."""
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


# The two frameworks.


@pytest.mark.parametrize("name", LOSSES)
def test_values_and_gradients_agree(name):
    rows = compare_losses((name,))
    assert first_divergence(rows) is None
    assert {"value", "gradient by the logits", "sum of pixels"} <= {row.name for row in rows}


@pytest.mark.parametrize("channels", [1, 5])
def test_equal_errors_have_the_same_subgradient(channels):
    given = example(channels)
    given = given._replace(logits=np.zeros_like(given.logits))
    ours, theirs = (run(only("lovasz"), *given) for run in (in_jax, in_torch))
    assert ours.value == pytest.approx(theirs.value, rel=STRICT)
    assert distance(ours.gradient, theirs.gradient) <= STRICT


# PyTorch's own criteria, over the pixels that count.


def counted_pixels(given: Example) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Logits [N, K] that can be differentiated and targets [N] of the pixels that count."""
    counted = given.valid[:, None, None] & (given.mask != IGNORED)
    logits = torch.from_numpy(given.logits[counted]).requires_grad_()
    return logits, torch.from_numpy(given.mask[counted]), counted


def expect(result: Result, value: torch.Tensor, logits: torch.Tensor, counted: np.ndarray) -> None:
    value.backward()
    assert logits.grad is not None
    assert result.value == pytest.approx(value.item(), rel=STRICT)
    assert distance(result.gradient[counted], logits.grad.numpy()) <= STRICT
    assert not result.gradient[~counted].any()


@BOTH
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, WEIGHTS[5]], ids=["", "weighted"])
def test_cross_entropy_is_pytorchs(run, smoothing, weights):
    logits, target, counted = counted_pixels(given := example(5))
    criterion = torch.nn.CrossEntropyLoss(
        None if weights is None else torch.tensor(weights, dtype=torch.float64),
        label_smoothing=smoothing,
    )
    result = run({"label_smoothing": smoothing, "class_weights": weights}, *given)
    expect(result, criterion(logits, target.long()), logits, counted)


@BOTH
@pytest.mark.parametrize("pos_weight", [1.0, 3.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_binary_cross_entropy_is_pytorchs(run, pos_weight, smoothing):
    logits, target, counted = counted_pixels(given := example(1))
    criterion = torch.nn.BCEWithLogitsLoss(pos_weight=torch.tensor(pos_weight).double())
    result = run({"pos_weight": pos_weight, "label_smoothing": smoothing}, *given)
    smooth = target.double() * (1 - smoothing) + smoothing / 2
    expect(result, criterion(logits[:, 0], smooth), logits, counted)


@BOTH
def test_class_weights_of_one_logit_divide_as_they_multiply(run):
    logits, target, counted = counted_pixels(given := example(1))
    weight = torch.tensor(WEIGHTS[1]).double()[target.long()]
    criterion = torch.nn.BCEWithLogitsLoss(weight, reduction="sum")
    value = criterion(logits[:, 0], target.double()) / weight.sum()
    expect(run({"class_weights": WEIGHTS[1]}, *given), value, logits, counted)


@BOTH
@pytest.mark.parametrize("alpha", [None, 0.25])
@pytest.mark.parametrize("gamma", [0.0, 2.0, 3.5])
def test_focal_loss_is_torchvisions(run, gamma, alpha):
    logits, target, counted = counted_pixels(given := example(1))
    logit, truth = logits[:, 0], target.double()
    # torchvision.ops.sigmoid_focal_loss, whose alpha of -1 is None here.
    p = torch.sigmoid(logit)
    entropy = F.binary_cross_entropy_with_logits(logit, truth, reduction="none")
    p_of_target = p * truth + (1 - p) * (1 - truth)
    loss = entropy * ((1 - p_of_target) ** gamma)
    if alpha is not None:
        loss = (alpha * truth + (1 - alpha) * (1 - truth)) * loss
    result = run(only("focal", focal_gamma=gamma, focal_alpha=alpha), *given)
    expect(result, loss.mean(), logits, counted)


@BOTH
def test_focal_loss_without_an_exponent_is_cross_entropy(run):
    given = example(5)
    focal, entropy = (run(f, *given) for f in (only("focal", focal_gamma=0.0), {}))
    assert focal.value == pytest.approx(entropy.value, rel=STRICT)
    assert distance(focal.gradient, entropy.gradient) <= STRICT


@BOTH
@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"label_smoothing": 0.2}, id="smoothed"),
        pytest.param({"label_smoothing": 0.2, "class_weights": WEIGHTS[1]}, id="weighted"),
        pytest.param({"border_weight": 3.0, "class_weights": WEIGHTS[1]}, id="border"),
        pytest.param(only("focal", class_weights=WEIGHTS[1]), id="focal"),
    ],
)
def test_one_logit_is_two_of_which_the_first_is_0(run, fields):
    one = example(1)
    two = one._replace(logits=np.concatenate([np.zeros_like(one.logits), one.logits], -1))
    ours, theirs = run(fields, *one), run(fields, *two)
    assert ours.value == pytest.approx(theirs.value, rel=STRICT)
    assert distance(ours.gradient[..., 0], theirs.gradient[..., 1]) <= STRICT


@BOTH
def test_dice_of_a_batch_is_that_of_the_most_used_implementation(run):
    logits, target, counted = counted_pixels(given := example(1))
    p, truth = torch.sigmoid(logits[:, 0]), target.double()
    inter, sets = 2 * (p * truth).sum(), p.sum() + truth.sum()
    value = 1 - (inter + 1e-6) / (sets + 1e-6)
    expect(run(only("dice", **BATCH), *given), value, logits, counted)


# By hand. ln 3 is the logit of the probability 3/4.

LN3 = math.log(3)
RIGHT_AND_WRONG = np.array([[[[LN3], [-LN3], [-LN3]]], [[[-LN3], [LN3], [LN3]]]])
"""[2, 1, 3, 1]. p: 3/4, 1/4, 1/4; and 1/4, 3/4, 3/4."""
TRUTH = np.array([[[1, 0, 0]], [[1, 1, 0]]], np.uint8)
# Image 0: hits 3/4, false positives 1/4 + 1/4, false negatives 1/4; predicted 5/4, true 1.
# Image 1: hits 1/4 + 3/4 = 1, false positives 3/4, false negatives 3/4 + 1/4 = 1; 7/4 and 2.
VALID = np.ones(2, bool)


@BOTH
@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        # Image 0: (2·3/4 + 1) / (5/4 + 1 + 1) = 10/13; image 1: (2 + 1) / (7/4 + 2 + 1) = 12/19.
        pytest.param(
            only("dice", smooth=1.0), 1 - (10 / 13 + 12 / 19) / 2, id="dice-of-each-image"
        ),
        # Of both: hits 7/4, predicted 3, true 3: (7/2 + 1) / (6 + 1) = 9/14.
        pytest.param(only("dice", smooth=1.0, **BATCH), 5 / 14, id="dice-of-the-batch"),
        # (3/4 + 1/4) / (1 + 0.4·2/4 + 0.8·1/4) = 5/7; (1 + 1/4) / (5/4 + 0.4·3/4 + 0.8·1) = 25/47.
        pytest.param(
            only("tversky", smooth=0.5, tversky_alpha=0.4, tversky_beta=0.8),
            1 - (5 / 7 + 25 / 47) / 2,
            id="tversky-of-each-image",
        ),
        # (7/4 + 1/4) / (2 + 0.4·5/4 + 0.8·5/4) = 4/7.
        pytest.param(
            only("tversky", smooth=0.5, tversky_alpha=0.4, tversky_beta=0.8, **BATCH),
            3 / 7,
            id="tversky-of-the-batch",
        ),
        # p of the target: 3/4 four times (1/16 · ln 4/3) and 1/4 twice (9/16 · ln 4).
        pytest.param(
            only("focal"), (4 / 16 * math.log(4 / 3) + 18 / 16 * math.log(4)) / 6, id="focal"
        ),
        # Errors of the hinge loss 1 ∓ ln 3. Image 0: nothing is above 1 - ln 3 < 0.
        # Image 1: the false alarm and the missed one at 1 + ln 3, then none.
        # Together they take 1 - IoU from 0 to 1 - 1/3.
        pytest.param(only("lovasz"), (0 + (1 + LN3) * 2 / 3) / 2, id="lovasz"),
    ],
)
def test_one_logit_by_hand(run, fields, expected):
    assert run(fields, RIGHT_AND_WRONG, TRUTH, VALID).value == pytest.approx(expected, rel=STRICT)


@BOTH
@pytest.mark.parametrize(
    ("logit", "target", "expected"),
    [
        pytest.param(0.0, 0, math.log(2), id="undecided"),
        pytest.param(LN3, 1, math.log(4 / 3), id="right"),  # Probability 3/4.
        pytest.param(LN3, 0, math.log(4), id="wrong"),
        pytest.param(1000.0, 1, 0.0, id="surely-right"),
        pytest.param(-1000.0, 1, 1000.0, id="surely-wrong"),  # -log sigmoid(-1000), no overflow.
        pytest.param(1000.0, 0, 1000.0, id="surely-wrong-background"),
    ],
)
def test_binary_cross_entropy_by_hand(run, logit, target, expected):
    mask = np.full((1, 1, 1), target, np.uint8)
    found = run({}, np.full((1, 1, 1, 1), logit), mask, np.ones(1, bool))
    assert found.value == pytest.approx(expected, rel=STRICT, abs=STRICT)


@BOTH
@pytest.mark.parametrize("shift", [0.0, 1000.0], ids=["", "shifted"])
@pytest.mark.parametrize(("target", "expected"), [(0, math.log(2)), (1, math.log(4))])
def test_cross_entropy_by_hand(run, shift, target, expected):
    # Probabilities 1/2, 1/4, 1/4 whatever is added to all three logits; 1000 rounds them to 1e-13.
    logits = (np.log([2.0, 1.0, 1.0]) + shift).reshape(1, 1, 1, 3)
    found = run({}, logits, np.full((1, 1, 1), target, np.uint8), np.ones(1, bool))
    assert found.value == pytest.approx(expected, rel=STRICT)


@BOTH
def test_lovasz_hinge_by_hand(run):
    # Errors: the false alarm 1.5, missed 1.25, found 1 - 3 < 0. IoU after each is taken for wrong:
    # 2/3, 1/3, 0.
    logits = np.array([0.5, -0.25, 3.0]).reshape(1, 1, 3, 1)
    result = run(only("lovasz"), logits, np.array([[[0, 1, 1]]], np.uint8), VALID[:1])
    assert result.value == pytest.approx(1.5 / 3 + 1.25 / 3, rel=STRICT)
    np.testing.assert_allclose(result.gradient.ravel(), [1 / 3, -1 / 3, 0], rtol=STRICT)


@BOTH
def test_lovasz_hinge_without_foreground_is_the_worst_false_alarm(run):
    logits = np.array([0.5, -0.25, -3.0]).reshape(1, 1, 3, 1)
    result = run(only("lovasz"), logits, np.zeros((1, 1, 3), np.uint8), VALID[:1])
    assert result.value == pytest.approx(1.5, rel=STRICT)


@BOTH
def test_lovasz_softmax_by_hand(run):
    # Both pixels have 3/4, 1/4, 0, 0, 0. Class 0: a false alarm of 3/4 takes IoU to 1/2, the miss
    # of 1/4 to 0: 1/2. Class 1: the miss of 3/4 takes it to 0 at once: 3/4. The others are absent.
    logits = np.tile([LN3, 0, -1e4, -1e4, -1e4], (1, 1, 2, 1))
    result = run(only("lovasz"), logits, np.array([[[0, 1]]], np.uint8), VALID[:1])
    assert result.value == pytest.approx((1 / 2 + 3 / 4) / 2, rel=STRICT)


@BOTH
def test_several_classes_by_hand(run):
    # Both pixels have 3/4, 1/4, 0, 0, 0, and are of class 0 and 1; no other class is in either.
    logits = np.tile([LN3, 0, -1e4, -1e4, -1e4], (1, 1, 2, 1))
    mask = np.array([[[0, 1]]], np.uint8)
    dice = run(only("dice", smooth=1e-30), logits, mask, VALID[:1])
    # Class 0: 2·3/4 / (6/4 + 1) = 3/5; class 1: 2·1/4 / (2/4 + 1) = 1/3; the three others: 1.
    assert dice.value == pytest.approx(1 - (3 / 5 + 1 / 3 + 3) / 5, rel=STRICT)
    focal = run(only("focal", class_weights=(1.0, 3.0, 9.0, 9.0, 9.0)), logits, mask, VALID[:1])
    expected = (1 / 16 * math.log(4 / 3) + 3 * 9 / 16 * math.log(4)) / 2
    assert focal.value == pytest.approx(expected, rel=STRICT)


@BOTH
@pytest.mark.parametrize("channels", [1, 5])
@pytest.mark.parametrize("reduction", ["image", "batch"])
def test_a_class_in_neither_truth_nor_prediction_scores_1(run, channels, reduction):
    # Background everywhere, and surely so: the foreground, or classes 1 to 4, are nowhere.
    logits = np.full((2, 3, 4, channels), -1e4)
    if channels > 1:
        logits[..., 0] = 1e4
    mask = np.zeros((2, 3, 4), np.uint8)
    for term in ("dice", "tversky"):
        assert run(only(term, reduction=reduction), logits, mask, VALID).value == 0
    # One pixel of 12 is predicted wrongly: now the class is in the prediction, and scores 0.
    logits[1, 0, 0] = np.roll(logits[1, 0, 0], 1) if channels > 1 else 1e4
    value = run(only("dice", smooth=1e-30, reduction=reduction), logits, mask, VALID).value
    # Of 5 classes, the background's Dice is 22/23 in that image, 46/47 in both together.
    if channels > 1:
        expected = {"image": (1 / 23 + 1) / 5 / 2, "batch": (1 / 47 + 1) / 5}
    else:
        expected = {"image": 1 / 2, "batch": 1.0}
    assert value == pytest.approx(expected[reduction], rel=STRICT)


@BOTH
def test_lovasz_of_sure_predictions_is_one_less_iou(run):
    rng = np.random.default_rng(0)
    mask, predicted = rng.integers(0, 5, (2, 1, 5, 7), np.uint8)
    logits = np.where(predicted[..., None] == np.arange(5), 1e4, -1e4)
    ious = [
        ((mask == c) & (predicted == c)).sum() / ((mask == c) | (predicted == c)).sum()
        for c in range(5)
    ]
    value = run(only("lovasz"), logits, mask, VALID[:1]).value
    assert value == pytest.approx(1 - np.mean(ious), rel=STRICT)


@BOTH
@pytest.mark.parametrize("channels", [1, 5])
def test_the_border_map_adds_to_the_weights_that_are_not_divided_by(run, channels):
    logits, target, counted = counted_pixels(given := example(channels))
    border = torch.from_numpy(given.border[counted]).double() / 255
    weights = torch.tensor(WEIGHTS[channels]).double()[target.long()]
    if channels == 1:
        losses = F.binary_cross_entropy_with_logits(logits[:, 0], target.double(), reduction="none")
    else:
        losses = F.cross_entropy(logits, target.long(), reduction="none")
    value = ((weights + 10 * border) * losses).sum() / weights.sum()
    fields = {"border_weight": 10.0, "class_weights": WEIGHTS[channels]}
    expect(run(fields, *given), value, logits, counted)


@BOTH
def test_a_border_weight_without_a_map_is_refused(run):
    given = example(1)
    with pytest.raises(ValueError, match=r"^border_weight: 10\.0 needs a border map"):
        run({"border_weight": 10.0}, *given[:3])
    assert run({}, *given).value == run({}, *given[:3]).value


# Pixels and images that do not count.

ALL: dict[str, Any] = dict.fromkeys(TERMS, 1.0)
TERMWISE = [only(term) for term in TERMS] + [only("dice", **BATCH), only("tversky", **BATCH)]
NAMES = [*TERMS, "dice-batch", "tversky-batch"]
EACH = pytest.mark.parametrize("fields", TERMWISE, ids=NAMES)


@BOTH
@EACH
@pytest.mark.parametrize("channels", [1, 5])
def test_what_does_not_count_has_no_say(run, fields, channels):
    given = example(channels)
    result = run(fields, *given)
    counted = given.valid[:, None, None] & (given.mask != IGNORED)
    assert not result.gradient[~counted].any()
    # Whatever is predicted there, even if it has overflown; whatever a padded image's mask says.
    for other in (np.inf, -np.inf, np.nan, 1e4):
        logits = np.where(counted[..., None], given.logits, other)
        mask = np.where(given.valid[:, None, None], given.mask, 1).astype(np.uint8)
        again = run(fields, logits, mask, given.valid)
        assert again.value == result.value
        assert np.array_equal(again.gradient, result.gradient)


@pytest.mark.parametrize("channels", [1, 5])
def test_an_ignored_pixel_is_as_good_as_absent(channels):
    logits, mask, *_ = (array[:2] for array in example(channels))
    # The same number ignored in both images, so that without them they are a rectangle again.
    mask = np.where(mask == IGNORED, 1, mask).reshape(2, -1)
    mask[0, 3:15], mask[1, ::3] = IGNORED, IGNORED
    kept, mask = (mask != IGNORED).reshape(2, 5, 7), mask.reshape(2, 5, 7)
    without = logits[kept].reshape(2, 1, 23, channels), mask[kept].reshape(2, 1, 23), VALID
    run = compiled(partial(value_and_gradient, ALL))
    (_, sums), gradient = run(logits, mask, VALID)
    (_, expected), slopes = run(*without)
    for name, entry in expected.items():
        assert distance(np.asarray(sums[name]), np.asarray(entry)) <= STRICT
    assert distance(np.asarray(gradient)[kept], np.asarray(slopes).reshape(-1, channels)) <= STRICT


@BOTH
@EACH
@pytest.mark.parametrize("channels", [1, 5])
@pytest.mark.parametrize("why", ["ignored", "padding"])
def test_where_nothing_counts_the_loss_is_0(run, fields, channels, why):
    logits, mask, valid, _ = example(channels)
    if why == "ignored":
        mask = np.full_like(mask, IGNORED)
    else:
        valid = np.zeros_like(valid)
    result = run({**fields, "class_weights": WEIGHTS[channels]}, 1e4 * logits, mask, valid)
    assert result.value == 0
    assert not result.gradient.any()
    assert all(not entry.any() for entry in result.sums.values())


@BOTH
def test_where_every_class_has_weight_0_the_loss_is_0(run):
    logits, mask, valid, border = example(5)
    fields = {"class_weights": (0.0, 0.0, 0.0, 0.0, 1.0), "label_smoothing": 0.1}
    result = run({**fields, "border_weight": 1.0}, logits, np.minimum(mask, 3), valid, border)
    assert result.value == 0
    assert not result.gradient.any()


@BOTH
@pytest.mark.parametrize("channels", [1, 5])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_focal_gradients_are_finite_where_p_is_0_or_1(run, channels, gamma):
    size = [0.0, 30.0, 40.0, 1e4]  # e^-40 vanishes beside 1.
    signed = np.array([[s, -s] for s in size]).reshape(1, 2, 4)
    logits = np.zeros((1, 2, 4, channels))
    logits[..., -1] = signed
    for target in (0, 1):
        mask = np.full((1, 2, 4), target, np.uint8)
        result = run(only("focal", focal_gamma=gamma), logits, mask, VALID[:1])
        assert np.isfinite(result.value)
        assert np.isfinite(result.gradient).all()
    # A pixel that is surely wrong has the slope of cross-entropy: 1, of 8 pixels.
    result = run(only("focal", focal_gamma=gamma), np.full((1, 2, 4, 1), -1e4), mask, VALID[:1])
    np.testing.assert_allclose(result.gradient, -1 / 8, rtol=STRICT)


EVERYTHING = {**ALL, "border_weight": 10.0, "label_smoothing": 0.1}
RUN = compiled(partial(value_and_gradient, EVERYTHING))
SMALL = (3, 2, 3)


@st.composite
def examples(draw: st.DrawFn) -> Example:
    channels = draw(st.sampled_from([1, 3]))
    values = st.sampled_from([0.0, 0.5, -3.0, 40.0, -800.0, 1e4, -1e4])
    logits = draw(arrays.arrays(np.float64, (*SMALL, channels), elements=values))
    classes = st.sampled_from([*range(max(channels, 2)), IGNORED])
    mask = draw(arrays.arrays(np.uint8, SMALL, elements=classes))
    valid = draw(arrays.arrays(bool, SMALL[:1]))
    return Example(logits, mask, valid, draw(arrays.arrays(np.uint8, SMALL)))


@settings(max_examples=100, deadline=None)
@given(examples())
def test_a_loss_is_never_negative_nor_infinite(given):
    (value, _), gradient = RUN(*given)
    assert 0 <= float(value) < np.inf
    assert np.isfinite(gradient).all()
    theirs = in_torch(EVERYTHING, *given)
    assert theirs.value == pytest.approx(float(value), rel=STRICT)
    assert np.isfinite(theirs.gradient).all()


# Sums that add up.


PARTS = [slice(0, 2), slice(2, 4), slice(4, 6)]


def before_any_logit(loss: Any, sums: dict[str, Any], normalisers: dict[str, Any], any_number: Any):
    """What a step that sees a batch in parts knows of its sums before it has seen the parts."""
    assert normalisers.items() <= sums.items()
    if loss.reduction == "batch" and (loss.dice or loss.tversky):  # Not linear in its sums.
        return sums
    return {name: normalisers.get(name, any_number) for name in sums}


@lru_cache
def part_of_gradient(channels: int, reduction: str):
    fields = {**ALL, "class_weights": WEIGHTS[channels], "border_weight": 10.0}
    sums = unet_jax.losses.Loss(**{**fields, "reduction": reduction}).sums

    def pull(cotangents, logits, mask, valid, border):
        entries, back = jax.vjp(lambda logits: sums(logits, mask, valid, border), logits)
        return entries, back({name: cotangents[name] for name in entries})[0]

    return compiled(pull)


@EACH
@pytest.mark.parametrize("channels", [1, 5])
def test_parts_of_a_batch_add_up_to_its_gradient(fields, channels):
    given = example(channels)
    fields = {**fields, "class_weights": WEIGHTS[channels]}
    fields |= {"border_weight": 10.0} if fields["cross_entropy"] else {}
    loss, whole = unet_jax.losses.Loss(**fields), in_jax(fields, *given)
    mask, valid = jnp.asarray(given.mask), jnp.asarray(given.valid)
    sums = {name: jnp.asarray(entry) for name, entry in whole.sums.items()}
    normalisers = loss.normalisers(mask, valid, jnp.float64)
    known = before_any_logit(loss, sums, normalisers, jnp.asarray(-7.0))
    # Of all terms, compiled once; those that this loss does not have are not to be followed.
    counts = ("true_positives", "false_positives", "false_negatives")
    cotangents = {name: jnp.zeros(()) for name in TERMS}
    cotangents |= {name: jnp.zeros(max(1, channels)) for name in counts}
    cotangents |= jax.grad(loss.total)(known)
    pull = part_of_gradient(channels, loss.reduction)
    parts = [pull(cotangents, *(array[part] for array in given)) for part in PARTS]
    gradient = np.concatenate([np.asarray(gradient) for _, gradient in parts])
    assert distance(gradient, whole.gradient) <= STRICT
    for name, entry in whole.sums.items():
        assert distance(np.asarray(sum(entries[name] for entries, _ in parts)), entry) <= STRICT


@EACH
@pytest.mark.parametrize("channels", [1, 5])
def test_parts_of_a_batch_add_up_to_its_gradient_in_torch(fields, channels):
    given = example(channels)
    fields = {**fields, "class_weights": WEIGHTS[channels]}
    fields |= {"border_weight": 10.0} if fields["cross_entropy"] else {}
    loss, whole = unet_torch_ref.losses.Loss(**fields), in_torch(fields, *given)
    _, mask, valid, border = (torch.from_numpy(array) for array in given)
    sums = {name: torch.from_numpy(np.array(entry)) for name, entry in whole.sums.items()}
    normalisers = loss.normalisers(mask, valid, torch.float64)
    known = before_any_logit(loss, sums, normalisers, torch.tensor(-7.0).double())
    numerators = [name for name in known if name not in normalisers]
    leaves = [known[name].requires_grad_() for name in numerators]
    cotangents = torch.autograd.grad(loss.total(known), leaves)
    gradients = []
    for part in PARTS:
        leaf = to_torch(given.logits[part]).requires_grad_()
        entries = loss.sums(leaf, mask[part], valid[part], border[part])
        torch.autograd.backward([entries[name] for name in numerators], cotangents)
        assert leaf.grad is not None
        gradients.append(np.moveaxis(leaf.grad.numpy(), 1, -1))
    assert distance(np.concatenate(gradients), whole.gradient) <= STRICT


@BOTH
def test_only_what_is_asked_for_is_computed(run):
    given = example(5)
    normalisers = {"pixels", "images", "weights"}
    for term in TERMS:
        assert run(only(term), *given).sums.keys() == normalisers | {term}
    counts = {"true_positives", "false_positives", "false_negatives"}
    assert run(only("dice", **BATCH), *given).sums.keys() == normalisers | counts
    counted = given.valid[:, None, None] & (given.mask != IGNORED)
    sums = run({"class_weights": WEIGHTS[5]}, *given).sums
    assert sums["pixels"] == counted.sum()
    assert sums["images"] == 4  # Of six, one is padding, and of one every pixel is ignored.
    expected = np.asarray(WEIGHTS[5])[given.mask[counted]].sum()
    assert sums["weights"] == pytest.approx(expected, rel=STRICT)


# Precision.


def test_float32_sums_keep_their_last_bits():
    rng = np.random.default_rng(0)
    shape = (2, 512, 512)
    logits, mask = rng.normal(size=(*shape, 1)), rng.integers(0, 2, shape, np.uint8)
    loss = unet_jax.losses.Loss(**{**ALL, "lovasz": 0.0, **BATCH})
    sums: Any = jax.jit(loss.sums)
    rough, exact = (sums(logits.astype(dtype), mask, VALID) for dtype in (np.float32, np.float64))
    for name, entry in rough.items():
        assert entry.dtype == jnp.float32
        assert distance(np.asarray(entry), np.asarray(exact[name])) < 2e-6


def test_float32_slopes_of_lovasz_keep_their_digits():
    # Differences of two IoU, one in a quarter of a million, would have three digits at most.
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(1, 512, 512, 1)).astype(np.float32)
    mask = rng.integers(0, 2, (1, 512, 512), np.uint8)
    loss: Any = unet_jax.losses.Loss(**only("lovasz"))
    gradient = jax.jit(jax.grad(lambda x: loss.total(loss.sums(x, mask, VALID[:1]))))
    rough, exact = gradient(logits), gradient(logits.astype(np.float64))
    # Not closer, since errors that differ by less than a rounding change places.
    assert distance(np.asarray(rough), np.asarray(exact)) < 1e-4


def test_half_precision_is_computed_in_float32():
    logits, mask, valid, _ = example(5)
    half = jnp.asarray(logits, jnp.bfloat16)
    fields = only("dice", cross_entropy=1.0)
    sums = compiled(unet_jax.losses.Loss(**fields).sums)
    ours, same = sums(half, mask, valid), sums(half.astype(jnp.float32), mask, valid)
    assert {entry.dtype for entry in ours.values()} == {np.dtype(np.float32)}
    assert ours == same
    theirs = unet_torch_ref.losses.Loss(**fields)
    tensors = torch.from_numpy(mask), torch.from_numpy(valid)
    entries = theirs.sums(to_torch(logits).bfloat16(), *tensors)
    assert {entry.dtype for entry in entries.values()} == {torch.float32}


@pytest.mark.parametrize("channels", [1, 5, 6, 7])
def test_a_class_that_the_logits_lack_is_not_passed_over(channels):
    given = example(channels)
    given.mask[0, 0, 0] = max(channels, 2)
    assert np.isnan(in_jax({}, *given).value)
    with pytest.raises((IndexError, RuntimeError)):
        in_torch({}, *given)


# From settings.


def test_every_setting_of_the_loss_arrives():
    config = LossConfig(
        cross_entropy=0.1,
        dice=0.2,
        tversky=0.3,
        focal=0.4,
        lovasz=0.5,
        pos_weight=2.0,
        class_weights="median",
        label_smoothing=0.6,
        reduction="batch",
        smooth=0.7,
        tversky_alpha=0.8,
        tversky_beta=0.9,
        focal_gamma=1.1,
        focal_alpha=0.15,
        border_weight=1.2,
        border_sigma=1.3,
    )
    loss = build_loss(config, (3.0, 4.0))
    assert vars(loss) == {
        **{k: v for k, v in vars(config).items() if k in vars(loss)},
        "class_weights": (3.0, 4.0),
    }
    assert vars(unet_torch_ref.losses.Loss(**config.arguments((3.0, 4.0)))) == vars(loss)
    default = build_loss(LossConfig(), None)
    assert default == unet_jax.losses.Loss()
    assert vars(default) == vars(unet_torch_ref.losses.Loss())

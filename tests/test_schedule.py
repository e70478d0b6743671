"""Learning rates: known points, and PyTorch's own schedulers beside ours at every step."""

import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, ReduceLROnPlateau, StepLR

from parity.components.schedules import (
    EPOCH,
    PEAK,
    SCHEDULES,
    STRICT,
    TOTAL,
    WARMUPS,
    Witness,
    compare_schedules,
    jax_rates,
    settings,
    torch_rates,
)
from parity.row import first_divergence
from unet_jax.schedule import Plateau, learning_rate

ROUNDING = 1e-14
"""Of the peak, in float64: a dozen operations of 1e-16 each. (1 + cos cancels near the end.)"""


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


# Known points, of 100 steps.


@pytest.mark.parametrize(
    ("options", "step", "share"),
    [
        pytest.param({"warmup": 0.1}, 0, 1 / 10, id="first"),
        pytest.param({"warmup": 0.1}, 4, 5 / 10, id="half-way-up"),
        pytest.param({"warmup": 0.1}, 9, 1, id="end-of-warm-up"),
        pytest.param({"warmup": 0.1}, 10, 1, id="start-of-decay"),
        pytest.param({"warmup": 0.1}, 40, 3 / 4, id="a-third-down"),  # (1 + cos 60°) / 2
        pytest.param({"warmup": 0.1}, 55, 1 / 2, id="middle-of-decay"),
        pytest.param({"warmup": 0.1}, 70, 1 / 4, id="two-thirds-down"),
        pytest.param(  # (1 + cos 178°) / 2
            {"warmup": 0.1}, 99, math.sin(math.pi / 180) ** 2, id="last"
        ),
        pytest.param({"warmup": 0.1}, 100, 0, id="past-the-last"),
        pytest.param({}, 0, 1, id="no-warm-up-first"),
        pytest.param({}, 50, 1 / 2, id="no-warm-up-middle"),
        pytest.param({}, 99, math.sin(math.pi / 200) ** 2, id="no-warm-up-last"),
        pytest.param({"warmup": 1.0}, 0, 1 / 100, id="all-warm-up-first"),
        pytest.param({"warmup": 1.0}, 49, 1 / 2, id="all-warm-up-middle"),
        pytest.param({"warmup": 1.0}, 99, 1, id="all-warm-up-last"),
        pytest.param({"warmup_steps": 20}, 4, 5 / 20, id="counted-warm-up"),
        pytest.param({"warmup_steps": 20}, 60, 1 / 2, id="counted-warm-up-middle-of-decay"),
        pytest.param({"min_rate": 0.2}, 50, 0.6, id="cosine-to-a-fifth"),
        pytest.param({"schedule": "constant", "warmup": 0.1}, 99, 1, id="constant"),
        pytest.param({"schedule": "plateau", "warmup": 0.1}, 99, 1, id="plateau"),
        # Epochs of 6 steps: after 2 of them, so at 12 and 24.
        pytest.param({"schedule": "step", "step_epochs": 2}, 11, 1, id="before-a-drop"),
        pytest.param({"schedule": "step", "step_epochs": 2}, 12, 0.1, id="after-a-drop"),
        pytest.param({"schedule": "step", "step_epochs": 2}, 24, 0.01, id="after-two-drops"),
        pytest.param({"schedule": "polynomial", "poly_power": 2}, 50, 1 / 4, id="polynomial"),
        pytest.param({"schedule": "polynomial"}, 100, 0, id="polynomial-end"),
        # Cycles of 6, 12 and 24 steps: their middles are at 3, 12 and 30.
        pytest.param({"schedule": "restarts", "restart_epochs": 1}, 3, 1 / 2, id="first-cycle"),
        pytest.param({"schedule": "restarts", "restart_epochs": 1}, 6, 1, id="a-restart"),
        pytest.param(
            {"schedule": "restarts", "restart_epochs": 1, "restart_factor": 2},
            12,
            1 / 2,
            id="second-cycle",
        ),
        pytest.param(
            {"schedule": "restarts", "restart_epochs": 1, "restart_factor": 2},
            30,
            1 / 2,
            id="third-cycle",
        ),
        # 1 / 25 up to 1 at 100 × 0.31 - 1 = 30, half-way at 15; down to 1 / 250000 at 99.
        pytest.param({"schedule": "one_cycle", "warmup": 0.31}, 0, 1 / 25, id="cycle-first"),
        pytest.param({"schedule": "one_cycle", "warmup": 0.31}, 15, 26 / 50, id="cycle-rise"),
        pytest.param({"schedule": "one_cycle", "warmup": 0.31}, 30, 1, id="cycle-peak"),
        pytest.param(
            {"schedule": "one_cycle", "warmup": 0.31}, 53, 3 / 4 + 1 / 1e6, id="cycle-a-third-down"
        ),
        pytest.param({"schedule": "one_cycle", "warmup": 0.31}, 99, 1 / 250000, id="cycle-last"),
    ],
)
def test_known_points(options, step, share):
    config = settings(**options)
    for rates in (jax_rates(config, step + 1, total=100), torch_rates(config, step + 1, total=100)):
        assert rates[step] == pytest.approx(PEAK * share, rel=0, abs=PEAK * ROUNDING)


# PyTorch's, at every step.

OPTIONS = pytest.mark.parametrize("options", SCHEDULES.values(), ids=SCHEDULES.keys())


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_rate_is_pytorchs(name):
    assert first_divergence(compare_schedules((name,))) is None


@pytest.mark.parametrize("warmup", WARMUPS.values(), ids=WARMUPS.keys())
@OPTIONS
def test_every_rate_is_above_0_and_at_most_the_peak(options, warmup):
    rates = jax_rates(settings(**options, **warmup), TOTAL)
    assert rates.min() > 0
    assert rates.max() <= PEAK


@pytest.mark.parametrize("total", [1, 2, 3, 10])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("schedule", ["cosine", "polynomial", "one_cycle"])
def test_a_run_of_few_steps_has_pytorchs_rates(schedule, warmup, total):
    config = settings(schedule=schedule, warmup=warmup)
    # The scheduler steps after the last one, too, and must not fail there.
    ours, theirs = jax_rates(config, total + 1, total), torch_rates(config, total + 1, total)
    np.testing.assert_allclose(ours[:-1], theirs[:-1], rtol=0, atol=PEAK * STRICT)
    assert np.isfinite(ours).all()
    assert ours[:-1].min() > 0


def test_epochs_are_epochs_of_a_scheduler_that_counts_them():
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(()))], PEAK)
    scheduler, theirs = StepLR(optimizer, step_size=3, gamma=0.5), []
    for _ in range(TOTAL // EPOCH):
        for _ in range(EPOCH):
            optimizer.step()
            theirs.append(optimizer.param_groups[0]["lr"])
        scheduler.step()
    ours = jax_rates(settings(schedule="step", step_epochs=3, step_factor=0.5), TOTAL)
    np.testing.assert_allclose(ours, theirs, rtol=ROUNDING)


@pytest.mark.parametrize("factor", [1, 2])
def test_restarts_are_those_of_a_scheduler_that_is_told_fractions_of_epochs(factor):
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(()))], PEAK)
    scheduler = CosineAnnealingWarmRestarts(optimizer, T_0=2, T_mult=factor)
    theirs = []
    for step in range(TOTAL):
        place: Any = step // EPOCH + step % EPOCH / EPOCH  # A fraction, as its documentation does.
        scheduler.step(place)
        theirs.append(optimizer.param_groups[0]["lr"])
    config = settings(schedule="restarts", restart_epochs=2, restart_factor=factor)
    np.testing.assert_allclose(jax_rates(config, TOTAL), theirs, rtol=0, atol=PEAK * STRICT)


def test_restarts_of_doubling_cycles_are_exact_far_on():
    # The cycles of 6, 12, 24, … steps start at 6 × (2ⁿ - 1); logarithms would miss some by one.
    config = settings(schedule="restarts", restart_epochs=1, restart_factor=2)
    starts = np.array([6 * (2**n - 1) for n in range(1, 28)], np.int32)
    for step in (starts, starts - 1):
        rates = learning_rate(step, config, total_steps=TOTAL, steps_per_epoch=EPOCH)
        at_the_peak = np.asarray(rates) > PEAK / 2
        assert at_the_peak.all() if step is starts else not at_the_peak.any()


@OPTIONS
def test_a_rate_can_be_traced(options):
    config = settings(**options, warmup_steps=20)
    traced = jax.jit(
        lambda step: learning_rate(step, config, total_steps=TOTAL, steps_per_epoch=EPOCH)
    )
    expected = jax_rates(config, TOTAL)
    for step in (0, 19, 20, 100):
        rate = traced(jnp.asarray(step, jnp.int32))
        assert rate.shape == ()
        assert float(rate) == pytest.approx(expected[step], rel=0, abs=PEAK * ROUNDING)


@OPTIONS
def test_a_rate_is_float32_without_x64(options):
    config = settings(**options, warmup_steps=20)
    expected = jax_rates(config, TOTAL)
    with jax.enable_x64(False):
        steps = jnp.arange(TOTAL)
        rates = learning_rate(steps, config, total_steps=TOTAL, steps_per_epoch=EPOCH)
        assert rates.dtype == np.float32
        # 1e-7 an operation, of numbers up to the peak.
        np.testing.assert_allclose(rates, expected, rtol=0, atol=PEAK * 1e-6)


@pytest.mark.parametrize("stop", [5, 23, 60])
@OPTIONS
def test_pytorchs_schedule_goes_on_from_what_was_saved(options, stop, tmp_path):
    config = settings(**options, warmup_steps=23)
    first, second = Witness(config), Witness(config)
    for _ in range(stop):
        first.step()
    path = tmp_path / "state.pt"
    torch.save([first.optimizer.state_dict(), first.schedule.steps.state_dict()], path)
    optimizer, schedule = torch.load(path, weights_only=True)
    second.optimizer.load_state_dict(optimizer)
    second.schedule.steps.load_state_dict(schedule)
    for _ in range(stop, TOTAL):
        assert second.rate == first.rate
        first.step()
        second.step()


# Plateau.

NAN = math.nan
DICE = {
    "rising": [0.1 * n for n in range(10)],
    "ties": [0.5] * 12,
    # The second is 0.00008 of the best better, which is not enough; the third is, by 0.00018.
    "small-steps": [0.5, 0.50004, 0.50009, 0.50013, 0.50014, 0.5, 0.5, 0.50014],
    "a-late-rise": [0.5, 0.4, 0.4, 0.6, 0.4, 0.4, 0.4, 0.7, 0.1, 0.1],
    "not-a-number": [0.5, NAN, NAN, 0.6, NAN, NAN, NAN, NAN, 0.1, NAN, NAN],
    "not-a-number-first": [NAN, NAN, NAN, NAN, 0.1, 0.0, 0.2],
    "from-nothing": [0.0, 0.0, 0.0, 0.0, 1e-9, 0.0, 0.0, 0.0],
    "to-nothing": [0.5] * 40,
}


@pytest.mark.parametrize("patience", [0, 2])
@pytest.mark.parametrize("dice", DICE.values(), ids=DICE.keys())
def test_a_plateau_is_pytorchs(dice, patience):
    config = settings(schedule="plateau", plateau_patience=patience, plateau_factor=0.3)
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(()))], PEAK)
    witness = ReduceLROnPlateau(optimizer, mode="max", factor=0.3, patience=patience)
    update = jax.jit(lambda plateau, metric: plateau.update(metric, config))
    plateau = Plateau.start()
    for metric in dice:
        witness.step(metric)
        plateau = update(plateau, metric)
        rate = float(PEAK * plateau.factor)
        # At most 15 products: the rate stops falling above 1e-8.
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"], rel=ROUNDING)
        assert (float(plateau.best), int(plateau.bad_epochs)) == (
            witness.best,
            witness.num_bad_epochs,
        )
    assert (plateau.factor == 1) == (dice == DICE["rising"])
    kinds = [(x.shape, x.dtype, x.weak_type) for x in plateau]
    assert kinds == [(x.shape, x.dtype, x.weak_type) for x in Plateau.start()]


def test_what_is_not_a_number_is_not_better():
    config = settings(schedule="plateau", plateau_patience=1)
    plateau = Plateau.start().update(0.5, config).update(NAN, config)
    assert (float(plateau.best), int(plateau.bad_epochs), float(plateau.factor)) == (0.5, 1, 1)
    plateau = plateau.update(NAN, config)
    assert (float(plateau.best), int(plateau.bad_epochs), float(plateau.factor)) == (0.5, 0, 0.1)


@pytest.mark.parametrize(
    "threshold", [pytest.param(0.0, id="any-rise"), pytest.param(0.2, id="by-a-fifth")]
)
def test_the_threshold_is_a_share_of_the_best(threshold):
    config = settings(schedule="plateau", plateau_patience=0, plateau_threshold=threshold)
    plateau = Plateau.start().update(0.5, config).update(0.55, config)
    assert (plateau.factor < 1) == (threshold == 0.2)
    assert float(plateau.best) == (0.5 if threshold else 0.55)


def test_a_plateau_and_a_warm_up_are_those_of_pytorch():
    # Reduced half-way up and later: the rise goes on, from where it was put.
    config = settings(schedule="plateau", warmup_steps=40, plateau_patience=0, plateau_factor=0.5)
    witness, plateau = Witness(config), Plateau.start()
    assert witness.schedule.plateau is not None
    rates, ours, theirs = jax_rates(config, TOTAL), [], []
    for step in range(TOTAL):
        ours.append(rates[step] * float(plateau.factor))
        theirs.append(witness.rate)
        witness.step()
        if step in (9, 19, 29, 99, 109, 139):
            dice = 0.6 if step == 109 else 0.5
            plateau = plateau.update(dice, config)
            witness.schedule.plateau.step(dice)
    np.testing.assert_allclose(ours, theirs, rtol=STRICT)
    assert plateau.factor == 0.5**4  # Not at 9 and 109, which were the best.


def test_other_schedules_have_no_plateau():
    assert Witness(settings()).schedule.plateau is None

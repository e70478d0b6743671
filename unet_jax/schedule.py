"""The learning rate of every step, with the values of PyTorch's schedulers."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from unet_jax.config import OptimConfig


def learning_rate(
    step: ArrayLike, config: OptimConfig, *, total_steps: int, steps_per_epoch: int
) -> jax.Array:
    """The learning rate of step 0, 1, …: a warm-up in a straight line, then the schedule.

    Args:
      step: int, of any shape; steps taken before.
      config: The schedule and its settings. `plateau` is constant here: `Plateau` has its factor.
      total_steps: Steps of the whole run.
      steps_per_epoch: Of the optimiser.

    Returns:
      float, of the step's shape.

    References:
      Goyal et al., 2017 (warm-up). https://arxiv.org/abs/1706.02677
      Loshchilov and Hutter, 2017 (cosine, restarts). https://arxiv.org/abs/1608.03983
      Chen et al., 2017 (polynomial). https://arxiv.org/abs/1606.00915
      Smith and Topin, 2018 (one cycle). https://arxiv.org/abs/1708.07120
    """
    rising = config.warmup_steps or config.warmup * total_steps
    if config.schedule == "one_cycle":
        return config.learning_rate * _one_cycle(step, config, rising, total_steps)
    rising = round(rising)
    step = jnp.asarray(step)
    passed, falling = step - rising, max(total_steps - rising, 1)
    match config.schedule:
        case "constant" | "plateau":
            share = jnp.ones_like(step, float)
        case "cosine":
            share = _half_cosine(passed, falling, config.min_rate)
        case "step":
            drops = passed // (config.step_epochs * steps_per_epoch)
            share = config.step_factor ** jnp.asarray(drops, float)
        case "polynomial":
            share = (1 - _divide(jnp.minimum(passed, falling), falling)) ** config.poly_power
        case "restarts":
            first = config.restart_epochs * steps_per_epoch
            share = _half_cosine(*_cycle(passed, first, config.restart_factor), config.min_rate)
    return config.learning_rate * jnp.where(passed < 0, _divide(step + 1, max(rising, 1)), share)


class Plateau(NamedTuple):
    """`torch.optim.lr_scheduler.ReduceLROnPlateau` of a metric that should rise.

    NaN counts as not better. What PyTorch holds to be too small a change (1e-8) it takes from the
    rate reached so far, and this from the peak: during a warm-up they may differ in that.

    Attributes:
      factor: float [], what `learning_rate` is multiplied by.
      best: float [], the best metric so far.
      bad_epochs: int32 [], validations since, or since the last reduction.
    """

    factor: jax.Array
    best: jax.Array
    bad_epochs: jax.Array

    @classmethod
    def start(cls) -> "Plateau":
        """Before the first validation."""
        return cls(jnp.ones(()), jnp.full((), -jnp.inf, float), jnp.zeros((), jnp.int32))

    def update(self, metric: ArrayLike, config: OptimConfig) -> "Plateau":
        """After a validation that gave `metric`; can be jitted."""
        metric = jnp.asarray(metric, self.best.dtype)
        better = metric > self.best * (config.plateau_threshold + 1.0)
        bad_epochs = jnp.where(better, 0, self.bad_epochs + 1)
        full = bad_epochs > config.plateau_patience
        reduced = self.factor * config.plateau_factor
        # PyTorch's eps: a rate that falls by less stays where it is.
        enough = config.learning_rate * (self.factor - reduced) > 1e-8
        return Plateau(
            factor=jnp.where(full & enough, reduced, self.factor),
            best=jnp.where(better, metric, self.best),
            bad_epochs=jnp.where(full, 0, bad_epochs),
        )


def _divide(a: jax.Array, b: ArrayLike) -> jax.Array:
    """a / b in the default precision: of int32, JAX's own is float32, in x64 all the same."""
    return jnp.asarray(a, float) / jnp.asarray(b, float)


def _half_cosine(passed: jax.Array, length: ArrayLike, end: float) -> jax.Array:
    """From 1 down to `end`."""
    return end + (1 - end) * 0.5 * (1 + jnp.cos(jnp.pi * _divide(passed, length)))


def _cycle(passed: jax.Array, first: int, factor: int) -> tuple[jax.Array, ArrayLike]:
    """Steps since the last restart, and from it to the next.

    Args:
      passed: int, steps since the warm-up.
      first: Steps of the first cycle.
      factor: How many times as long as the last each further one is.
    """
    if factor == 1:
        return passed % first, first
    starts = [0]
    while starts[-1] < 2**30:  # Sums of a growing series: a handful, exact where logarithms round.
        starts.append(first + factor * starts[-1])
    starts = np.minimum(starts, 2**31 - 1).astype(np.int32)
    n = jnp.searchsorted(starts[1:], passed, side="right")
    start = jnp.asarray(starts)[n]
    return passed - start, jnp.asarray(np.diff(starts))[n]


def _one_cycle(step: ArrayLike, config: OptimConfig, rising: float, total_steps: int) -> jax.Array:
    """`torch.optim.lr_scheduler.OneCycleLR` without a cycle of the momentum; shares of the peak."""
    peak = min(rising, total_steps - 1) - 1  # Its step; not always a whole number.
    first = 1 / config.one_cycle_div
    last = first / config.one_cycle_final_div
    step = jnp.minimum(jnp.asarray(step, float), total_steps)  # PyTorch's goes no further.
    rise = _half_cosine(peak - step, peak if peak > 0 else 1, first)  # Backwards.
    fall = _half_cosine(step - peak, total_steps - 1 - peak, last)
    return jnp.where(step < peak, rise, fall)

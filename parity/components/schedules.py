"""Every schedule's learning rate, at every step."""

from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp
import numpy as np
from torch import nn

import unet_jax.schedule
from parity.row import Row
from unet_jax.config import OptimConfig
from unet_torch_ref.optim import build_optimizer
from unet_torch_ref.schedule import Schedule, build_schedule

STRICT = 1e-12
"""Of the peak, in float64, over 200 steps: PyTorch's get each rate from the last."""
PEAK = 0.5
TOTAL, EPOCH = 180, 6
"""Steps of the run, and of an epoch of it."""
SCHEDULES: dict[str, dict[str, Any]] = {
    "cosine": {},
    "cosine-above-0": {"min_rate": 0.1},
    "constant": {"schedule": "constant"},
    "step": {"schedule": "step", "step_epochs": 7},
    "step-often": {"schedule": "step", "step_epochs": 1, "step_factor": 0.9},
    "polynomial": {"schedule": "polynomial"},
    "square": {"schedule": "polynomial", "poly_power": 2},
    "restarts": {"schedule": "restarts"},
    "restarts-doubling": {
        "schedule": "restarts",
        "restart_epochs": 2,
        "restart_factor": 2,
        "min_rate": 0.1,
    },
    "restarts-tripling": {"schedule": "restarts", "restart_epochs": 1, "restart_factor": 3},
    "one-cycle": {"schedule": "one_cycle"},
    "one-cycle-flatter": {
        "schedule": "one_cycle",
        "one_cycle_div": 10,
        "one_cycle_final_div": 100,
    },
    "plateau": {"schedule": "plateau"},
}
WARMUPS: dict[str, dict[str, Any]] = {
    "no-warm-up": {},
    "a-share": {"warmup": 0.123},  # 22.14 steps
    "all": {"warmup": 1.0},
    "one-step": {"warmup_steps": 1},
    "steps": {"warmup_steps": 23},
    "more-than-all": {"warmup_steps": 500},
}


def settings(**options: Any) -> OptimConfig:
    return OptimConfig(**{"learning_rate": PEAK, "warmup": 0.0, **options})


def jax_rates(config: OptimConfig, steps: int, total: int = TOTAL) -> np.ndarray:
    # As a training state counts; of one shape, to be quick.
    step = jnp.arange(200, dtype=jnp.int32)
    rates = unet_jax.schedule.learning_rate(step, config, total_steps=total, steps_per_epoch=EPOCH)
    assert rates.shape == (200,)
    assert rates.dtype == np.float64
    return np.asarray(rates)[:steps]


class Witness:
    """PyTorch's schedulers over an optimiser that does nothing."""

    def __init__(self, config: OptimConfig, total: int = TOTAL) -> None:
        # Two groups of parameters, which must have one rate.
        arguments = {**config.optimizer_arguments(), "decay_norms_and_biases": False}
        self.optimizer = build_optimizer(nn.Conv2d(1, 1, 1), **arguments)
        self.schedule: Schedule = build_schedule(
            self.optimizer,
            **config.schedule_arguments(),
            total_steps=total,
            steps_per_epoch=EPOCH,
        )

    @property
    def rate(self) -> float:
        rate, other = (group["lr"] for group in self.optimizer.param_groups)
        assert rate == other
        return rate

    def step(self) -> None:
        self.optimizer.step()
        self.schedule.steps.step()


def torch_rates(config: OptimConfig, steps: int, total: int = TOTAL) -> np.ndarray:
    witness = Witness(config, total)
    rates = [witness.rate]
    for _ in range(steps - 1):
        witness.step()
        rates.append(witness.rate)
    return np.array(rates)


def plateau_rates(metrics: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """The rates after each validation, of JAX and of PyTorch."""
    config = settings(schedule="plateau", plateau_patience=1, plateau_factor=0.3)
    witness, plateau = Witness(config), unet_jax.schedule.Plateau.start()
    assert witness.schedule.plateau is not None
    ours, theirs = [], []
    for metric in metrics:
        witness.schedule.plateau.step(metric)
        plateau = plateau.update(metric, config)
        ours.append(PEAK * float(plateau.factor))
        theirs.append(witness.rate)
    return np.array(ours), np.array(theirs)


def compare_schedules(names: Iterable[str] = SCHEDULES) -> list[Row]:
    """Compares rates; an error is the largest of any step, as a share of the peak.

    Args:
      names: Of `SCHEDULES`.
    """
    rows = []
    for name in names:
        for warmup, rise in WARMUPS.items():
            config = settings(**SCHEDULES[name], **rise)
            # PyTorch's one cycle has a rate for one step past the last, and then stops.
            steps = TOTAL + (1 if config.schedule == "one_cycle" else 20)
            gap = np.abs(jax_rates(config, steps) - torch_rates(config, steps))
            error = float(gap.max()) / PEAK
            rows.append(Row("schedules", "float64", f"schedule: {name}", warmup, error, STRICT))
    ours, theirs = plateau_rates([0.5, 0.4, 0.4, 0.6, 0.4, 0.4, 0.4, 0.7, 0.1, 0.1, float("nan")])
    error = float(np.abs(ours - theirs).max()) / PEAK
    rows.append(
        Row("schedules", "float64", "schedule: plateau", "after validations", error, STRICT)
    )
    return rows

"""Faults of schedules."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest.mock import patch

import unet_jax.schedule
from parity.components.schedules import compare_schedules
from parity.mutations.mutation import Mutation


def _learning_rate(change: Callable[..., Any]) -> Any:
    right = unet_jax.schedule.learning_rate
    return partial(patch.object, unet_jax.schedule, "learning_rate", partial(change, right))


update_plateau = unet_jax.schedule.Plateau.update
SCHEDULES = [
    Mutation(
        "schedule a step early",
        "schedule",
        ("schedule: cosine", "no-warm-up"),
        partial(compare_schedules, ("cosine",)),
        _learning_rate(lambda right, step, *args, **named: right(step + 1, *args, **named)),
    ),
    Mutation(
        "cycles that do not grow",
        "schedule",
        ("schedule: restarts-doubling", "no-warm-up"),
        partial(compare_schedules, ("restarts-doubling",)),
        _learning_rate(
            lambda right, step, config, **named: right(
                step, dataclasses.replace(config, restart_factor=1), **named
            )
        ),
    ),
    Mutation(
        "patience one validation longer",
        "schedule",
        ("schedule: plateau", "after validations"),
        partial(compare_schedules, ("plateau",)),
        partial(
            patch.object,
            unet_jax.schedule.Plateau,
            "update",
            lambda self, metric, config: update_plateau(
                self,
                metric,
                dataclasses.replace(config, plateau_patience=config.plateau_patience + 1),
            ),
        ),
    ),
]

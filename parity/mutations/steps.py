"""Faults of whole steps, and of many."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any
from unittest.mock import patch

import jax
import jax.numpy as jnp
import optax

import unet_jax.gradients
import unet_jax.scale
import unet_jax.step
from parity.band import judge
from parity.components.steps import compare_loss_scale, compare_steps
from parity.mutations.mutation import Mutation
from parity.mutations.networks import TINY, changed_convolution
from parity.recipes import random_batch
from parity.row import Row
from parity.trajectory import train_in
from unet_jax.config import Config, DataConfig, TrainConfig
from unet_jax.optim import build_optimizer

average, every_nth = unet_jax.step._average, unet_jax.gradients._every_nth
WHOLE = "4 micro-batches, average"


def train_shortly(precisions: Sequence[str]) -> list[Row]:
    """A trajectory of ten steps of a network of one stage."""
    config = Config(
        model=dataclasses.replace(TINY, architecture="plain"),
        data=DataConfig(size=(8, 12)),
        train=TrainConfig(batch_size=4),
    )
    batches, classes = [random_batch(config, 2, seed) for seed in range(10)], ("ground", "car")
    return judge({name: train_in(config, batches, classes, name) for name in precisions})


def _rate_off(config: Any) -> Any:
    return optax.chain(build_optimizer(config), optax.scale(1.001))


def _coarse(right: Any, x: jax.Array, kernel: jax.Array, **options: Any) -> jax.Array:
    if x.dtype != jnp.float32:
        return right(x, kernel, **options)
    return right(x.astype("bfloat16"), kernel.astype("bfloat16"), **options).astype(x.dtype)


STEPS = [
    Mutation(
        "micro-batches of neighbours",
        "accumulation",
        ("step 1", "loss"),
        partial(compare_steps, WHOLE),
        partial(
            patch.object,
            unet_jax.gradients,
            "_every_nth",
            lambda x, n: x.reshape(n, x.shape[0] // n, *x.shape[1:]),
        ),
    ),
    Mutation(
        "shares of the average swapped",
        "EMA",
        ("EMA", "encoder_0/conv_1/kernel"),
        partial(compare_steps, WHOLE),
        partial(
            patch.object,
            unet_jax.step,
            "_average",
            lambda ema, params, decay: average(ema, params, 1 - decay),
        ),
    ),
    Mutation(
        "scale grows a step early",
        "loss scale",
        ("loss scale", "of every step"),
        compare_loss_scale,
        partial(patch.object, unet_jax.scale, "INTERVAL", unet_jax.scale.INTERVAL - 1),
    ),
    Mutation(
        "scale quartered by an overflow",
        "loss scale",
        ("loss scale", "of every step"),
        compare_loss_scale,
        partial(patch.object, unet_jax.scale, "BACKOFF", 0.25),
    ),
    Mutation(
        "steps 0.1 % too long",
        "trajectory",
        ("trajectory", "loss at step 10"),
        partial(train_shortly, ("float64",)),
        partial(patch, "unet_jax.recipe.build_optimizer", _rate_off),
    ),
    Mutation(
        "convolutions in bfloat16",
        "trajectory",
        ("trajectory", "loss at step 10"),
        partial(train_shortly, ("float64", "float32")),
        changed_convolution(_coarse),
    ),
]

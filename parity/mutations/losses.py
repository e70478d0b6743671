"""Faults of losses."""

from collections.abc import Callable
from functools import partial
from typing import Any
from unittest.mock import patch

import unet_jax.losses
import unet_jax.lovasz
from parity.components.losses import compare_losses
from parity.mutations.mutation import Mutation


def _loss(**changes: Callable[[Any], Any]) -> Any:
    """JAX's loss with settings that are functions of the right ones."""
    right = unet_jax.losses.Loss

    def make(**fields: Any) -> unet_jax.losses.Loss:
        given = vars(right(**fields))
        return right(**fields | {name: change(given[name]) for name, change in changes.items()})

    return partial(patch.object, unet_jax.losses, "Loss", make)


def _loss_fault(name: str, loss: str, plant: Any) -> Mutation:
    compare = partial(compare_losses, (loss,))
    return Mutation(name, "loss", (f"loss: {loss}", "value"), compare, plant)


slopes = unet_jax.lovasz._slopes
LOSSES = [
    _loss_fault(
        "ignored id off by one",
        "cross-entropy-5",
        partial(patch.object, unet_jax.losses, "IGNORED", 254),
    ),
    _loss_fault(
        "mean over pixels for mean over weights",
        "cross-entropy-weighted-5",
        partial(patch.dict, unet_jax.losses.NORMALISERS, {"cross_entropy": "pixels"}),
    ),
    _loss_fault(
        "smoothing over the other classes alone",
        "smoothed-5",
        _loss(label_smoothing=lambda share: share * 5 / 4),
    ),
    _loss_fault(
        "Dice of the batch for Dice of each image", "dice-5", _loss(reduction=lambda _: "batch")
    ),
    _loss_fault("smooth added twice", "dice-smooth-1", _loss(smooth=lambda smooth: 2 * smooth)),
    _loss_fault("alpha on the background", "focal-alpha", _loss(focal_alpha=lambda a: 1 - a)),
    _loss_fault(
        "smallest errors first in Lovász",
        "lovasz-5",
        partial(
            patch.object,
            unet_jax.lovasz,
            "_slopes",
            lambda errors, truth, counted: slopes(-errors, truth, counted),
        ),
    ),
]

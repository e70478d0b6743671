"""Faults of augmentation."""

from collections.abc import Callable
from functools import partial
from typing import Any
from unittest.mock import patch

import jax
import numpy as np

import unet_jax.augment
import unet_torch_ref.augment
from parity.components.augmentation import compare_augmentation
from parity.mutations.mutation import Mutation


def _half_off(warp: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """A warp that takes each pixel from half a pixel up and to the left."""
    return lambda x, geometry, *rest: warp(
        x, geometry - np.array([[[0, 0, 1 << 15]] * 2], np.int32), *rest
    )


def _augmentation_fault(name: str, option: str, quantity: str, plant: Any) -> Mutation:
    compare = partial(compare_augmentation, (option,))
    return Mutation(name, "augmentation", (f"augmentation: {option}", quantity), compare, plant)


AUGMENTATION = [
    _augmentation_fault(
        "mask resampled at the lower of two pixels",
        "rotation",
        "mask",
        partial(patch.object, unet_jax.augment, "warp_mask", _half_off(unet_jax.augment.warp_mask)),
    ),
    _augmentation_fault(
        "image sampled half a pixel off",
        "scale",
        "pixels",
        partial(patch.object, unet_jax.augment, "warp", _half_off(unet_jax.augment.warp)),
    ),
    _augmentation_fault(
        "luminance of another standard",
        "contrast",
        "pixels",
        partial(patch.object, unet_torch_ref.augment, "LUMINANCE", (0.2126, 0.7152, 0.0722)),
    ),
]

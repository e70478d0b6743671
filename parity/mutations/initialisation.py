"""Faults of first weights."""

from functools import partial
from typing import Any
from unittest.mock import patch

import flax.linen

import unet_jax.models.layers as flax_layers
from parity.components.initialisation import WIDE, compare_initialisation
from parity.mutations.mutation import Mutation

uniform = flax_layers.uniform_fan_in


def _normal(fan_in: int) -> Any:
    return flax.linen.initializers.normal((3 * fan_in) ** -0.5)


INITIALISATION = [
    Mutation(
        "fan-in counted on the input side",
        "initialisation",
        ("initialisation: transposed", "weight: bound"),
        partial(compare_initialisation, ("transposed",)),
        partial(
            patch.object,
            flax_layers,
            "uniform_fan_in",
            lambda fan_in: uniform(16 * 4 if fan_in == WIDE * 4 else fan_in),
        ),
    ),
    Mutation(
        "normal distribution of the same variance",
        "initialisation",
        ("initialisation: 3x3", "weight: bound"),
        partial(compare_initialisation, ("3x3",)),
        partial(patch.object, flax_layers, "uniform_fan_in", _normal),
    ),
]

"""First weights: the distributions that both frameworks draw them from.

PyTorch draws U(-b, b), b = 1 / √fan_in, for every kind of convolution and its bias. A row's error
is a distance between distributions as a share of the one that chance alone exceeds once in a
billion times, so that its limit is 1.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import torch
from scipy import special, stats

from parity.row import Row
from unet_jax.models import layers as flax_layers
from unet_torch_ref.models.layers import conv, up_conv

WIDE = 4096
"""Features; biases, one a feature, are the smallest sample."""
CHANCE = 1e-9
"""How often a correct draw may fail; with these seeds, none does."""
ROUNDING = 1e-6
"""Of the bound, in float32, which rounds it by 6e-8."""


class Kind(NamedTuple):
    """A kind of layer, of `inputs` channels, and how many entries each output is a sum of."""

    inputs: int
    fan_in: int
    flax: Callable[[], nn.Module]
    torch: Callable[[], torch.nn.Module]


KINDS = {
    "3x3": Kind(8, 8 * 9, lambda: flax_layers.Conv(WIDE), lambda: conv(8, WIDE)),
    "1x1": Kind(
        64,
        64,
        lambda: flax_layers.Conv(WIDE, kernel_size=1),
        lambda: conv(64, WIDE, kernel_size=1),
    ),
    "strided": Kind(
        8, 8 * 9, lambda: flax_layers.Conv(WIDE, stride=2), lambda: conv(8, WIDE, stride=2)
    ),
    # PyTorch counts the fan-in of a transposed convolution's [in, out, 2, 2] over its outputs.
    "transposed": Kind(16, WIDE * 4, lambda: flax_layers.UpConv(WIDE), lambda: up_conv(16, WIDE)),
}


def flax_draws(kind: Kind) -> dict[str, np.ndarray]:
    # Of the type that networks are trained in, also where float64 is on.
    images = jnp.zeros((1, 2, 2, kind.inputs), jnp.float32)
    params = kind.flax().init(jax.random.key(0), images)["params"]
    return {"weight": np.asarray(params["kernel"]), "bias": np.asarray(params["bias"])}


def torch_draws(kind: Kind) -> dict[str, np.ndarray]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return {name: p.detach().numpy() for name, p in kind.torch().named_parameters()}


def compare_initialisation(names: Iterable[str] = KINDS) -> list[Row]:
    """Compares bounds, each sample with U(-b, b), and both with each other (Kolmogorov-Smirnov).

    Args:
      names: Of `KINDS`.
    """
    rows = []
    for name in names:
        kind = KINDS[name]
        ours, theirs = flax_draws(kind), torch_draws(kind)
        for entry in ("weight", "bias"):
            a, b = (side[entry].ravel().astype(np.float64) for side in (ours, theirs))
            bound = 1 / math.sqrt(kind.fan_in)
            stray = special.kolmogi(CHANCE) / math.sqrt(a.size)
            uniform = stats.uniform(-bound, 2 * bound).cdf
            alone = [_result(stats.kstest(side, uniform)) / stray for side in (a, b)]
            # Both samples stray.
            together = _result(stats.ks_2samp(a, b, method="asymp")) / (math.sqrt(2) * stray)
            errors = {
                f"{entry}: bound": float(np.abs(a).max()) / bound / (1 + ROUNDING),
                f"{entry}: JAX's distribution": alone[0],
                f"{entry}: PyTorch's distribution": alone[1],
                f"{entry}: JAX's and PyTorch's": together,
            }
            stage = f"initialisation: {name}"
            rows += [
                Row("initialisation", "float32", stage, quantity, error, 1.0)
                for quantity, error in errors.items()
            ]
    return rows


def _result(test: Any) -> float:
    return float(test.statistic)

"""Faults of layers, blocks, networks and of weights on their way."""

import dataclasses
from collections.abc import Callable
from functools import cache, partial
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import nn

import parity.sides
import unet_jax.augment
import unet_jax.models.layers as flax_layers
import unet_jax.models.norms as flax_norms
import unet_jax.models.plain as flax_plain
import unet_jax.models.standardise as norms
import unet_torch_ref.models.residual as torch_residual
import unet_torch_ref.step
from parity.cases import Case
from parity.compare import compare
from parity.convert import to_flax
from parity.mutations.mutation import Mutation, Rows
from parity.sides import scale_entry
from unet_jax.config import ModelConfig
from unet_jax.models.norms import BatchNorm

TINY = ModelConfig(channels=(4,), groups=2)
RESIDUAL = Case("residual", TINY, 1, (8, 12))
PLAIN = Case("plain", ModelConfig(architecture="plain", channels=(4,), norm="batch"), 1, (8, 12), 3)
BILINEAR = RESIDUAL._replace(model=dataclasses.replace(TINY, upsample="bilinear"))
ODD = RESIDUAL._replace(size=(9, 13))


_mean_pool = partial(flax.linen.avg_pool, window_shape=(2, 2), strides=(2, 2))


@cache
def network(case: Case, change: Callable[[Any], None] | None = None) -> Rows:
    """A network's comparison in float64, on one batch, after `change` of Flax's weights."""
    return partial(compare, case, change, ("float64",), draws=1)


def _by_fixed_statistics(x, scale, bias, alike, epsilon, rectified):
    """A norm that takes its mean and its variance for constants."""
    mean, variance = norms._statistics(jax.lax.stop_gradient(x), alike)
    y = norms.by_statistics(x, mean, variance, scale, bias, epsilon)
    return flax.linen.relu(y) if rectified else y, mean, variance


def _converted(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Any:
    """Weights carried across with one kernel changed, for better or worse."""

    def convert(state: Any, model: nn.Module) -> Any:
        variables = to_flax(state, model)
        entry = variables["params"]
        for part in name.split("/"):
            entry = entry[part]
        entry["kernel"] = np.ascontiguousarray(change(entry["kernel"]))
        return variables

    return partial(patch.object, parity.sides, "to_flax", convert)


FACTOR = SimpleNamespace(value=1.0)
"""Of one weight, until a fault is planted."""


def _scale(variables: Any) -> None:
    scale_entry(variables, "encoder_0/conv_2/kernel", FACTOR.value)


def _swapped(self: Any, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
    return torch.cat([skip, x], dim=1)


def _half_pixel(x: jax.Array, size: tuple[int, int], align_corners: bool) -> jax.Array:
    return flax_layers.resize_bilinear(x, size, align_corners=False)


def _top_left(x: torch.Tensor, size: tuple[int, int], policy: str) -> torch.Tensor:
    return nn.functional.pad(x, (size[1] - x.shape[3], 0, size[0] - x.shape[2], 0))


def changed_convolution(change: Callable[..., jax.Array]) -> Any:
    """Every convolution of Flax's as `change` of the right one, its input, kernel and options."""
    right = jax.lax.conv_general_dilated
    return partial(patch.object, flax_layers.lax, "conv_general_dilated", partial(change, right))


def _same(right: Any, x: jax.Array, kernel: jax.Array, **options: Any) -> jax.Array:
    if options["window_strides"] == (2, 2):
        options["padding"] = "SAME"  # TensorFlow's: one zero, on the right and below.
    return right(x, kernel, **options)


def _biased(x: torch.Tensor, mean: Any, var: Any, *rest: Any) -> torch.Tensor:
    """`torch.nn.functional.batch_norm`, which keeps the biased variance."""
    weight, bias, training, momentum, eps = rest
    before = var.clone()
    y = torch.batch_norm(x, weight, bias, mean, var, training, momentum, eps, False)
    if training:
        n, kept = x.numel() // x.shape[1], (1 - momentum) * before
        var.data.copy_(kept + (var - kept) * (n - 1) / n)
    return y


def _no_shortcut(self: Any, x: torch.Tensor) -> torch.Tensor:
    y = self.conv_1(nn.functional.relu(self.norm_1(x)))
    y = self.conv_2(nn.functional.relu(self.norm_2(y)))
    return y if self.shortcut is None else y + 0 * self.shortcut(x)  # Its gradient is asked for.


def _norm(**options: Any) -> Any:
    return partial(patch.object, flax_norms, "BatchNorm", partial(BatchNorm, **options))


def _normalised(image: Any, mean_std: Any, dtype: Any) -> jax.Array:
    mean, std = (tuple(256 / 255 * value for value in values) for values in mean_std)
    return unet_jax.augment.normalise(image, (mean, std), dtype)


NETWORKS = [
    Mutation(
        "kernel of the transposed convolution flipped",
        "conversion",
        ("eval", "upsample_0/conv"),
        network(RESIDUAL),
        _converted("upsample_0/conv", lambda kernel: kernel[::-1, ::-1]),
    ),
    Mutation(
        "rows and columns of a kernel swapped",
        "conversion",
        ("eval", "conv_in"),
        network(RESIDUAL),
        _converted("conv_in", lambda kernel: kernel.swapaxes(0, 1)),
    ),
    Mutation(
        "one weight off by 0.1 %",
        "conversion",
        ("parameters", "params/encoder_0/conv_2/kernel"),
        network(PLAIN, _scale),
        partial(patch.object, FACTOR, "value", 1.001),
    ),
    Mutation(
        "image divided by 256",
        "normalisation",
        ("eval", "encoder_0/conv_1"),
        network(PLAIN),
        partial(patch.object, parity.sides, "normalise_jax", _normalised),
    ),
    Mutation(
        "skip before the upsampled map",
        "residual network",
        ("eval", "decoder_0/norm_1"),
        network(RESIDUAL),
        partial(patch.object, torch_residual.ResidualUNet, "join", _swapped),
    ),
    Mutation(
        "block without its shortcut",
        "residual network",
        ("eval", "encoder_0"),
        network(RESIDUAL),
        partial(patch.object, torch_residual.ResidualBlock, "forward", _no_shortcut),
    ),
    Mutation(
        "corners not aligned",
        "bilinear upsampling",
        ("eval", "upsample_0/conv"),
        network(BILINEAR),
        partial(patch, "unet_jax.models.residual.resize_bilinear", _half_pixel),
    ),
    Mutation(
        "odd sizes padded at the top and left",
        "padding",
        ("eval", "conv_in"),
        network(ODD),
        partial(patch.object, torch_residual, "match_size", _top_left),
    ),
    Mutation(
        "stride-2 convolution padded on one side",
        "convolution",
        ("eval", "encoder_1"),
        network(RESIDUAL),
        changed_convolution(_same),
    ),
    Mutation(
        "mean pooling for max pooling",
        "plain network",
        ("eval", "bottleneck/conv_1"),
        network(PLAIN),
        partial(patch.object, flax_plain, "max_pool", _mean_pool),
    ),
    Mutation(
        "ReLU that leaks 1 %",
        "plain network",
        ("eval", "encoder_0/conv_2"),
        network(PLAIN),
        partial(patch.object, flax.linen, "relu", flax.linen.leaky_relu),
    ),
    Mutation(
        "channels of a group interleaved",
        "group norm",
        ("eval", "encoder_0/norm_1"),
        network(RESIDUAL),
        partial(patch.object, flax_layers.jnp, "repeat", lambda x, n, axis: jnp.tile(x, (1, n))),
    ),
    Mutation(
        "eps outside of the root",
        "group norm",
        ("eval", "encoder_0/norm_1"),
        network(RESIDUAL),
        partial(patch.object, flax_layers.lax, "rsqrt", lambda x: 1 / (jnp.sqrt(x - 1e-5) + 1e-5)),
    ),
    Mutation(
        "eps 1e-3 for 1e-5",
        "batch norm",
        ("eval", "encoder_0/norm_1"),
        network(PLAIN),
        _norm(epsilon=1e-3),
    ),
    Mutation(
        "momentum as the share that is kept",
        "batch norm",
        ("statistics", "encoder_0/norm_1/mean"),
        network(PLAIN),
        _norm(momentum=0.9),
    ),
    Mutation(
        "biased running variance",
        "batch norm",
        ("statistics", "encoder_0/norm_1/var"),
        network(PLAIN),
        partial(patch.object, nn.functional, "batch_norm", _biased),
    ),
    Mutation(
        "batch statistics in evaluation",
        "batch norm",
        ("eval", "encoder_0/norm_1"),
        network(PLAIN),
        partial(patch.object, nn.BatchNorm2d, "train", lambda self, mode=True: self),
    ),
    Mutation(
        "no gradient through the statistics",
        "batch norm",
        ("gradients", "encoder_0/conv_1/kernel"),
        network(PLAIN),
        partial(patch.object, norms, "_standardise", _by_fixed_statistics),
    ),
    Mutation(
        "padding images counted",
        "loss",
        ("loss", "mean loss"),
        network(PLAIN),
        partial(
            patch.object,
            unet_torch_ref.step.Batch,
            "valid",
            property(lambda batch: torch.ones(3, dtype=torch.bool)),
        ),
    ),
]

"""A transposed convolution with a 2×2 kernel and stride 2. Images are [B, H, W, C]."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from unet_jax.models.convolution import convolve
from unet_jax.models.platforms import by_platform

Pair = tuple[jax.Array, jax.Array]


def transposed_convolve(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """`torch.nn.functional.conv_transpose2d` with stride 2; no two windows overlap.

    It can be differentiated in reverse only.

    Args:
      x: [B, H, W, I].
      kernel: [2, 2, I, O], of the same type.
      bias: [O], of the same type.

    Returns:
      [B, 2H, 2W, O].
    """
    return by_platform(x, kernel, bias, tpu=_by_windows, default=_by_pixels)


def _by_pixels(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """A convolution of one pixel, whose channels become four pixels."""
    batch, height, width, inputs = x.shape
    kernel = kernel.transpose(2, 0, 1, 3).reshape(1, 1, inputs, -1)
    x = convolve(x, kernel, jnp.tile(bias, 4)).reshape(batch, height, width, 2, 2, -1)
    return x.swapaxes(2, 3).reshape(batch, 2 * height, 2 * width, -1)


def _by_windows(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """As it is defined: XLA would have a TPU copy channels that become pixels, both ways."""
    return _spread(x, kernel.swapaxes(2, 3)) + bias.reshape(1, 1, 1, -1)


def _gathered(y: jax.Array, kernel: jax.Array) -> jax.Array:
    """[B, 2H, 2W, O], by [2, 2, O, I] -> [B, H, W, I], which `_spread` is the transpose of."""
    order = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(y, kernel, (2, 2), "VALID", dimension_numbers=order)


@jax.custom_vjp
def _spread(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """[B, H, W, I], by [2, 2, O, I] -> [B, 2H, 2W, O]."""
    batch, height, width, _ = x.shape
    y = jax.ShapeDtypeStruct((batch, 2 * height, 2 * width, kernel.shape[2]), x.dtype)
    [y] = jax.linear_transpose(partial(_gathered, kernel=kernel), y)(x)
    return y


def _forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, Pair]:
    return _spread(x, kernel), (x, kernel)


def _backward(saved: Pair, g: jax.Array) -> Pair:
    """By differentiation, XLA would have a TPU turn g around for the kernel's."""
    x, kernel = saved
    [by_kernel] = jax.linear_transpose(partial(_gathered, g), kernel)(x)
    return _gathered(g, kernel), by_kernel


_spread.defvjp(_forward, _backward)

"""A transposed convolution with a 2×2 kernel and stride 2. Images are [B, H, W, C]."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from unet_jax.models.convolution import convolve
from unet_jax.models.platforms import by_platform

Given = tuple[jax.Array, jax.Array, jax.Array]
"""x, kernel and bias, or their gradients."""


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
    return by_platform(x, kernel, bias, tpu=_directly, default=_by_pixels)


def _by_pixels(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """A convolution of one pixel, whose channels become four pixels."""
    batch, height, width, inputs = x.shape
    kernel = kernel.transpose(2, 0, 1, 3).reshape(1, 1, inputs, -1)
    x = convolve(x, kernel, jnp.tile(bias, 4)).reshape(batch, height, width, 2, 2, -1)
    return x.swapaxes(2, 3).reshape(batch, 2 * height, 2 * width, -1)


@jax.custom_vjp
def _directly(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """As it is defined: XLA would have a TPU copy channels into pixels, forward and backward."""
    batch, height, width, _ = x.shape
    y = jax.ShapeDtypeStruct((batch, 2 * height, 2 * width, kernel.shape[-1]), x.dtype)
    [y] = jax.linear_transpose(lambda y: _strided(y, kernel), y)(x)
    return y + bias.reshape(1, 1, 1, -1)


def _strided(y: jax.Array, kernel: jax.Array) -> jax.Array:
    """[B, 2H, 2W, O], by [2, 2, I, O] -> [B, H, W, I], which the above is the transpose of."""
    return lax.conv_general_dilated(
        y,
        kernel,
        window_strides=(2, 2),
        padding="VALID",
        dimension_numbers=("NHWC", "HWOI", "NHWC"),
    )


def _forward(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> tuple[jax.Array, Given]:
    return _directly(x, kernel, bias), (x, kernel, bias)


def _backward(given: Given, g: jax.Array) -> Given:
    """By differentiation, XLA would have a TPU reverse all of g for the kernel's gradient.

    In half precision, too, the bias's is summed in float32.
    """
    x, kernel, _ = given
    [by_kernel] = jax.linear_transpose(partial(_strided, g), kernel)(x)
    return _strided(g, kernel), by_kernel, jnp.sum(g, (0, 1, 2))


_directly.defvjp(_forward, _backward)

"""The gradient of a convolution's kernel as matrix products, for a CPU. Images are [B, H, W, C]."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from unet_jax.models.platforms import Computed

BAND = 2**19
"""Values that a band's products are of, at most, unless a kernel or a single row has more: two
megabytes of float32, which a CPU's caches hold from where they are copied to where they are
multiplied (docs/speed_cpu.md)."""
WHOLE = 2**21
"""Values up to which one band is quicker than a loop over several."""


def kernel_by_products(
    x: jax.Array, g: jax.Array, *, side: int, stride: int, banded: bool
) -> jax.Array:
    """The kernel's gradient, a row at a time, as the product of x's and g's pixels.

    `stride` pixels of x beside each other make one column of a matrix, and g beside itself, moved
    by every number of such blocks that the kernel spans, one of the other.

    Args:
      x: [B, H, W, I], the convolution's input.
      g: [B, ⌈H / stride⌉, ⌈W / stride⌉, O], the gradient of its output.
      side: Of the kernel.
      stride: In both directions.
      banded: Whether large images are gone through in bands of rows, one after the other.

    Returns:
      [side, side, I, O].
    """
    (batch, height, width, outputs), inputs = g.shape, x.shape[-1]
    taps, pad = -(-side // stride), side // 2
    blocks = width + taps - 1
    x = jnp.pad(x, ((0, 0), (pad, pad), (pad, max(blocks * stride - x.shape[2] - pad, 0)), (0, 0)))
    x = x[:, :, : blocks * stride].reshape(batch, -1, blocks, stride * inputs)
    products = partial(_products, side=side, stride=stride, taps=taps)
    row, result = blocks * (stride * inputs + taps * outputs), side**2 * inputs * outputs
    rows = _rows(height, max(BAND, result) // row)
    # The result is read and written for each band, which has to be worth it.
    if banded and batch * height * row > WHOLE and 4 * rows * row > result:
        kernel = _over_bands(products, x, g, rows, side, stride)
    else:
        kernel = products(x, g)
    kernel = kernel.reshape(side, stride, inputs, taps, outputs)
    return kernel.transpose(0, 3, 1, 2, 4).reshape(side, -1, inputs, outputs)[:, :side]


def _products(x: jax.Array, g: jax.Array, *, side: int, stride: int, taps: int) -> jax.Array:
    """[B, rows, blocks, stride * I] and [B, height, W, O] -> [side, stride * I, taps * O]."""
    moved = [jnp.pad(g, ((0, 0), (0, 0), (m, taps - 1 - m), (0, 0))) for m in range(taps)]
    wide = jnp.concatenate(moved, axis=-1)
    tall = stride * (g.shape[1] - 1) + 1
    rows = [jnp.einsum("bhwi,bhwo->io", x[:, i : i + tall : stride], wide) for i in range(side)]
    return jnp.stack(rows)


def _over_bands(
    products: Computed, x: jax.Array, g: jax.Array, rows: int, side: int, stride: int
) -> jax.Array:
    """The sum of what is found in each band of so many of g's rows, of one image."""
    bands = g.shape[1] // rows

    def add(kernel: jax.Array, n: jax.Array) -> tuple[jax.Array, None]:
        image, row = n // bands, n % bands * rows
        high = stride * (rows - 1) + side
        of_x = lax.dynamic_slice(x, (image, stride * row, 0, 0), (1, high, *x.shape[2:]))
        of_g = lax.dynamic_slice(g, (image, row, 0, 0), (1, rows, *g.shape[2:]))
        return kernel + products(of_x, of_g), None

    found = jax.eval_shape(products, x, g)
    kernel, _ = lax.scan(add, jnp.zeros(found.shape, found.dtype), jnp.arange(len(g) * bands))
    return kernel


def _rows(height: int, most: int) -> int:
    """As many as divide the height, and are no more than that; at least one."""
    return max(n for n in range(1, height + 1) if height % n == 0 and n <= max(most, 1))

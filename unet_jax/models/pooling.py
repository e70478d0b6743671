"""Max pooling, whose gradient is computed by comparisons, except on a TPU. Images are [B, H, W, C].

XLA's own looks for each maximum's place in its window once more, with code that a CPU runs slowly
(docs/speed_cpu.md). A TPU has an operation for it, and would write ours to memory more than once
(docs/speed_tpu.md). On a GPU the two have not been compared.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from unet_jax.models.platforms import by_platform


def max_pool(x: jax.Array) -> jax.Array:
    """`torch.nn.functional.max_pool2d` over 2×2 pixels; it can be differentiated in reverse only.

    Where several of four are the largest, the first one has the gradient, as in PyTorch. Where one
    is not a number, neither is the result; the last of the four has the gradient, on a TPU any.

    Args:
      x: [B, H, W, C].

    Returns:
      [B, ⌊H / 2⌋, ⌊W / 2⌋, C].
    """
    return by_platform(x, tpu=_by_windows, default=_by_quarters)


def _by_windows(x: jax.Array) -> jax.Array:
    return nn.max_pool(x, (2, 2), strides=(2, 2))


@jax.custom_vjp
def _by_quarters(x: jax.Array) -> jax.Array:
    one, two, three, four = _quarters(x)
    return jnp.maximum(jnp.maximum(one, two), jnp.maximum(three, four))


def _forward(x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    y = _by_quarters(x)
    one, two, three, _ = (quarter == y for quarter in _quarters(x))
    first = jnp.where(one, 0, jnp.where(two, 1, jnp.where(three, 2, 3))).astype(jnp.int8)
    return y, (x, first)


def _backward(saved: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array]:
    x, first = saved  # Of x the shape alone is used, so that it is not kept.
    places = jnp.arange(4, dtype=first.dtype).reshape(1, 1, 2, 1, 2, 1)
    by_x = jnp.where(first[:, :, None, :, None] == places, g[:, :, None, :, None], 0)
    batch, height, width, features = first.shape
    by_x = by_x.reshape(batch, 2 * height, 2 * width, features)
    odd = [(0, n - 2 * half) for n, half in zip(x.shape[1:3], (height, width), strict=True)]
    return (jnp.pad(by_x, ((0, 0), *odd, (0, 0))),)


_by_quarters.defvjp(_forward, _backward)


def _quarters(x: jax.Array) -> list[jax.Array]:
    """Each window's first pixel, its second, and those below them: four of [B, H/2, W/2, C]."""
    height, width = (n // 2 * 2 for n in x.shape[1:3])
    return [x[:, i:height:2, j:width:2] for i in (0, 1) for j in (0, 1)]

"""How often XLA goes through an image's pixels. Images are [B, H, W, C].

What it would do by itself is best for a CPU, and was slow on a GPU (docs/speed.md). A TPU is given
the GPU's code, untried.
"""

from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import lax

Tree = TypeVar("Tree")
Sums = tuple[jax.Array, ...]


def written(values: Tree) -> Tree:
    """The same values. On a CPU nothing is done; elsewhere they are in memory before they are used.

    XLA would compute them anew, or in another order, within whatever they are used for.
    """
    return lax.platform_dependent(
        values, cpu=lambda values: values, default=lax.optimization_barrier
    )


PIECE = 2**15
"""Values of all channels that a GPU sums at once, if a row has no more. With fewer, it begins and
ends more blocks than it works in; with more, XLA writes to memory what several sums are of."""


def pixel_sums(*values: jax.Array) -> Sums:
    """Of each channel of each image, all in one pass.

    Some rows at a time, except on a CPU: of small images XLA has a GPU write each value to memory
    before it sums them; and if these sums are summed, too, it goes through all pixels once more.

    Args:
      values: [B, H, W, C] each.

    Returns:
      [B, C] each.
    """
    return lax.platform_dependent(*values, cpu=_at_once, default=_by_pieces)


def _at_once(*values: jax.Array) -> Sums:
    return tuple(jnp.sum(each, (1, 2)) for each in values)


def _by_pieces(*values: jax.Array) -> Sums:
    pieces = lax.optimization_barrier(_sums(tuple(map(_cut, values)), 2))
    return lax.optimization_barrier(_sums(pieces, 1))


def _sums(values: Sums, axis: int) -> Sums:
    """In one operation, into which XLA fuses what the values have in common."""

    def add(sums: Sums, more: Sums) -> Sums:
        return tuple(a + b for a, b in zip(sums, more, strict=True))

    zeros = tuple(jnp.zeros((), each.dtype) for each in values)
    return tuple(lax.reduce(values, zeros, add, (axis,)))


def _cut(x: jax.Array) -> jax.Array:
    """[B, H, W, C] -> [B, pieces, pixels, C]; a piece is as many rows, of which H is a multiple."""
    batch, height, width, features = x.shape
    most = max(PIECE // (width * features), 1)
    rows = max(n for n in range(1, height + 1) if height % n == 0 and n <= most)
    return x.reshape(batch, height // rows, rows * width, features)

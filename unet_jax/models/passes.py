"""How often XLA goes through an image's pixels. Images are [B, H, W, C].

What it would do by itself is best for a CPU, and was slow on a GPU (docs/speed.md). A TPU is given
the GPU's code, untried.
"""

from functools import partial
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


PIECE = 2**10
"""Pixels of one image that a GPU sums at once, if a row has no more."""
BLOCK = 2**14
"""Of so many values there is at least one piece, or a GPU has too few of them for its cores."""


def pixel_sums(one: jax.Array, *other: jax.Array, read: int = 1) -> Sums:
    """Of each channel of each image, of one or two of the same type, in one pass.

    Some rows at a time, except on a CPU: of small images XLA has a GPU write each value to memory
    before it sums them; and if these sums are summed, too, it goes through all pixels once more.

    Args:
      one: [B, H, W, C].
      other: The same, or nothing.
      read: Of how many images in memory they are computed.

    Returns:
      [B, C] of each.
    """
    by_pieces = partial(_by_pieces, read=read)
    return lax.platform_dependent(one, *other, cpu=_at_once, default=by_pieces)


def _at_once(*values: jax.Array) -> Sums:
    return tuple(jnp.sum(each, (1, 2)) for each in values)


def _by_pieces(*values: jax.Array, read: int = 1) -> Sums:
    """Of two as of one that is complex: of several sums, XLA writes to memory what they share."""
    dtype = values[0].dtype
    # No complex number is of half precision.
    exact = [each.astype(jnp.promote_types(dtype, jnp.float32)) for each in values]
    cut = _cut(exact[0] if len(exact) == 1 else lax.complex(*exact), PIECE // read)
    pieces = lax.optimization_barrier(jnp.sum(cut, 2))
    sums = lax.optimization_barrier(jnp.sum(pieces, 1))
    parts = [sums] if len(exact) == 1 else [sums.real, sums.imag]
    return tuple(part.astype(dtype) for part in parts)


def _cut(x: jax.Array, most: int) -> jax.Array:
    """[B, H, W, C] -> [B, pieces, pixels, C]; a piece is as many rows, of which H is a multiple."""
    batch, height, width, features = x.shape
    most = max(min(most, x.size // BLOCK) // width, 1)
    rows = max(n for n in range(1, height + 1) if height % n == 0 and n <= most)
    return x.reshape(batch, height // rows, rows * width, features)

"""How often XLA goes through an image's pixels. Images are [B, H, W, C].

What it would do by itself is best for a CPU, and was slow on a GPU (docs/speed.md).
"""

from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import lax

Tree = TypeVar("Tree")
Sums = tuple[jax.Array, ...]


def written(values: Tree) -> Tree:
    """The same values; but on a CPU, they are written to memory once, and then read."""
    return lax.platform_dependent(values, cpu=lambda values: values, default=_written)


def pixel_sums(*values: jax.Array) -> Sums:
    """Of each channel of each image, all in one pass.

    Row by row but on a CPU: of small images XLA has a GPU write each value to memory before it sums
    them; and if sums are summed, too, it goes through all pixels once more.

    Args:
      values: [B, H, W, C] each.

    Returns:
      [B, C] each.
    """
    return lax.platform_dependent(*values, cpu=_at_once, default=_by_rows)


def _at_once(*values: jax.Array) -> Sums:
    return tuple(jnp.sum(each, (1, 2)) for each in values)


def _by_rows(*values: jax.Array) -> Sums:
    rows = _written(tuple(jnp.sum(each, 2) for each in values))
    return _written(tuple(jnp.sum(each, 1) for each in rows))


_written = lax.optimization_barrier

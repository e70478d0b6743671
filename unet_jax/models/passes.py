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


def pixel_sums(*values: jax.Array) -> Sums:
    """Of each channel of each image, all in one pass.

    Row by row, except on a CPU: of small images XLA has a GPU write each value to memory before it
    sums them; and if these sums are summed, too, it goes through all pixels once more.

    Args:
      values: [B, H, W, C] each.

    Returns:
      [B, C] each.
    """
    return lax.platform_dependent(*values, cpu=_at_once, default=_by_rows)


def _at_once(*values: jax.Array) -> Sums:
    return tuple(jnp.sum(each, (1, 2)) for each in values)


def _by_rows(*values: jax.Array) -> Sums:
    rows = lax.optimization_barrier(tuple(jnp.sum(each, 2) for each in values))
    return lax.optimization_barrier(tuple(jnp.sum(each, 1) for each in rows))

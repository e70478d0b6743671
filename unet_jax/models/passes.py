"""How often XLA goes through values, an image's pixels above all. Images are [B, H, W, C].

What it would do by itself is best for a CPU, and was slow on a GPU (docs/speed_gpu.md). For a TPU,
where it fuses convolutions with all that is around them, it is left to do so (docs/speed_tpu.md).
"""

from functools import partial
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from unet_jax.models.platforms import by_platform

Tree = TypeVar("Tree")
Sums = tuple[jax.Array, ...]


def written(values: Tree) -> Tree:
    """The same values; on an NVIDIA GPU, they are in memory before they are used.

    XLA would compute them anew, or in another order, within whatever they are used for.
    """
    return by_platform(values, cuda=lax.optimization_barrier, default=lambda values: values)


PIECE = 2**10
"""Pixels that a GPU sums at once, at most, unless a row has more; divided by how many tensors are
read for it."""
SUMS = 2**14
"""Sums of pieces, one for each channel, that there are at least, unless a piece is a single row:
with fewer, some of a GPU's multiprocessors have nothing to do."""


def pixel_sums(one: jax.Array, other: jax.Array | None = None, *, read: int = 1) -> Sums:
    """Of each channel of each image, of one or two of the same type, in one pass.

    On an NVIDIA GPU, some rows at a time: of small images XLA has a GPU write each value to memory
    before it sums them; and if these sums are summed, too, it goes through all pixels once more.

    Args:
      one: [B, H, W, C].
      other: The same, or nothing.
      read: How many tensors of this size they are computed from.

    Returns:
      [B, C] of each.
    """
    values = (one,) if other is None else (one, other)
    by_pieces = partial(_by_pieces, read=read)
    return by_platform(*values, cuda=by_pieces, default=_at_once)


def _at_once(*values: jax.Array) -> Sums:
    return tuple(jnp.sum(each, (1, 2)) for each in values)


def _by_pieces(*values: jax.Array, read: int = 1) -> Sums:
    """Two as the parts of a complex sum.

    For two sums of long pieces, XLA may write to memory what both need.
    """
    dtype = values[0].dtype
    # There are no complex numbers of half precision.
    wide = [each.astype(jnp.promote_types(dtype, jnp.float32)) for each in values]
    cut = _cut(wide[0] if len(wide) == 1 else lax.complex(*wide), PIECE // read)
    pieces = lax.optimization_barrier(jnp.sum(cut, 2))
    sums = lax.optimization_barrier(jnp.sum(pieces, 1))
    parts = [sums] if len(wide) == 1 else [sums.real, sums.imag]
    return tuple(part.astype(dtype) for part in parts)


def _cut(x: jax.Array, most: int) -> jax.Array:
    """[B, H, W, C] -> [B, pieces, pixels, C].

    A piece is the most rows that divide H and have no more than `most` pixels; at least one.
    """
    batch, height, width, features = x.shape
    # Of all devices' images, where one program is for all of them: then each has fewer sums. Of
    # one, where a program is exported for any number of them.
    images = batch if isinstance(batch, int) else 1
    most = max(min(most, images * height * width * features // SUMS) // width, 1)
    rows = max(n for n in range(1, height + 1) if height % n == 0 and n <= most)
    return x.reshape(batch, height // rows, rows * width, features)

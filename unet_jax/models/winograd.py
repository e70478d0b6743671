"""3×3 convolutions with a quarter of the products, by Winograd's F(4×4, 3×3), for a CPU.

A tile of 4×4 pixels of a result is made of 6×6 pixels of the images and the kernel's 3×3. That
takes 36 products instead of 144: the 6×6 pixels become 36 sums of them, so do the kernel's nine,
each is multiplied with its counterpart, and the products become the 16 pixels. For all tiles and
channels it is 36 products of matrices. Both gradients are made of the same stages, or of their
transposes. The sums of pixels are written out, along columns, then along rows; the other stages
are products with a constant matrix, for which XLA has to compile nothing.

It is the same function in exact arithmetic. In float32, errors are several times those of a direct
convolution (docs/speed_cpu.md), and what is not finite makes more of its tile not a number. The
polynomials are evaluated at 0, 1, -1, 1/2, -2 and infinity.

The stages are jitted functions, so that they are traced once for all layers of a shape.

References:
  Winograd, 1980. Arithmetic Complexity of Computations. https://doi.org/10.1137/1.9781611970364
  Lavin and Gray, 2016 (the names of the transforms). https://arxiv.org/abs/1509.09308
  Barabasz et al., 2020 (the points). https://arxiv.org/abs/1803.10986
"""

from collections.abc import Sequence
from functools import partial, reduce
from operator import add

import jax
import jax.numpy as jnp
import numpy as np

Shape = tuple[int, ...]

SIDE, TERMS = 4, 6
"""A tile's pixels, and its sums, in one direction."""
DATA = np.array(
    [
        [1, -1.5, -2, 1.5, 1, 0],
        [0, -1, 0.5, 2.5, 1, 0],
        [0, 1, -2.5, 0.5, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 0.5, -1, -0.5, 1, 0],
        [0, 1, -1.5, -2, 1.5, 1],
    ]
)
FILTER = np.array([[15, 0, 0], [5, 5, 5], [-5, 5, -5], [-16, -8, -4], [1, -2, 4], [0, 0, 15]]) / 15
INVERSE = np.array(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 0.5, -2, 0], [0, 1, 1, 0.25, 4, 0], [0, 1, -1, 0.125, -8, 1]]
)
"""Lavin and Gray's Bᵀ, G and Aᵀ, for one direction."""

FEWEST_CHANNELS = 64
"""With fewer, the sums take what the products save, or nearly so."""
FEWEST_TILES = 16
"""Of all images. A kernel's sums take as many operations as three tiles save, and four times the
kernel's memory, so that a few tiles do not pay."""
MOST_SUMS = 2**27
"""Values of either the images' sums or the products: half a gigabyte."""
FEWEST_CHANNELS_BESIDE_ONEDNN, FEWEST_PRODUCTS = 128, 10**8
"""The latter are pixels × input × output channels. Below, oneDNN's own convolution is as fast."""


def pays(x: Shape, kernel: Shape, stride: int, *, beside_onednn: bool) -> bool:
    """Whether such a convolution is faster by these functions.

    Args:
      x: The images' shape.
      kernel: Its shape.
      stride: In both directions.
      beside_onednn: Whether what it would otherwise be computed by is oneDNN, not XLA.
    """
    batch, height, width, _ = x
    *sides, inputs, outputs = kernel
    if (*sides, stride) != (3, 3, 1) or min(inputs, outputs) < FEWEST_CHANNELS:
        return False
    tiles = batch * _tiles(height) * _tiles(width)
    if not FEWEST_TILES <= tiles <= MOST_SUMS // (TERMS**2 * max(inputs, outputs)):
        return False
    if not beside_onednn:
        return True
    wide = min(inputs, outputs) >= FEWEST_CHANNELS_BESIDE_ONEDNN
    return wide and batch * height * width * inputs * outputs >= FEWEST_PRODUCTS


def forward(
    x: jax.Array,
    kernel: jax.Array,
    bias: jax.Array | None,
    added: jax.Array | None,
    stride: int,
) -> jax.Array:
    """`unet_jax.onednn.forward`, of a 3×3 kernel without a stride."""
    assert stride == 1
    kernels = _filter(_after(x, kernel))
    y = _inverse(jnp.einsum("npi,nio->npo", _data(x), kernels), x.shape[:3])
    y = y if bias is None else y + bias.reshape(1, 1, 1, -1)
    return y if added is None else y + added


def backward_data(g: jax.Array, kernel: jax.Array, shape: Shape, stride: int) -> jax.Array:
    """`unet_jax.onednn.backward_data`: the convolution with the kernel turned around."""
    assert stride == 1
    kernels = _filter(_after(g, kernel)[::-1, ::-1])
    return _inverse(jnp.einsum("npo,nio->npi", _data(g), kernels), shape[:3])


def backward_weights(
    x: jax.Array, g: jax.Array, shape: Shape, stride: int, biased: bool
) -> tuple[jax.Array, jax.Array | None]:
    """`unet_jax.onednn.backward_weights`, of a 3×3 kernel without a stride."""
    assert stride == 1
    products = jnp.einsum("npi,npo->nio", _data(x), _inverse_transposed(g))
    return _filter_transposed(products), g.sum((0, 1, 2)) if biased else None


def _after(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The kernel, no sooner than x.

    XLA would begin with all kernels' sums, which depend on parameters alone, and keep them.
    """
    value = x[0, 0, 0, 0]
    return kernel * jnp.where(jnp.isfinite(value), 0 * value + 1, 1)


@jax.jit
def _data(x: jax.Array) -> jax.Array:
    """[B, H, W, C] -> [36, P, C], P being the number of tiles of all images."""
    return _sums(x, DATA, before=1)


@jax.jit
def _inverse_transposed(g: jax.Array) -> jax.Array:
    """[B, H, W, C] -> [36, P, C]."""
    return _sums(g, INVERSE.T, before=0)


def _sums(x: jax.Array, matrix: np.ndarray, before: int) -> jax.Array:
    """The matrix's sums, along columns and rows, of each tile's pixels and those around it.

    Args:
      x: [B, H, W, C].
      matrix: [6, n]; n pixels in a direction take part.
      before: How many of them lie before the tile.

    Returns:
      [36, P, C].
    """
    batch, height, width, channels = x.shape
    tiles, across = _tiles(height), _tiles(width)
    blocks = [count + (matrix.shape[1] > SIDE) for count in (tiles, across)]
    high, wide = (SIDE * count for count in blocks)
    after = high - before - height, wide - before - width
    x = jnp.pad(x, ((0, 0), (before, after[0]), (before, after[1]), (0, 0)))
    x = x.reshape(batch, blocks[0], SIDE, blocks[1], SIDE, channels)
    places = [divmod(n, SIDE) for n in range(matrix.shape[1])]
    rows = [x[:, block : block + tiles, n] for block, n in places]
    x = jnp.stack(_combined(matrix, rows), axis=2)
    columns = [x[:, :, :, block : block + across, n] for block, n in places]
    x = jnp.stack(_combined(matrix, columns))  # [6 of columns, B, tiles, 6 of rows, across, C]
    return x.transpose(3, 0, 1, 2, 4, 5).reshape(TERMS**2, -1, channels)


def _combined(matrix: np.ndarray, parts: Sequence[jax.Array]) -> list[jax.Array]:
    """For each row of the matrix, the sum of the parts multiplied with its values."""
    matrix = matrix.astype(parts[0].dtype)
    return [
        reduce(add, [n * part for n, part in zip(row, parts, strict=True) if n]) for row in matrix
    ]


@jax.jit
def _filter(kernel: jax.Array) -> jax.Array:
    """[3, 3, I, O] -> [36, I, O]."""
    both = np.kron(FILTER, FILTER).astype(kernel.dtype)
    return jnp.einsum("nk,kio->nio", both, kernel.reshape(9, *kernel.shape[2:]))


@jax.jit
def _filter_transposed(sums: jax.Array) -> jax.Array:
    """[36, I, O] -> [3, 3, I, O]."""
    both = np.kron(FILTER, FILTER).astype(sums.dtype)
    return jnp.einsum("nk,nio->kio", both, sums).reshape(3, 3, *sums.shape[1:])


@partial(jax.jit, static_argnames="shape")
def _inverse(products: jax.Array, shape: Shape) -> jax.Array:
    """[36, P, O] -> [B, H, W, O], of `shape` [B, H, W]."""
    batch, height, width = shape
    tiles, across = _tiles(height), _tiles(width)
    both = np.kron(INVERSE, INVERSE).astype(products.dtype)
    y = jnp.einsum("kn,npo->kpo", both, products)
    y = y.reshape(SIDE, SIDE, batch, tiles, across, -1).transpose(2, 3, 0, 4, 1, 5)
    return y.reshape(batch, SIDE * tiles, SIDE * across, -1)[:, :height, :width]


def _tiles(side: int) -> int:
    return -(-side // SIDE)

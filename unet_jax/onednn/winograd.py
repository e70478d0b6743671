"""3×3 convolutions with half the products, by Winograd's F(4, 3) down the columns.

Of each column, four pixels of a result are what six pixels of the images make with the kernel's
three. That takes six products instead of twelve: the six pixels become six sums of them, so do the
kernel's three, each is multiplied with its counterpart, and the products become the four. Along a
row it stays a convolution, of oneDNN's: of six groups of channels, with a kernel of 1×3 each.

It is the same function in exact arithmetic. In float32, errors are up to twice those of oneDNN's
own convolution (docs/speed_cpu.md), and infinities make more of their column not a number. The
polynomials are evaluated at 0, 1, -1, 1/2, -2 and infinity, with which errors were the smallest.

The sums are jitted functions, so that they are traced once for all layers of a shape.

References:
  Winograd, 1980. Arithmetic Complexity of Computations. https://doi.org/10.1137/1.9781611970364
  Lavin and Gray, 2016 (the names of the transforms). https://arxiv.org/abs/1509.09308
  Barabasz et al., 2020 (the points). https://arxiv.org/abs/1803.10986
"""

from collections.abc import Sequence
from functools import partial, reduce
from math import prod
from operator import add

import jax
import jax.numpy as jnp
import numpy as np

from unet_jax.onednn import calls
from unet_jax.onednn.convolution import Shape
from unet_jax.onednn.stored import one_after, stored

ROWS, TERMS = 4, 6
"""Of a result computed together, and products for each."""
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
"""Lavin and Gray's Bᵀ, G and Aᵀ."""
ONE = 1
"""The term that is the polynomial's value at 1: of the rows of a result's gradient, their sum."""

FEWEST_CHANNELS, FEWEST_PIXELS = 64, 2**10
"""With fewer, the transforms take what the products save, or nearly so."""


def pays(x: Shape, kernel: Shape, stride: int) -> bool:
    """Whether such a convolution is faster by these functions than by `calls`."""
    wide = min(kernel[2:]) >= FEWEST_CHANNELS
    large = prod(x[:3]) >= FEWEST_PIXELS and x[1] >= ROWS
    return kernel[:2] == (3, 3) and stride == 1 and wide and large


def forward(
    x: jax.Array,
    kernel: jax.Array,
    bias: jax.Array | None,
    added: jax.Array | None,
    stride: int = 1,
) -> jax.Array:
    """`calls.forward`, of a 3×3 kernel without a stride."""
    assert stride == 1
    kernels = _filter(kernel * one_after(x))
    products = calls.forward(_data(x), kernels, None, None, stride)
    y = _inverse(products, x.shape[1])
    y = y if bias is None else y + bias.reshape(1, 1, 1, -1)
    return stored(y if added is None else y + added)


def backward_data(g: jax.Array, kernel: jax.Array, shape: Shape, stride: int = 1) -> jax.Array:
    """`calls.backward_data`, of a 3×3 kernel without a stride."""
    assert stride == 1
    products = _inverse_transposed(g)
    sums = (*products.shape[:4], shape[3])
    kernels = _filter(kernel * one_after(g))
    by_sums = calls.backward_data(products, kernels, sums, stride)
    return stored(_data_transposed(by_sums, shape[1]))


def backward_weights(
    x: jax.Array, g: jax.Array, shape: Shape, stride: int, biased: bool
) -> tuple[jax.Array, jax.Array | None]:
    """`calls.backward_weights`, of a 3×3 kernel without a stride."""
    assert stride == 1
    sums = (TERMS, 1, *shape[1:])
    products = _inverse_transposed(g)
    by_sums, by_bias = calls.backward_weights(_data(x), products, sums, stride, biased)
    return _filter_transposed(by_sums), None if by_bias is None else by_bias[ONE]


@jax.jit
def _data(x: jax.Array) -> jax.Array:
    """[B, H, W, C] -> [B, T, W, 6, C], T being ⌈H / 4⌉."""
    batch, height, width, features = x.shape
    tiles = -(-height // ROWS)
    x = jnp.pad(x, ((0, 0), (1, ROWS * (tiles + 1) - 1 - height), (0, 0), (0, 0)))
    x = x.reshape(batch, tiles + 1, ROWS, width, features)
    rows = [x[:, n // ROWS :, n % ROWS][:, :tiles] for n in range(TERMS)]
    return _combined(DATA, rows, axis=3)


@partial(jax.jit, static_argnames="height")
def _data_transposed(sums: jax.Array, height: int) -> jax.Array:
    """[B, T, W, 6, C] -> [B, H, W, C]."""
    # Of the six rows that a tile reads, its neighbours have the first and the last, which only the
    # first and the last of the sums contain.
    first, last = np.eye(ROWS)[:, [0]], np.eye(ROWS)[:, [-1]]
    above = jnp.pad(sums[:, :-1, :, -1], ((0, 0), (1, 0), (0, 0), (0, 0)))
    below = jnp.pad(sums[:, 1:, :, 0], ((0, 0), (0, 1), (0, 0), (0, 0)))
    matrix = np.hstack([DATA[:, 1:-1].T, first, last])
    return _rows(_combined(matrix, [*_terms(sums), above, below], axis=2), height)


@jax.jit
def _filter(kernel: jax.Array) -> jax.Array:
    """[3, 3, I, O] -> [6, 1, 3, I, O]."""
    return _combined(FILTER, list(kernel), axis=0)[:, None]


@jax.jit
def _filter_transposed(sums: jax.Array) -> jax.Array:
    """[6, 1, 3, I, O] -> [3, 3, I, O]."""
    return _combined(FILTER.T, list(sums[:, 0]), axis=0)


@partial(jax.jit, static_argnames="height")
def _inverse(products: jax.Array, height: int) -> jax.Array:
    """[B, T, W, 6, O] -> [B, H, W, O]."""
    return _rows(_combined(INVERSE, _terms(products), axis=2), height)


@jax.jit
def _inverse_transposed(g: jax.Array) -> jax.Array:
    """[B, H, W, O] -> [B, T, W, 6, O]."""
    batch, height, width, features = g.shape
    tiles = -(-height // ROWS)
    g = jnp.pad(g, ((0, 0), (0, ROWS * tiles - height), (0, 0), (0, 0)))
    g = g.reshape(batch, tiles, ROWS, width, features)
    return _combined(INVERSE.T, [g[:, :, n] for n in range(ROWS)], axis=3)


def _terms(x: jax.Array) -> list[jax.Array]:
    """[B, T, W, 6, C] -> six times [B, T, W, C]."""
    return [x[:, :, :, n] for n in range(TERMS)]


def _rows(tiles: jax.Array, height: int) -> jax.Array:
    """[B, T, 4, W, C] -> [B, H, W, C]."""
    batch, _, _, width, features = tiles.shape
    return tiles.reshape(batch, -1, width, features)[:, :height]


def _combined(matrix: np.ndarray, parts: Sequence[jax.Array], axis: int) -> jax.Array:
    """For each row of the matrix, the sum of the parts multiplied with its values.

    As sums of whole arrays, zeros among them, not as sums put together: so XLA goes through all
    parts once, and computes some channels beside each other.

    Args:
      matrix: [m, n].
      parts: n of the same shape.
      axis: Along which the m sums are to lie.
    """
    matrix = matrix.astype(parts[0].dtype)
    shape = np.ones(parts[0].ndim + 1, int)
    shape[axis] = len(matrix)
    weights = [column.reshape(shape) for column in matrix.T]
    wide = [jnp.expand_dims(part, axis) for part in parts]
    return reduce(add, [weight * part for weight, part in zip(weights, wide, strict=True)])

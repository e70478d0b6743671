"""The layers both networks are made of, with PyTorch's defaults. Images are [B, H, W, C]."""

import math
from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.dtypes import promote_dtype
from jax import lax
from jax.typing import ArrayLike

from unet_jax.models.convolution import convolve
from unet_jax.models.platforms import by_platform
from unet_jax.models.transposed import transposed_convolve

UpsampleKind = Literal["transposed", "bilinear"]
SizePolicy = Literal["pad", "resize"]
Initializer = Callable[..., jax.Array]
Dtype = jnp.dtype | type | None
"""What convolutions compute in, and pass on; None: what their input and parameters are of."""


def uniform_fan_in(fan_in: int) -> Initializer:
    """U(-1/√fan_in, 1/√fan_in): PyTorch's default for a convolution's weight and its bias.

    Source: `torch.nn.modules.conv._ConvNd.reset_parameters`, which is He et al. (2015,
    https://arxiv.org/abs/1502.01852) with a = √5.
    """
    bound = 1 / math.sqrt(fan_in)

    def init(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def each_is_asked_for(block: nn.Module) -> bool:
    """Whether each layer's own result is, so that none may do its neighbour's work."""
    return block.is_mutable_collection("intermediates")


class Affine(NamedTuple):
    """What each channel is multiplied with, and what is added to it: [C] each."""

    scale: jax.Array
    shift: jax.Array


class Conv(nn.Module):
    """`torch.nn.Conv2d` with a square kernel and padding k // 2."""

    features: int
    kernel_size: int = 3
    stride: int = 1
    use_bias: bool = True
    dtype: Dtype = None

    @nn.compact
    def __call__(
        self, x: jax.Array, added: jax.Array | None = None, then: Affine | None = None
    ) -> jax.Array:
        """Convolves x; adds something of the result's shape and type, or scales and shifts it.

        Raises:
          ValueError: It is to do both.
        """
        if added is not None and then is not None:
            raise ValueError("the result of a convolution cannot be scaled and added to")
        k, in_features = self.kernel_size, x.shape[-1]
        init = uniform_fan_in(in_features * k * k)
        kernel = self.param("kernel", init, (k, k, in_features, self.features))
        bias = self.param("bias", init, (self.features,)) if self.use_bias else None
        convolved = partial(_convolved, stride=self.stride, dtype=self.dtype)
        if then is None:
            return convolved(x, kernel, bias, added)
        given = x, kernel, bias, then
        return by_platform(
            *given, cpu=partial(_scaled, convolved), default=partial(_folded, convolved)
        )


def _convolved(
    x: jax.Array,
    kernel: jax.Array,
    bias: jax.Array | None,
    added: jax.Array | None = None,
    *,
    stride: int,
    dtype: Dtype,
) -> jax.Array:
    x, kernel, bias = promote_dtype(x, kernel, bias, dtype=dtype)
    return convolve(x, kernel, bias, stride, added)


def _scaled(
    convolved: Callable[..., jax.Array],
    x: jax.Array,
    kernel: jax.Array,
    bias: jax.Array | None,
    then: Affine,
) -> jax.Array:
    """On a CPU, which goes through the result once more in any case, for what follows."""
    y = convolved(x, kernel, bias)
    scale, shift = (each.reshape(1, 1, 1, -1) for each in then)
    return (y.astype(scale.dtype) * scale + shift).astype(y.dtype)


def _folded(
    convolved: Callable[..., jax.Array],
    x: jax.Array,
    kernel: jax.Array,
    bias: jax.Array | None,
    then: Affine,
) -> jax.Array:
    """By the kernel and the bias; on a GPU that is cuDNN's convolution alone, with a ReLU, too."""
    kernel = kernel * then.scale.reshape(1, 1, 1, -1)
    return convolved(x, kernel, then.shift if bias is None else bias * then.scale + then.shift)


class UpConv(nn.Module):
    """`torch.nn.ConvTranspose2d` with a 2×2 kernel and stride 2: doubles height and width."""

    features: int
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        # PyTorch counts a transposed convolution's fan-in on its output side.
        init = uniform_fan_in(self.features * 4)
        kernel = self.param("kernel", init, (2, 2, x.shape[-1], self.features))
        bias = self.param("bias", init, (self.features,))
        return transposed_convolve(*promote_dtype(x, kernel, bias, dtype=self.dtype))


def resize_bilinear(x: jax.Array, size: tuple[int, int], align_corners: bool) -> jax.Array:
    """`torch.nn.functional.interpolate(x, size, mode="bilinear")`; never antialiases.

    In half precision, too, it computes in float32: there, two shares might not add up to 1.
    """
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    rows = _interpolation_matrix(x.shape[1], size[0], align_corners).astype(dtype)
    columns = _interpolation_matrix(x.shape[2], size[1], align_corners).astype(dtype)
    y = jnp.einsum("bhwc,ih->biwc", x.astype(dtype), rows, precision=lax.Precision.HIGHEST)
    y = jnp.einsum("biwc,jw->bijc", y, columns, precision=lax.Precision.HIGHEST)
    return y.astype(x.dtype)


def _interpolation_matrix(n: int, m: int, align_corners: bool) -> np.ndarray:
    """The [m, n] matrix that resamples n values at m places, linearly."""
    low, high, share = interpolation(n, m, align_corners)
    matrix = np.zeros((m, n))
    np.add.at(matrix, (np.arange(m), low), 1 - share)
    np.add.at(matrix, (np.arange(m), high), share)
    return matrix


def interpolation(n: int, m: int, align_corners: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Between which two of n values each of m places lies, and the second one's share: [m] each."""
    if align_corners:
        places = np.arange(m) * ((n - 1) / (m - 1) if m > 1 else 0.0)
    else:
        places = np.clip((np.arange(m) + 0.5) * n / m - 0.5, 0, n - 1)
    low = np.minimum(places.astype(int), n - 1)
    return low, np.minimum(low + 1, n - 1), places - low


def round_up(size: tuple[int, int], levels: int) -> tuple[int, int]:
    """The next height and width that halve `levels` times without a remainder."""
    unit = 2**levels
    return -(-size[0] // unit) * unit, -(-size[1] // unit) * unit


def match_size(x: jax.Array, size: tuple[int, int], policy: SizePolicy) -> jax.Array:
    """Brings x [B, h, w, C] to `size` ≥ (h, w): zeros around it, or bilinear interpolation.

    Of an odd number of rows or columns to pad, the extra one goes to the bottom or right.
    """
    rows, columns = size[0] - x.shape[1], size[1] - x.shape[2]
    if rows == columns == 0:
        return x
    if policy == "resize":
        return resize_bilinear(x, size, align_corners=False)
    top, left = rows // 2, columns // 2
    return jnp.pad(x, ((0, 0), (top, rows - top), (left, columns - left), (0, 0)))


def unmatch_size(x: jax.Array, size: tuple[int, int], policy: SizePolicy) -> jax.Array:
    """Undoes `match_size`: brings x back to `size` by cropping the padding, or by resizing."""
    rows, columns = x.shape[1] - size[0], x.shape[2] - size[1]
    if rows == columns == 0:
        return x
    if policy == "resize":
        return resize_bilinear(x, size, align_corners=False)
    top, left = rows // 2, columns // 2
    return x[:, top : top + size[0], left : left + size[1]]


def check_input(x: ArrayLike, levels: int) -> tuple[int, int]:
    """Returns (height, width) of x [B, H, W, C].

    Raises:
      ValueError: x is not four-dimensional, or a side is shorter than 2 ** levels pixels, which
        would leave nothing at the deepest level.
    """
    shape = jnp.shape(x)
    if len(shape) != 4:
        raise ValueError(f"input has shape {shape}; expected [batch, height, width, channels]")
    if min(shape[1:3]) < 2**levels:
        raise ValueError(
            f"input is {shape[1]}×{shape[2]} pixels; {levels} downsamplings need at least "
            f"{2**levels}×{2**levels}"
        )
    return shape[1], shape[2]

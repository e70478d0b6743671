"""A 2-D convolution that is fast on a CPU, too, as are its gradients. Images are [B, H, W, C].

There, in float32, wide 3×3 ones take a quarter of the products (`winograd.py`), and the others
are oneDNN's where that is installed, but for a kernel of one pixel with a stride. Else, a kernel's
gradient is computed as matrix products (`kernel_products.py`): XLA has it as a convolution with a
window of the whole image, for which its CPU backend has no good code. On a GPU convolutions are
cuDNN's; what follows is kept from being fused with them badly (docs/speed_gpu.md). For XLA, on any
device, a kernel of one pixel without a stride is a matrix product, forward and backward; but one to
a single channel and its gradient are sums where they are not a CPU's.
"""

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from unet_jax import onednn
from unet_jax.models import winograd
from unet_jax.models.kernel_products import kernel_by_products
from unet_jax.models.passes import pixel_sums, written
from unet_jax.models.platforms import Computed, by_platform

FEW = 8
"""Input channels below which a kernel's gradient is faster on a CPU as XLA has it, too."""


def convolve(
    x: jax.Array,
    kernel: jax.Array,
    bias: jax.Array | None = None,
    stride: int = 1,
    added: jax.Array | None = None,
) -> jax.Array:
    """`torch.nn.functional.conv2d` with padding k // 2, where k is the kernel's side.

    It can be differentiated in reverse only.

    Args:
      x: [B, H, W, I].
      kernel: [k, k, I, O], k odd, of the same type.
      bias: [O], of the same type; None: there is none.
      stride: In both directions.
      added: To the result, of its shape and type; None: nothing is.

    Returns:
      [B, ⌈H / stride⌉, ⌈W / stride⌉, O].
    """
    assert bias is None or bias.shape == kernel.shape[-1:]
    assert added is None or added.dtype == x.dtype
    passes = _passes(x, kernel, stride) if _freely.value else None
    return _convolve((x, kernel, bias, added), stride, passes)


_freely = jax.make_user_context(default_value=True)


@contextlib.contextmanager
def xla_alone() -> Iterator[None]:
    """What is traced in here is computed by XLA, and by its definition, on a CPU, too.

    No library is called, so that it can be run where there is none. And if a backward pass is
    traced in here, no loop goes through images, so that they can be divided among devices, and
    products be counted.
    """
    with _freely(False):
        yield


Given = tuple[jax.Array, jax.Array, jax.Array | None, jax.Array | None]
"""x, kernel, bias and what is added, or their gradients."""


class Passes(NamedTuple):
    """What computes a convolution and its gradients in float32 on a CPU."""

    forward: Computed
    backward_data: Computed
    backward_weights: Computed


ONEDNN = Passes(onednn.forward, onednn.backward_data, onednn.backward_weights)
WINOGRAD = Passes(winograd.forward, winograd.backward_data, winograd.backward_weights)


def _passes(x: jax.Array, kernel: jax.Array, stride: int) -> Passes | None:
    """The fastest; None: neither, but XLA's own, or what is in this file."""
    if x.dtype != jnp.float32:
        return None
    # Of 1×1 kernels and a stride, oneDNN 3.2 gets gradients wrong: 3 channels, 8×12, stride 2.
    sound = kernel.shape[0] > 1 or stride == 1
    by_onednn = sound and onednn.available()
    if by_onednn and onednn.has_the_cores():
        return ONEDNN
    if winograd.pays(x.shape, kernel.shape, stride, beside_onednn=by_onednn):
        return WINOGRAD
    return ONEDNN if by_onednn else None


def _whole(given: Given, stride: int, passes: Passes | None) -> jax.Array:
    by_xla = partial(_by_xla, stride=stride)
    if passes is None:
        return by_xla(*given)
    return by_platform(*given, cpu=partial(passes.forward, stride=stride), default=by_xla)


_convolve = jax.custom_vjp(_whole, nondiff_argnums=(1, 2))


def _forward(given: Given, stride: int, passes: Passes | None) -> tuple[jax.Array, Given]:
    return _whole(given, stride, passes), given


def _backward(stride: int, passes: Passes | None, given: Given, g: jax.Array) -> tuple[Given]:
    x, kernel, bias, added = given
    side, inputs = kernel.shape[1:3]
    biased = bias is not None
    by_input = partial(_input_by_convolution, shape=x.shape, stride=stride)
    by_kernel = partial(_kernel_by_convolution, side=side, stride=stride)
    by_weights = partial(_weights, by_kernel=by_kernel, biased=biased)
    exact = x.dtype.itemsize >= 4  # A CPU has no fast products in less.

    input_on_cpu: Computed = by_input
    weights_on_cpu: Computed = by_weights
    if _sums_channels(kernel, stride):
        by_weights = partial(_weights, by_kernel=_kernel_by_sums, biased=biased)
    if passes is not None:
        input_on_cpu = partial(passes.backward_data, shape=x.shape, stride=stride)
        weights_on_cpu = partial(
            passes.backward_weights, shape=kernel.shape, stride=stride, biased=biased
        )
    elif exact:
        if stride > 1:
            input_on_cpu = partial(_input_by_blocks, shape=x.shape, stride=stride)
        # XLA has a kernel of one pixel without a stride as a product already.
        if inputs >= FEW and not side == stride == 1:
            products = partial(kernel_by_products, side=side, stride=stride, banded=_freely.value)
            weights_on_cpu = partial(_weights, by_kernel=products, biased=biased)

    by_x = _choose(input_on_cpu, by_input, g, kernel)
    by_kernel, by_bias = _choose(weights_on_cpu, by_weights, x, g)
    return ((by_x, by_kernel, by_bias, None if added is None else g),)


_convolve.defvjp(_forward, _backward)


def _choose(on_cpu: Computed, elsewhere: Computed, *args: jax.Array) -> Any:
    if on_cpu is elsewhere:
        return elsewhere(*args)
    return by_platform(*args, cpu=on_cpu, default=elsewhere)


def _weights(
    x: jax.Array, g: jax.Array, *, by_kernel: Computed, biased: bool
) -> tuple[jax.Array, jax.Array | None]:
    """The gradients of a kernel and, if there is one, of a bias."""
    if not biased:
        return by_kernel(x, g), None
    [sums] = pixel_sums(g.astype(jnp.promote_types(g.dtype, jnp.float32)))
    return by_kernel(x, g), sums.sum(0).astype(g.dtype)


def _by_xla(
    x: jax.Array,
    kernel: jax.Array,
    bias: jax.Array | None,
    added: jax.Array | None,
    stride: int,
) -> jax.Array:
    plain = partial(_plain, stride=stride)
    y = _choose(plain, _channel_sums if _sums_channels(kernel, stride) else plain, x, kernel)
    y = y if bias is None else y + bias.reshape(1, 1, 1, -1)
    return y if added is None else y + added


def _plain(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """By XLA, on any device."""
    k = kernel.shape[0]
    if k == stride == 1:
        return jnp.einsum("bhwi,io->bhwo", x, kernel[0, 0])
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=[(k // 2, k // 2)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _sums_channels(kernel: jax.Array, stride: int) -> bool:
    """Whether each pixel becomes one number, by itself."""
    return kernel.shape[0] == stride == kernel.shape[-1] == 1


def _channel_sums(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """By a kernel of one pixel and one output channel.

    XLA can fuse it with what computes x, as it cannot a product of matrices.
    """
    wide = jnp.promote_types(x.dtype, jnp.float32)
    products = x.astype(wide) * kernel.astype(wide).reshape(1, 1, 1, -1)
    return jnp.sum(products, -1, keepdims=True).astype(x.dtype)


def _input_by_convolution(
    g: jax.Array, kernel: jax.Array, *, shape: tuple[int, ...], stride: int
) -> jax.Array:
    """The input's gradient as XLA has it."""
    x = jax.ShapeDtypeStruct(shape, g.dtype)
    (by_x,) = jax.linear_transpose(lambda x: _plain(x, kernel, stride), x)(g)
    return by_x


def _kernel_by_convolution(x: jax.Array, g: jax.Array, *, side: int, stride: int) -> jax.Array:
    """The kernel's gradient as XLA has it."""
    kernel = jax.ShapeDtypeStruct((side, side, x.shape[-1], g.shape[-1]), x.dtype)
    (by_kernel,) = jax.linear_transpose(lambda kernel: _plain(x, kernel, stride), kernel)(g)
    # A GPU computes it in another layout than the kernel's. Flattened and written, it is put in the
    # kernel's by a copy of its own; XLA would do so within the optimiser's step, which is slow.
    return written(by_kernel.reshape(-1)).reshape(by_kernel.shape)


def _kernel_by_sums(x: jax.Array, g: jax.Array) -> jax.Array:
    """The gradient of a kernel of one pixel and one output channel.

    It is a sum for the same reason as `_channel_sums`.
    """
    wide = jnp.promote_types(x.dtype, jnp.float32)
    [sums] = pixel_sums(x.astype(wide) * g.astype(wide))
    return sums.sum(0).astype(x.dtype).reshape(1, 1, -1, 1)


def _input_by_blocks(
    g: jax.Array, kernel: jax.Array, *, shape: tuple[int, ...], stride: int
) -> jax.Array:
    """The input's gradient, a block of stride × stride pixels at a time.

    XLA would put zeros between g's pixels, and multiply by them.
    """
    (batch, height, width, inputs), side = shape, kernel.shape[0]
    taps, pad = -(-side // stride), side // 2
    missing = taps * stride - side
    kernel = jnp.pad(kernel, ((0, missing), (0, missing), (0, 0), (0, 0)))
    # Block t of the padded input gets g[t - m] by the taps m * stride, …, for each m.
    kernel = kernel.reshape(taps, stride, taps, stride, inputs, -1)[::-1, :, ::-1]
    kernel = kernel.transpose(0, 2, 5, 1, 3, 4).reshape(taps, taps, -1, stride**2 * inputs)
    g = jnp.pad(g, ((0, 0), (taps - 1, taps - 1), (taps - 1, taps - 1), (0, 0)))
    blocks = lax.conv_general_dilated(
        g,
        kernel,
        window_strides=(1, 1),
        padding="VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    rows, columns = blocks.shape[1:3]
    x = blocks.reshape(batch, rows, columns, stride, stride, inputs).swapaxes(2, 3)
    x = x.reshape(batch, rows * stride, columns * stride, inputs)
    x = jnp.pad(x, ((0, 0), (0, stride), (0, stride), (0, 0)))  # What no window has reached.
    return x[:, pad : pad + height, pad : pad + width]

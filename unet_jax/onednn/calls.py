"""oneDNN's convolutions as functions of JAX arrays."""

from collections.abc import Sequence
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np

from unet_jax.onednn.call_frame import Buffer, address, c_function
from unet_jax.onednn.convolution import Pass, Shape, find

_ORDER: dict[Pass, tuple[int, int, int]] = {
    "forward": (0, 1, 2),
    "backward_data": (2, 1, 0),
    "backward_weights": (0, 2, 1),
}
"""Which of two arguments and a result the images, the kernel and the convolved images are."""


def forward(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """`torch.nn.functional.conv2d` with padding k // 2.

    Args:
      x: float32 [B, H, W, I].
      kernel: float32 [k, k, I, O].
      stride: In both directions.

    Returns:
      float32 [B, ⌈H / stride⌉, ⌈W / stride⌉, O].

    Raises:
      RuntimeError: oneDNN has no code for these shapes (all three functions).
    """
    batch, height, width, _ = x.shape
    shape = (batch, -(-height // stride), -(-width // stride), kernel.shape[-1])
    return _call("forward", x, kernel, shape, stride)


def backward_data(g: jax.Array, kernel: jax.Array, shape: Shape, stride: int) -> jax.Array:
    """The input's gradient [B, H, W, I] = `shape`, g being that of the output."""
    return _call("backward_data", g, kernel, shape, stride)


def backward_weights(x: jax.Array, g: jax.Array, shape: Shape, stride: int) -> jax.Array:
    """The kernel's gradient [k, k, I, O] = `shape`, g being that of the output."""
    return _call("backward_weights", x, g, shape, stride)


def _call(which: Pass, one: jax.Array, other: jax.Array, shape: Shape, stride: int) -> jax.Array:
    shapes = (one.shape, other.shape, shape)
    found = find(which, *(shapes[i] for i in _ORDER[which]), stride)
    result = jax.ShapeDtypeStruct(shape, jnp.float32)
    workspace = jax.ShapeDtypeStruct((found.workspace,), jnp.uint8)
    call = jax.ffi.ffi_call(_register(which), (result, workspace), vmap_method="sequential")
    return call(one, other, stride=np.int64(stride))[0]


_FUNCTIONS = []
"""XLA calls them until the process ends."""


@cache
def _register(which: Pass) -> str:
    """Makes a pass known to XLA; returns the name by which it is."""
    function = c_function(partial(_run, which))
    _FUNCTIONS.append(function)
    name = f"unet_jax_onednn_{which}"
    jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(address(function)), platform="cpu")
    return name


def _run(which: Pass, arguments: Sequence[Buffer], results: Sequence[Buffer], stride: int) -> None:
    result, workspace = results
    buffers = (*arguments, result)
    x, kernel, y = (buffers[i] for i in _ORDER[which])
    found = find(which, x.shape, kernel.shape, y.shape, stride)
    found.run(x.address, kernel.address, y.address, workspace.address)

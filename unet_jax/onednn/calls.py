"""oneDNN's convolutions as functions of JAX arrays."""

from collections.abc import Sequence
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np

from unet_jax.onednn.call_frame import Buffer, address, c_function
from unet_jax.onednn.convolution import Pass, Shape, Shapes, find

_ORDER: dict[Pass, tuple[int, ...]] = {
    "forward": (0, 1, -1, 2),
    "backward_data": (2, 1, 0),
    "backward_weights": (0, 2, 1, 3),
}
"""Which of all arguments and results x, kernel, y and bias, or their gradients, are; y, the forward
pass' only result, is the last with a bias and without."""


def forward(x: jax.Array, kernel: jax.Array, bias: jax.Array | None, stride: int) -> jax.Array:
    """`torch.nn.functional.conv2d` with padding k // 2.

    Args:
      x: float32 [B, H, W, I].
      kernel: float32 [k, k, I, O].
      bias: float32 [O]; None: there is none.
      stride: In both directions.

    Returns:
      float32 [B, ⌈H / stride⌉, ⌈W / stride⌉, O].

    Raises:
      RuntimeError: oneDNN has no code for these shapes (all three functions).
    """
    batch, height, width, _ = x.shape
    shape = (batch, -(-height // stride), -(-width // stride), kernel.shape[-1])
    given = (x, kernel) if bias is None else (x, kernel, bias)
    return _call("forward", given, [shape], stride)[0]


def backward_data(g: jax.Array, kernel: jax.Array, shape: Shape, stride: int) -> jax.Array:
    """The input's gradient [B, H, W, I] = `shape`, g being that of the output."""
    return _call("backward_data", (g, kernel), [shape], stride)[0]


def backward_weights(
    x: jax.Array, g: jax.Array, shape: Shape, stride: int, biased: bool
) -> tuple[jax.Array, jax.Array | None]:
    """The gradients of kernel [k, k, I, O] = `shape` and bias [O], g being that of the output."""
    if biased:
        kernel, bias = _call("backward_weights", (x, g), [shape, shape[-1:]], stride)
        return kernel, bias
    return _call("backward_weights", (x, g), [shape], stride)[0], None


def _call(
    which: Pass, given: Sequence[jax.Array], shapes: Sequence[Shape], stride: int
) -> Sequence[jax.Array]:
    """What the pass makes of what is given, of these shapes."""
    found = find(which, _shapes(which, [each.shape for each in given] + list(shapes), stride))
    results = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    workspace = jax.ShapeDtypeStruct((found.workspace,), jnp.uint8)
    call = jax.ffi.ffi_call(_register(which), (*results, workspace), vmap_method="sequential")
    return call(*given, stride=np.int64(stride))[:-1]


def _shapes(which: Pass, shapes: Sequence[Shape], stride: int) -> Shapes:
    """By role, given those of all arguments and results."""
    x, kernel, y = (shapes[i] for i in _ORDER[which][:3])
    return Shapes(x, kernel, y, stride, biased=len(shapes) > 3)


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
    *results, workspace = results
    buffers = [*arguments, *results]
    found = find(which, _shapes(which, [each.shape for each in buffers], stride))
    order = _ORDER[which][: len(buffers)]
    found.run([buffers[i].address for i in order], workspace.address)

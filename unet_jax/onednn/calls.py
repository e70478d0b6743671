"""oneDNN's convolutions as functions of JAX arrays."""

from collections.abc import Sequence
from functools import cache
from threading import Lock

import jax
import jax.numpy as jnp

from unet_jax.onednn.call_frame import address, c_function
from unet_jax.onednn.convolution import Pass, Shape, Shapes, find


def forward(
    x: jax.Array,
    kernel: jax.Array,
    bias: jax.Array | None,
    added: jax.Array | None,
    stride: int,
) -> jax.Array:
    """`torch.nn.functional.conv2d` with padding k // 2, and something added to it.

    Args:
      x: float32 [B, H, W, I].
      kernel: float32 [k, k, I, O], k odd.
      bias: float32 [O]; None: there is none.
      added: float32, of the result's shape; None: nothing is.
      stride: In both directions.

    Returns:
      float32 [B, ⌈H / stride⌉, ⌈W / stride⌉, O].

    Raises:
      RuntimeError: oneDNN has no code for these shapes (all three functions).
      ValueError: Bias or what is added has another shape, or anything another type (the latter in
        all three), so that oneDNN would read beyond it.
    """
    batch, height, width, _ = x.shape
    shape = (batch, -(-height // stride), -(-width // stride), kernel.shape[-1])
    for name, each, right in (("bias", bias, shape[-1:]), ("added", added, shape)):
        if each is not None and each.shape != right:
            raise ValueError(f"{name} has shape {each.shape}; expected {right}")
    shapes = Shapes(x.shape, kernel.shape, shape, stride, bias is not None, added is not None)
    given = [each for each in (x, kernel, bias, added) if each is not None]
    return _call("forward", shapes, given, [shape])[0]


def backward_data(g: jax.Array, kernel: jax.Array, shape: Shape, stride: int) -> jax.Array:
    """The input's gradient [B, H, W, I] = `shape`, g being that of the output."""
    shapes = Shapes(shape, kernel.shape, g.shape, stride)
    return _call("backward_data", shapes, (g, kernel), [shape])[0]


def backward_weights(
    x: jax.Array, g: jax.Array, shape: Shape, stride: int, biased: bool
) -> tuple[jax.Array, jax.Array | None]:
    """The gradients of kernel [k, k, I, O] = `shape` and bias [O], g being that of the output."""
    shapes = Shapes(x.shape, shape, g.shape, stride, biased)
    if biased:
        kernel, bias = _call("backward_weights", shapes, (x, g), [shape, shape[-1:]])
        return kernel, bias
    return _call("backward_weights", shapes, (x, g), [shape])[0], None


def _call(
    which: Pass, shapes: Shapes, given: Sequence[jax.Array], made: Sequence[Shape]
) -> Sequence[jax.Array]:
    """What the pass makes of what is given."""
    for each in given:
        if each.dtype != jnp.float32:
            raise ValueError(f"oneDNN is given {each.dtype}; expected float32")
    results = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in made]
    workspace = jax.ShapeDtypeStruct((find(which, shapes).workspace,), jnp.uint8)
    call = jax.ffi.ffi_call(
        _register(which, shapes), (*results, workspace), vmap_method="sequential"
    )
    return call(*given)[:-1]


def _order(which: Pass, shapes: Shapes) -> tuple[int, ...]:
    """Which of all arguments and results are x, kernel, y, and bias and what is added if there are;
    or their gradients."""
    further = shapes.biased + shapes.added
    if which == "forward":
        return (0, 1, 2 + further, *range(2, 2 + further))
    first = (2, 1, 0) if which == "backward_data" else (0, 2, 1)
    return (*first, *range(3, 3 + further))


_FUNCTIONS = []
"""XLA calls them until the process ends."""
_ONE_AT_A_TIME = Lock()
"""XLA refuses a second function of the same name, which another thread could come with."""


def _register(which: Pass, shapes: Shapes) -> str:
    """The name by which XLA knows a pass over these shapes."""
    with _ONE_AT_A_TIME:
        return _registered(which, shapes)


@cache
def _registered(which: Pass, shapes: Shapes) -> str:
    """Makes it known to XLA.

    A function of its own for each has the least to find out when it is called.
    """
    found, order = find(which, shapes), _order(which, shapes)

    def run(addresses: list[int]) -> None:
        *addresses, workspace = addresses
        found.run([addresses[i] for i in order], workspace)

    function = c_function(run)
    _FUNCTIONS.append(function)
    sizes = "_".join("x".join(map(str, shape)) for shape in shapes[:3])
    further = "_biased" * shapes.biased + "_added" * shapes.added
    name = f"unet_jax_onednn_{which}_{sizes}_stride_{shapes.stride}{further}"
    jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(address(function)), platform="cpu")
    return name

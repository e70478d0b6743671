"""oneDNN's convolutions as functions of JAX arrays."""

from collections.abc import Sequence
from functools import cache
from threading import Lock

import jax
import jax.numpy as jnp

from unet_jax.onednn.call_frame import address, c_function
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
    all_shapes = [*(each.shape for each in given), *shapes]
    order = _ORDER[which][: len(all_shapes)]
    x, kernel, y = (all_shapes[i] for i in order[:3])
    by_role = Shapes(x, kernel, y, stride, biased=len(all_shapes) > 3)
    results = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    workspace = jax.ShapeDtypeStruct((find(which, by_role).workspace,), jnp.uint8)
    call = jax.ffi.ffi_call(
        _register(which, by_role), (*results, workspace), vmap_method="sequential"
    )
    return call(*given)[:-1]


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
    found, order = find(which, shapes), _ORDER[which][: 4 if shapes.biased else 3]

    def run(addresses: list[int]) -> None:
        *addresses, workspace = addresses
        found.run([addresses[i] for i in order], workspace)

    function = c_function(run)
    _FUNCTIONS.append(function)
    sizes = "_".join("x".join(map(str, shape)) for shape in shapes[:3])
    name = f"unet_jax_onednn_{which}_{sizes}_stride_{shapes.stride}{'_biased' * shapes.biased}"
    jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(address(function)), platform="cpu")
    return name

"""One convolution of oneDNN's, forward or backward, of one shape."""

from functools import cache
from threading import Lock
from typing import Literal

from unet_jax.onednn.library import ANY, HWIO, NHWC, Handle, Library, dimensions, load
from unet_jax.onednn.step import Step

Shape = tuple[int, ...]
Pass = Literal["forward", "backward_data", "backward_weights"]

FORWARD_TRAINING, DIRECT = 64, 1
FROM, TO = 1, 17
ROLES: dict[Pass, tuple[int, int, int]] = {
    "forward": (1, 33, 17),
    "backward_data": (129, 33, 145),
    "backward_weights": (1, 161, 145),
}
"""What images, kernel and convolved images are to the primitive: DNNL_ARG_SRC and so on."""
WEIGHTS: dict[Pass, int] = {"forward": 131, "backward_data": 131, "backward_weights": 132}
"""The number by which its kernel's layout is asked for."""
ALIGNED = 64
"""Bytes at whose multiples memory begins."""

_ONE_AT_A_TIME = Lock()
"""Each runs on all cores, and points shared memory objects at its own values."""


class Convolution:
    """`torch.nn.functional.conv2d` with padding k // 2, or one of its gradients.

    Attributes:
      workspace: Bytes that it needs beside its arguments and its result.
    """

    def __init__(
        self, library: Library, which: Pass, x: Shape, kernel: Shape, y: Shape, stride: int
    ) -> None:
        """Args:
        library: oneDNN.
        which: What is computed of the other two.
        x: [B, H, W, I].
        kernel: [k, k, I, O].
        y: [B, ⌈H / stride⌉, ⌈W / stride⌉, O].
        stride: In both directions.

        Raises:
          RuntimeError: oneDNN has no code for these shapes.
        """
        side, _, inputs, outputs = kernel
        # oneDNN names axes in PyTorch's order, however they lie in memory.
        images = library.describe((x[0], inputs, x[1], x[2]), NHWC)
        ours = library.describe((outputs, inputs, side, side), HWIO)
        fastest = library.describe((outputs, inputs, side, side), ANY)
        results = library.describe((y[0], outputs, y[1], y[2]), NHWC)
        window = _window(side, stride)
        description = _describe(library, which, (images, fastest, results), window)

        theirs = library.described(description, WEIGHTS[which])
        x_role, kernel_role, y_role = ROLES[which]
        self._library = library
        self._x, self._kernel, self._y = map(library.memory, (images, ours, results))
        reorders = not library.equal(theirs, ours)
        self._reordered = library.memory(theirs) if reorders else None
        used = self._reordered or self._kernel
        roles = ((x_role, self._x), (kernel_role, used), (y_role, self._y))
        self._steps = [Step(library, description, *roles)]
        if self._reordered:
            kernels = [(ours, self._kernel), (theirs, self._reordered)]
            learning = which == "backward_weights"
            reorder = _reorder(library, *(kernels[::-1] if learning else kernels))
            self._steps.insert(1 if learning else 0, reorder)
        self._reordered_at = _aligned(max(step.workspace for step in self._steps))
        self.workspace = self._reordered_at + (library.size(theirs) if reorders else 0)

    def run(self, x: int, kernel: int, y: int, workspace: int) -> None:
        """Computes one from the other two; each is the address of its float32 values."""
        with _ONE_AT_A_TIME:
            self._library.point(self._x, x)
            self._library.point(self._kernel, kernel)
            self._library.point(self._y, y)
            if self._reordered:
                self._library.point(self._reordered, workspace + self._reordered_at)
            for step in self._steps:
                step.run(workspace)


def _window(side: int, stride: int) -> tuple:
    """Strides, dilations (0 being none), and the padding before and after."""
    padding = side // 2
    return tuple(dimensions(n, n) for n in (stride, 0, padding, padding))


def _describe(library: Library, which: Pass, layouts: tuple, window: tuple) -> Handle:
    """The primitive's descriptor; a gradient's wants that of the forward pass, too."""
    images, kernel, results = layouts
    make, end = library.make, (library.attributes,)
    with_bias = (images, kernel, None, results, *window)
    forward = make(
        "convolution_forward_primitive_desc_create",
        library.engine,
        FORWARD_TRAINING,
        DIRECT,
        *with_bias,
        *end,
    )
    if which == "forward":
        return forward
    shapes = with_bias if which == "backward_weights" else (*layouts, *window)
    function = f"convolution_{which}_primitive_desc_create"
    return make(function, library.engine, DIRECT, *shapes, forward, *end)


def _reorder(library: Library, source: tuple[Handle, Handle], to: tuple[Handle, Handle]) -> Step:
    """Copies one memory object into another; both come with their layout."""
    engine, attributes = library.engine, library.attributes
    function = "reorder_primitive_desc_create"
    description = library.make(function, source[0], engine, to[0], engine, attributes)
    return Step(library, description, (FROM, source[1]), (TO, to[1]))


def _aligned(size: int) -> int:
    return -(-size // ALIGNED) * ALIGNED


@cache
def find(which: Pass, x: Shape, kernel: Shape, y: Shape, stride: int) -> Convolution:
    """The one of these shapes, as the constructor has them.

    Raises:
      RuntimeError: oneDNN has no code for them, or is not there.
    """
    library = load()
    if library is None:
        raise RuntimeError("oneDNN is not there")
    return Convolution(library, which, x, kernel, y, stride)

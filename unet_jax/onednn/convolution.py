"""One convolution of oneDNN's, forward or backward, of one shape."""

from collections.abc import Sequence
from functools import cache
from threading import Lock
from typing import Literal, NamedTuple

from unet_jax.onednn.library import ANY, HWIO, NHWC, VECTOR, Handle, Library, dimensions, load
from unet_jax.onednn.reordering import Reordering
from unet_jax.onednn.step import Step

Shape = tuple[int, ...]
Pass = Literal["forward", "backward_data", "backward_weights"]

FORWARD_TRAINING, DIRECT = 64, 1
ROLES: dict[Pass, tuple[int, ...]] = {
    "forward": (1, 33, 17),
    "backward_data": (129, 33, 145),
    "backward_weights": (1, 161, 145),
}
"""What images, kernel and convolved images are to the primitive: DNNL_ARG_SRC and so on."""
BIAS: dict[Pass, int] = {"forward": 41, "backward_weights": 169}
ADDED = 32768 | 2
"""The second argument of the first operation after the primitive's own."""
WEIGHTS: dict[Pass, int] = {"forward": 131, "backward_data": 131, "backward_weights": 132}
"""The number by which its kernel's layout is asked for."""
ALIGNED = 64
"""Bytes at whose multiples memory begins."""

_ONE_AT_A_TIME = Lock()
"""Each runs on all cores, and points shared memory objects at its own values."""


class Shapes(NamedTuple):
    """Of a convolution.

    Attributes:
      x: [B, H, W, I].
      kernel: [k, k, I, O].
      y: [B, ⌈H / stride⌉, ⌈W / stride⌉, O].
      stride: In both directions.
      biased: Whether y has a bias of its own for each channel.
      added: Whether something of y's shape is added to it; in the forward pass alone.
    """

    x: Shape
    kernel: Shape
    y: Shape
    stride: int
    biased: bool = False
    added: bool = False


class Convolution:
    """`torch.nn.functional.conv2d` with padding k // 2, or one of its gradients.

    Attributes:
      workspace: Bytes that it needs beside its arguments and its result.
    """

    def __init__(self, library: Library, which: Pass, shapes: Shapes) -> None:
        """Args:
        library: oneDNN.
        which: What is computed: y, or the gradient of x, or those of kernel and bias.
        shapes: Of all of them.

        Raises:
          RuntimeError: oneDNN has no code for these shapes.
        """
        x, kernel, y, stride, biased, added = shapes
        side, _, inputs, outputs = kernel
        # oneDNN names axes in PyTorch's order, however they lie in memory.
        images = library.describe((x[0], inputs, x[1], x[2]), NHWC)
        ours = library.describe((outputs, inputs, side, side), HWIO)
        fastest = library.describe((outputs, inputs, side, side), ANY)
        results = library.describe((y[0], outputs, y[1], y[2]), NHWC)
        bias = [library.describe((outputs,), VECTOR)] if biased else []
        layouts = (images, fastest, *(bias or [None]), results)
        attributes = library.adding(results) if added else library.attributes
        description = _describe(library, which, layouts, _window(side, stride), attributes)

        theirs = library.described(description, WEIGHTS[which])
        self._library = library
        further = [*bias, *([results] if added else [])]
        self._memories = [library.memory(each) for each in (images, ours, results, *further)]
        learning = which == "backward_weights"
        self._reordering = None
        if not library.equal(theirs, ours):
            self._reordering = Reordering(library, kernel, (ours, theirs), back=learning)
        used = list(self._memories)
        if self._reordering:
            used[1] = self._reordering.there
        roles = [*ROLES[which], *([BIAS[which]] if biased else []), *([ADDED] if added else [])]
        self._steps = [Step(library, description, *zip(roles, used, strict=True))]
        if self._reordering:
            steps = self._reordering.steps
            self._steps = [*self._steps, *steps] if learning else [*steps, *self._steps]
        self._reordered_at = _aligned(max(step.workspace for step in self._steps))
        self.workspace = self._reordered_at + (library.size(theirs) if self._reordering else 0)
        self._places: tuple[int, ...] = ()

    def run(self, addresses: Sequence[int], workspace: int) -> None:
        """Computes one from the others.

        Args:
          addresses: Of the float32 values of x, kernel, y, the bias, and what is added, the last
            two if there are.
          workspace: Address of as many bytes as it needs.
        """
        places = (*addresses, workspace)
        with _ONE_AT_A_TIME:
            if places != self._places:  # Mostly, they are those of the step before.
                self._places = ()
                self._point(addresses, workspace)
                self._places = places
            for step in self._steps:
                step.run()

    def _point(self, addresses: Sequence[int], workspace: int) -> None:
        for memory, address in zip(self._memories, addresses, strict=True):
            self._library.point(memory, address)
        if self._reordering:
            self._reordering.point(addresses[1], workspace + self._reordered_at)
        for step in self._steps:
            step.point(workspace)


def _window(side: int, stride: int) -> tuple:
    """Strides, dilations (0 being none), and the padding before and after."""
    padding = side // 2
    return tuple(dimensions(n, n) for n in (stride, 0, padding, padding))


def _describe(
    library: Library, which: Pass, layouts: tuple, window: tuple, attributes: Handle
) -> Handle:
    """The primitive's descriptor; a gradient's wants that of the forward pass, too."""
    images, kernel, _, results = layouts
    make, end = library.make, (attributes,)
    forward = make(
        "convolution_forward_primitive_desc_create",
        library.engine,
        FORWARD_TRAINING,
        DIRECT,
        *layouts,
        *window,
        *end,
    )
    if which == "forward":
        return forward
    shapes = layouts if which == "backward_weights" else (images, kernel, results)
    function = f"convolution_{which}_primitive_desc_create"
    return make(function, library.engine, DIRECT, *shapes, *window, forward, *end)


def _aligned(size: int) -> int:
    return -(-size // ALIGNED) * ALIGNED


@cache
def find(which: Pass, shapes: Shapes) -> Convolution:
    """The one of these shapes.

    Raises:
      RuntimeError: oneDNN has no code for them, or is not there.
    """
    library = load()
    if library is None:
        raise RuntimeError("oneDNN is not there")
    return Convolution(library, which, shapes)

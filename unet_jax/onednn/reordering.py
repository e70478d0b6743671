"""A kernel put into the layout that oneDNN computes with, or out of it."""

from unet_jax.onednn.library import Handle, Library
from unet_jax.onednn.step import Step

FROM, TO = 1, 17
"""What the two are to the primitive: DNNL_ARG_FROM and DNNL_ARG_TO."""
PIECE = 128
"""Input channels that are copied at once: over more of them together, oneDNN 3.2 takes two to three
times as long in the forward pass (docs/speed_cpu.md)."""

Layouts = tuple[Handle, Handle]
"""The descriptors of a kernel as it is here and as it is there."""


class Reordering:
    """Attributes:
    there: The kernel's memory object in oneDNN's layout.
    steps: What is run, one after another.
    """

    def __init__(
        self, library: Library, kernel: tuple[int, ...], layouts: Layouts, back: bool
    ) -> None:
        """Args:
        library: oneDNN.
        kernel: The shape [k, k, I, O].
        layouts: Of such a kernel.
        back: Whether it is there, and is wanted here.
        """
        self._library = library
        self.there = library.memory(layouts[1])
        self._pieces: list[tuple[Handle, Handle]] = []
        self.steps: list[Step] = []
        for ours, theirs in [layouts] if back else _cut(library, kernel, layouts):
            here, there = library.memory(ours), library.memory(theirs)
            self._pieces.append((here, there))
            ends = [(ours, here), (theirs, there)]
            self.steps.append(_copy(library, *(ends[::-1] if back else ends)))

    def point(self, here: int, there: int) -> None:
        """Args:
        here, there: Addresses of the kernel in its two layouts.
        """
        self._library.point(self.there, there)
        for one, other in self._pieces:
            self._library.point(one, here)
            self._library.point(other, there)


def _cut(library: Library, kernel: tuple[int, ...], layouts: Layouts) -> list[Layouts]:
    """Descriptors of the pieces; of the whole if it does not divide into such, if its copy is fast
    (a kernel of one pixel), or if the library's own layout cannot be cut there."""
    side, _, inputs, outputs = kernel
    if side == 1 or inputs % PIECE:
        return [layouts]
    shape = (outputs, PIECE, side, side)
    places = [(0, first, 0, 0) for first in range(0, inputs, PIECE)]
    try:
        return [
            (library.part(layouts[0], shape, place), library.part(layouts[1], shape, place))
            for place in places
        ]
    except RuntimeError:
        return [layouts]


def _copy(library: Library, source: tuple[Handle, Handle], to: tuple[Handle, Handle]) -> Step:
    """Copies one memory object into another; both come with their layout."""
    engine, attributes = library.engine, library.attributes
    function = "reorder_primitive_desc_create"
    description = library.make(function, source[0], engine, to[0], engine, attributes)
    return Step(library, description, (FROM, source[1]), (TO, to[1]))

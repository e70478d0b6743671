"""One primitive of oneDNN's with what it reads and writes."""

from unet_jax.onednn.library import Argument, Handle, Library

SCRATCHPAD, SCRATCHPAD_MD = 80, 136


class Step:
    """Attributes:
    workspace: Bytes that it needs beside its arguments.
    """

    def __init__(self, library: Library, description: Handle, *roles: tuple[int, Handle]) -> None:
        """Args:
        library: oneDNN.
        description: The primitive's descriptor.
        roles: Of each argument, what it is to the primitive, and its memory object.
        """
        self._library = library
        scratchpad = library.described(description, SCRATCHPAD_MD)
        self.workspace = library.size(scratchpad)
        self._scratchpad = library.memory(scratchpad)
        pairs = [*roles, (SCRATCHPAD, self._scratchpad)]
        self._arguments = (Argument * len(pairs))(*(Argument(*pair) for pair in pairs))
        self._primitive = library.make("primitive_create", description)

    def point(self, workspace: int) -> None:
        """Args:
        workspace: Address of as many bytes as it needs.
        """
        self._library.point(self._scratchpad, workspace)

    def run(self) -> None:
        self._library.execute(self._primitive, self._arguments)

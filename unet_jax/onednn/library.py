"""oneDNN's C interface (https://uxlfoundation.github.io/oneDNN, version 3)."""

import ctypes
import os
from ctypes import Structure, byref, c_int, c_int64, c_size_t, c_void_p
from functools import cache
from importlib.metadata import PackageNotFoundError, files

from unet_jax.onednn.threads import keep_awake

PACKAGE, FILE = "onednn-cpu-gomp", "libdnnl.so.3"
SWITCH = "UNET_JAX_ONEDNN"
"""The environment's variable that is 0 where XLA is to compute every convolution itself."""

Handle = c_void_p
SUCCESS, FLOAT32, CPU, IN_ORDER = 0, 3, 1, 1
ANY, VECTOR, NHWC, HWIO = 1, 2, 22, 28
"""Layouts: the library's choice; one axis; images by pixel; kernels as they are here."""
ALLOCATED_BY_CALLER = 1
"""Scratchpad mode: the library keeps no memory of its own, which another thread could not use."""
ADD = 0x1FFF0
"""The algorithm dnnl_binary_add."""

_MOST_DIMENSIONS = 12


class Argument(Structure):
    """What a primitive reads or writes, and as what."""

    _fields_ = [("role", c_int), ("memory", Handle)]


class Library:
    """The loaded library, with an engine and a stream, both of the CPU.

    What it makes lives as long as the process: there is one of each shape.
    """

    def __init__(self, path: str) -> None:
        """Args:
        path: Of the shared library.

        Raises:
          OSError: It cannot be loaded, or a library that it needs.
          RuntimeError: It does not work on this CPU.
        """
        # Short calls keep Python's lock; the long one lets go of it.
        self._short, self._long = ctypes.PyDLL(path), ctypes.CDLL(path)
        self._short.dnnl_primitive_desc_query_md.restype = Handle
        self._short.dnnl_memory_desc_get_size.restype = c_size_t
        self.engine = self.make("engine_create", CPU, c_size_t(0))
        self._stream = self.make("stream_create", self.engine, IN_ORDER)
        self.attributes = self._attributes()

    def do(self, function: str, *args: object) -> None:
        """Calls `dnnl_<function>`.

        Raises:
          RuntimeError: It fails; oneDNN has no code for some shapes.
        """
        _check(function, getattr(self._short, f"dnnl_{function}")(*args))

    def make(self, function: str, *args: object) -> Handle:
        """What `dnnl_<function>` puts where its first argument points."""
        handle = Handle()
        self.do(function, byref(handle), *args)
        return handle

    def adding(self, descriptor: Handle) -> Handle:
        """Attributes of a primitive that adds values laid out like this to its result."""
        attributes, further = self._attributes(), self.make("post_ops_create")
        self.do("post_ops_append_binary", further, ADD, descriptor)
        self.do("primitive_attr_set_post_ops", attributes, further)
        return attributes

    def _attributes(self) -> Handle:
        attributes = self.make("primitive_attr_create")
        self.do("primitive_attr_set_scratchpad_mode", attributes, ALLOCATED_BY_CALLER)
        return attributes

    def describe(self, shape: tuple[int, ...], layout: int) -> Handle:
        """The descriptor of float32 values of this shape, in oneDNN's order of axes."""
        return self.make(
            "memory_desc_create_with_tag", len(shape), dimensions(*shape), FLOAT32, layout
        )

    def part(self, descriptor: Handle, shape: tuple[int, ...], offset: tuple[int, ...]) -> Handle:
        """The descriptor of a part of what this one describes, at the whole's address.

        Raises:
          RuntimeError: The layout cannot be cut there.
        """
        function, sizes = "memory_desc_create_submemory", (dimensions(*shape), dimensions(*offset))
        return self.make(function, descriptor, *sizes)

    def memory(self, descriptor: Handle) -> Handle:
        """An object that can be pointed at values laid out like this."""
        return self.make("memory_create", descriptor, self.engine, None)

    def described(self, primitive: Handle, which: int) -> Handle:
        """The descriptor that a primitive's has of one of its arguments."""
        return Handle(self._short.dnnl_primitive_desc_query_md(primitive, which, 0))

    def size(self, descriptor: Handle) -> int:
        """Bytes."""
        return self._short.dnnl_memory_desc_get_size(descriptor)

    def equal(self, one: Handle, other: Handle) -> bool:
        return bool(self._short.dnnl_memory_desc_equal(one, other))

    def point(self, memory: Handle, address: int | None) -> None:
        """Has a memory object stand for the values at this address."""
        self.do("memory_set_data_handle", memory, Handle(address))

    def execute(self, primitive: Handle, arguments: "ctypes.Array[Argument]") -> None:
        """Runs a primitive, on all cores; other threads of Python's go on meanwhile."""
        run = self._long.dnnl_primitive_execute
        _check("primitive_execute", run(primitive, self._stream, len(arguments), arguments))


def dimensions(*sizes: int) -> "ctypes.Array[c_int64]":
    return (c_int64 * _MOST_DIMENSIONS)(*sizes)


def _check(function: str, status: int) -> None:
    if status != SUCCESS:
        raise RuntimeError(f"oneDNN's dnnl_{function} failed with status {status}")


@cache
def load() -> Library | None:
    """The library; None where it is not installed, not wanted, or does not work."""
    if os.environ.get(SWITCH) == "0":
        return None
    try:
        [path] = [file for file in files(PACKAGE) or () if file.name == FILE]
        keep_awake()
        return Library(str(path.locate()))
    except (PackageNotFoundError, ValueError, OSError, RuntimeError):
        return None


def available() -> bool:
    """Whether there is a library to call."""
    return load() is not None

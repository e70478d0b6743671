"""What XLA hands to a function that it calls: `xla/ffi/api/c_api.h`, version 0.1 and later.

Newer versions add fields at the end of these structures, and nothing before.
"""

import threading
from collections.abc import Callable
from ctypes import (
    CFUNCTYPE,
    POINTER,
    Structure,
    byref,
    c_char_p,
    c_int,
    c_int64,
    c_size_t,
    c_uint32,
    c_void_p,
    cast,
    pythonapi,
    sizeof,
)

EXECUTE, METADATA, INTERNAL_ERROR = 3, 1, 13
"""XLA_FFI_ExecutionStage_EXECUTE, XLA_FFI_Extension_Metadata and XLA_FFI_Error_Code_INTERNAL."""
VERSION = 0, 1
"""XLA_FFI_API_MAJOR and XLA_FFI_API_MINOR."""


class _Head(Structure):
    _fields_ = [("struct_size", c_size_t), ("extension_start", c_void_p)]


class _Version(_Head):
    _fields_ = [("major", c_int), ("minor", c_int)]


class _Metadata(Structure):
    _fields_ = [("struct_size", c_size_t), ("api_version", _Version), ("traits", c_uint32)]


class _Extension(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("type", c_int),
        ("next", c_void_p),
        ("metadata", POINTER(_Metadata)),
    ]


class _ErrorCreate(_Head):
    _fields_ = [("message", c_char_p), ("code", c_int)]


class _Api(_Head):
    _fields_ = [
        ("api_version", _Version),
        ("internal_api", c_void_p),
        ("error_create", CFUNCTYPE(c_void_p, POINTER(_ErrorCreate))),
    ]


class _Buffer(_Head):
    _fields_ = [("dtype", c_int), ("data", c_void_p), ("rank", c_int64), ("dims", c_void_p)]


class _Buffers(_Head):
    """XLA_FFI_Args or XLA_FFI_Rets, which are laid out alike."""

    _fields_ = [("size", c_int64), ("types", c_void_p), ("items", POINTER(POINTER(_Buffer)))]


class _CallFrame(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("extension_start", POINTER(_Extension)),
        ("api", POINTER(_Api)),
        ("context", c_void_p),
        ("stage", c_int),
        ("arguments", _Buffers),
        ("results", _Buffers),
    ]


Handler = Callable[[list[int]], None]
C_FUNCTION = CFUNCTYPE(c_void_p, POINTER(_CallFrame))


class _KnownThread(threading.local):
    """Has Python keep what it holds for a thread of XLA's, once that has called it.

    Else it would be made anew for each call, which takes longer than all that `c_function` does.
    """

    def __init__(self) -> None:
        """Called when a thread first asks for anything of the object."""
        pythonapi.PyGILState_Ensure()  # Never released: that is what it is kept by.

    def meet(self) -> None:
        """Has the calling thread known; all that there is to do, `__init__` has done."""


_thread = _KnownThread()


def c_function(handler: Handler) -> "C_FUNCTION":  # pyright: ignore[reportInvalidTypeForm]
    """The function that XLA can call; it lives as long as what is returned.

    Args:
      handler: Told where the values of all arguments and results lie; what it raises becomes an
        error of the program's.
    """

    def call(pointer: "POINTER(_CallFrame)") -> int | None:  # pyright: ignore
        _thread.meet()
        frame = pointer.contents
        extension = frame.extension_start
        if extension and extension.contents.type == METADATA:
            version = extension.contents.metadata.contents.api_version
            version.major, version.minor = VERSION
            return None
        if frame.stage != EXECUTE:
            return None
        try:
            handler(_addresses(frame.arguments) + _addresses(frame.results))
        # A user's Ctrl-C, too: ctypes would only print it, and give XLA a pointer to anywhere.
        except BaseException as error:
            message = f"{type(error).__name__}: {error}".encode()
            arguments = _ErrorCreate(sizeof(_ErrorCreate), None, message, INTERNAL_ERROR)
            return frame.api.contents.error_create(byref(arguments))
        return None

    return C_FUNCTION(call)


def address(function: "C_FUNCTION") -> int | None:  # pyright: ignore[reportInvalidTypeForm]
    return cast(function, c_void_p).value


def _addresses(buffers: _Buffers) -> list[int]:
    items = buffers.items
    return [items[i].contents.data for i in range(buffers.size)]

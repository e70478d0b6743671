"""The C library's heap, for programs that want the same large blocks again and again."""

import ctypes
import importlib.util
import pkgutil
import platform

_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
_MOST = 2**31 - 1


def keep_freed_memory() -> None:
    """Has glibc keep what is freed, of a process that computes on the CPU; before JAX starts.

    XLA allocates all that a step computes between its first and its last array, and frees it after:
    by itself, glibc gives it back to the system, which then clears each page anew at each step
    (docs/speed.md). Where JAX has an accelerator, and on other systems, nothing is changed.

    Source: mallopt(3).
    """
    if platform.libc_ver()[0] != "glibc" or _accelerated():
        return
    mallopt = ctypes.CDLL(None).mallopt
    # Large blocks would else be mapped one by one, and any thread's arena but the first maps its.
    mallopt(_MMAP_MAX, 0)
    mallopt(_ARENA_MAX, 1)
    mallopt(_TRIM_THRESHOLD, _MOST)


def _accelerated() -> bool:
    """Whether a package is installed that brings JAX to another device."""
    plugins = importlib.util.find_spec("jax_plugins")
    paths = plugins.submodule_search_locations if plugins else None
    return any(pkgutil.iter_modules(paths or [])) or bool(importlib.util.find_spec("libtpu"))

"""Memory that is freed and asked for again, sample after sample and step after step.

By itself, glibc returns it to the system, which clears it page by page when it is asked for again.
Other C libraries are left as they are. Source of the settings: mallopt(3).
"""

import ctypes
import importlib.util
import pkgutil

# As glibc's <malloc.h> numbers them.
TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -3, -4, -8
NEVER = -1


def keep_freed_memory() -> None:
    """Has glibc keep what is freed for the next sample.

    Decoding a pair of 1918×1280 spent a seventh of its time on pages that were cleared anew.
    """
    mallopt = _mallopt()
    if mallopt is not None:
        mallopt(MMAP_THRESHOLD, 32 << 20)  # The most it takes.
        mallopt(TRIM_THRESHOLD, NEVER)


def keep_step_memory() -> None:
    """Has glibc keep larger blocks, too, of a process that computes on the CPU; before JAX starts.

    XLA takes one block for all that a step computes on the way, and frees it after
    (docs/speed_cpu.md). Nothing is changed where JAX has an accelerator.
    """
    mallopt = _mallopt()
    if mallopt is not None and not accelerated():
        # Large blocks would be mapped one by one, and by every thread's arena but the first always.
        mallopt(MMAP_MAX, 0)
        mallopt(ARENA_MAX, 1)
        mallopt(TRIM_THRESHOLD, NEVER)


def _mallopt() -> "ctypes._NamedFuncPointer | None":
    return getattr(ctypes.CDLL(None), "mallopt", None)


def accelerated() -> bool:
    """Whether a package is installed that brings JAX to another device."""
    plugins = importlib.util.find_spec("jax_plugins")
    paths = plugins.submodule_search_locations if plugins else None
    return any(pkgutil.iter_modules(paths or [])) or bool(importlib.util.find_spec("libtpu"))

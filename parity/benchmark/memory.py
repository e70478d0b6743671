"""This process' own memory, as Linux counts it."""

import contextlib
import ctypes
from pathlib import Path

import psutil

PROCESS = Path("/proc/self")
ACCOUNT = "without what compilation took and freed"
"""What files of results say of the memory of their rows."""


def resident() -> int:
    """Bytes held now."""
    return psutil.Process().memory_info().rss


def forget_peak() -> None:
    """Has `peak` count from now on, where the system lets it.

    What was freed counts no more: glibc may keep it for the process (`unet_jax.heap`).
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    with contextlib.suppress(OSError):
        (PROCESS / "clear_refs").write_text("5")


def peak() -> int | None:
    """Most bytes held at once; None where the system does not tell.

    Not `getrusage`: its peak starts at that of the process which started this one.
    """
    with contextlib.suppress(OSError):
        for line in (PROCESS / "status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return None

"""Memory that is freed and asked for again."""

import ctypes
import subprocess
import sys

import pytest

MEASURE = """
import resource, sys
from unet_jax.datasets.memory import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def take():
    return [b"x" * (1 << 20) for _ in range(30)]

if sys.argv[1] == "kept":
    keep_freed_memory()
take()
before = faults()
for _ in range(10):
    take()
print(faults() - before)
"""


def faults(how: str) -> int:
    """Pages that had to be fetched anew, of 300 times 1 MiB."""
    command = [sys.executable, "-c", MEASURE, how]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="another C library")
def test_freed_memory_is_not_fetched_anew():
    # 300 MiB are 76,800 pages of 4 KiB.
    assert faults("given back") > 10_000
    assert faults("kept") < 100

"""Memory that is freed and asked for again."""

import ctypes
import subprocess
import sys

import pytest

from unet_jax import heap

pytestmark = pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "mallopt"), reason="another C library than glibc"
)

SAMPLES = """
import resource, sys
from unet_jax.heap import keep_freed_memory

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

STEPS = """
import resource, sys
from unet_jax import heap

heap.accelerated = lambda: sys.argv[1] == "accelerated"
if sys.argv[1] != "given back":
    heap.keep_step_memory()
heap.keep_freed_memory()  # As the data set does, later.
import jax, jax.numpy as jnp

@jax.jit
def run(x):
    return (jnp.cumsum(jnp.sin(x), 0)[::-1] @ jnp.ones((1024, 8))).sum()

x = jnp.ones((48, 1024, 1024))
found = []
for _ in range(10):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    run(x).block_until_ready()
    found.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(min(found))
"""


def faults(program: str, how: str) -> int:
    """Pages that had to be fetched anew."""
    command = [sys.executable, "-c", program, how]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_freed_memory_is_not_fetched_anew():
    # 300 MiB are 76,800 pages of 4 KiB.
    assert faults(SAMPLES, "given back") > 10_000
    assert faults(SAMPLES, "kept") < 100


@pytest.mark.parametrize(
    ("package", "accelerated"),
    [("jax_plugins/made_up", True), ("libtpu", True), ("jax_plugins", False), ("other", False)],
)
def test_a_plugin_or_a_tpus_library_is_another_device(package, accelerated, monkeypatch, tmp_path):
    (tmp_path / package).mkdir(parents=True)
    if package != "jax_plugins":  # Without any, it may be left by one that was uninstalled.
        (tmp_path / package / "__init__.py").touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "jax_plugins", raising=False)
    monkeypatch.delitem(sys.modules, "libtpu", raising=False)
    assert heap.accelerated() is accelerated


def test_what_a_step_frees_is_there_for_the_next():
    # The fewest of ten runs: the first ones take new memory, as does one that begins before the
    # one before has freed all. Each needs 384 MiB on the way, 98,304 pages of 4 KiB.
    assert faults(STEPS, "kept") < 2_000
    assert faults(STEPS, "given back") > 10_000
    assert faults(STEPS, "accelerated") > 10_000


LARGE = """
import ctypes
from unet_jax import heap

heap.accelerated = lambda: False
heap.keep_step_memory()
heap.keep_freed_memory()
library = ctypes.CDLL(None)
library.malloc.restype = library.sbrk.restype = ctypes.c_void_p
library.free.argtypes, library.malloc.argtypes = [ctypes.c_void_p], [ctypes.c_size_t]
start, size = library.sbrk(0), 2**31 + 2**20
block = library.malloc(size)
assert library.sbrk(0) - start >= size, "not at the end of the heap"
library.free(block)
print(library.sbrk(0) - start >= size)
"""


def test_more_than_two_gibibytes_are_kept():
    """A threshold, which mallopt takes as an int, could be no larger."""
    command = [sys.executable, "-c", LARGE]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "True\n"

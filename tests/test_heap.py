"""What glibc is told."""

import subprocess
import sys

import pytest

from unet_jax import heap

STEPS = """
import resource, sys
from unet_jax import heap
heap._accelerated = lambda: sys.argv[1] == "accelerated"
if sys.argv[1] != "plain":
    heap.keep_freed_memory()
import jax, jax.numpy as jnp

@jax.jit
def run(x):
    return (jnp.cumsum(jnp.sin(x), 0)[::-1] @ jnp.ones((1024, 8))).sum()

x = jnp.ones((24, 1024, 1024))
found = []
for _ in range(10):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    run(x).block_until_ready()
    found.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(min(found))
"""


def faults(how: str) -> int:
    """Pages that the system clears for a run of a program that needs 192 MB between its ends.

    The fewest of ten runs: the first ones take new memory, as does one that begins before the one
    before has freed all.
    """
    command = [sys.executable, "-c", STEPS, how]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(run.stdout)


@pytest.mark.skipif(
    heap.platform.libc_ver()[0] != "glibc", reason="only glibc is told anything; this is another"
)
def test_what_a_step_frees_is_there_for_the_next():
    kept = faults("kept")
    assert kept < 2_000
    # A page has 4 KiB, or 2 MiB where the system gives huge ones unasked.
    assert faults("plain") > kept + 80
    assert faults("accelerated") > kept + 80

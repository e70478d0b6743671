"""Settings every test runs under."""

import os

# One process has two cores at most here; more threads only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Exact equality is promised on a CPU alone.
os.environ["JAX_COMPILATION_CACHE_DIR"] = ""  # Commands leave nothing in the home folder.

import jax
import pytest

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def x64():
    """Float64 in JAX, for this test alone."""
    with jax.enable_x64(True):
        yield

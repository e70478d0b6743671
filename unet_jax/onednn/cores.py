"""Who computes on which of a CPU's cores: XLA, or oneDNN, which XLA calls."""

import os

from unet_jax.heap import accelerated
from unet_jax.onednn.library import available

THREADS = "PJRT_NPROC"
"""The environment's variable that says how many threads XLA's CPU client has; else one a core."""
OTHERS = {"NPROC", "OMP_NUM_THREADS"}
"""Further ones, by which XLA or OpenMP have been told."""
MEASURED_CORES = 2
LARGE_TRAINED, LARGE_PREDICTED = 2**20, 2**22
"""Values of a layer from which on XLA's loops gain more from a second thread than oneDNN's calls
lose by it, on one of the CPUs that were measured (docs/speed_cpu.md)."""


def share_cores(values: int | None, precision: str = "float32", *, trained: bool) -> None:
    """Has XLA compute on one thread where layers are small, and oneDNN convolves on two cores.

    Two of XLA's threads would call oneDNN in turns, each with OpenMP's threads of its own, and
    compute beside it; that pays for large layers only. How it is with more cores has not been
    measured. There, on an accelerator, and where the environment says how many threads are to be,
    nothing is changed.

    It has to be called before JAX looks for its devices, and not where XLA convolves itself.

    Args:
      values: Of the network's largest layer: images at once × height × width × channels. None: they
        are not known, and nothing is changed.
      precision: What convolutions compute in. Of less than float32, they are XLA's.
      trained: Whether there is a backward pass.
    """
    said = os.environ.keys() & {THREADS, *OTHERS}
    if precision != "float32" or cores() != MEASURED_CORES or said or accelerated():
        return
    large = LARGE_TRAINED if trained else LARGE_PREDICTED
    if values is not None and values < large and available():
        os.environ[THREADS] = "1"


def has_the_cores() -> bool:
    """Whether XLA was told to compute on one thread, so that oneDNN alone has all cores."""
    return os.environ.get(THREADS) == "1"


def cores() -> int:
    """Those that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

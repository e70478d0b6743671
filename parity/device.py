"""Where both frameworks compute, and how precisely."""

import contextlib
from collections.abc import Iterator
from typing import Literal

import jax
import torch

from unet_jax.models.convolution import xla_alone

Device = Literal["cpu", "gpu"]


def torch_device() -> torch.device:
    """PyTorch's counterpart of the device that JAX computes on."""
    return torch.device("cpu" if jax.default_backend() == "cpu" else "cuda")


def use_device(device: Device) -> None:
    """Has JAX compute there, PyTorch following by `torch_device`; before anything is traced.

    Raises:
      ValueError: A framework has no GPU.
    """
    jax.config.update("jax_platforms", "cpu" if device == "cpu" else "cuda,cpu")
    if device == "cpu":
        return
    try:
        missing = [] if jax.default_backend() == "gpu" else ["JAX"]
    except RuntimeError:  # What JAX raises when none of its platforms starts.
        missing = ["JAX"]
    missing += [] if torch.cuda.is_available() else ["PyTorch"]
    if missing:
        raise ValueError(f"--device gpu: {' and '.join(missing)} found no CUDA GPU here")


def compiled_quickly() -> dict[str, int] | None:
    """XLA's options for float64, where a function runs a few times.

    On a CPU, optimising its machine code takes three times as long as running it as it is. What is
    shipped is what float32 compares.
    """
    return {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None


def precisions(device: Device) -> tuple[str, ...]:
    """What networks are compared in; a GPU's TF32 has rows of its own."""
    return ("float64", "float32") if device == "cpu" else ("float64", "float32", "tf32")


@contextlib.contextmanager
def arithmetic(precision: str) -> Iterator[None]:
    """Products of float32 in full, or, for `tf32`, with the 10 bits of a GPU's fast units.

    JAX computes by XLA alone, convolutions by their definition: PyTorch's are oneDNN's, and one
    library would agree with itself; and Winograd's algorithm rounds further.
    """
    fast, backends = precision == "tf32", torch.backends
    before = backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32
    backends.cuda.matmul.allow_tf32 = backends.cudnn.allow_tf32 = fast
    try:
        with xla_alone(), jax.default_matmul_precision("tensorfloat32" if fast else "highest"):
            yield
    finally:
        backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32 = before

"""Convolutions of float32 on a CPU by oneDNN, which PyTorch's are of, too.

XLA calls it as it runs its own program (XLA FFI, https://docs.jax.dev/en/latest/ffi.html): nothing
is copied. Large kernels of 3×3 take half the products. oneDNN is one shared library, from
`pip install "unet-jax[onednn]"`, on 64-bit x86 Linux.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax

from unet_jax.onednn import calls, winograd
from unet_jax.onednn.convolution import Shape
from unet_jax.onednn.library import available
from unet_jax.onednn.stored import stored

__all__ = ["Passes", "available", "passes", "stored"]


class Passes(NamedTuple):
    """What computes a convolution and its gradients, with the arguments of those in `calls`.

    Attributes:
      reads_often: Whether images and the output's gradient should be `stored`.
    """

    forward: Callable[..., jax.Array]
    backward_data: Callable[..., jax.Array]
    backward_weights: Callable[..., tuple[jax.Array, jax.Array | None]]
    reads_often: bool


DIRECT = Passes(calls.forward, calls.backward_data, calls.backward_weights, reads_often=False)
WINOGRAD = Passes(
    winograd.forward, winograd.backward_data, winograd.backward_weights, reads_often=True
)


def passes(x: Shape, kernel: Shape, stride: int) -> Passes:
    """The faster ones for these shapes."""
    return WINOGRAD if winograd.pays(x, kernel, stride) else DIRECT

"""Convolutions of float32 on a CPU by oneDNN, which PyTorch's are of, too.

XLA calls it as it runs its own program (XLA FFI, https://docs.jax.dev/en/latest/ffi.html): nothing
is copied. oneDNN is one shared library, from `pip install "unet-jax[onednn]"`, on 64-bit x86 Linux.
"""

from unet_jax.onednn.calls import backward_data, backward_weights, forward
from unet_jax.onednn.cores import has_the_cores
from unet_jax.onednn.library import available

__all__ = ["available", "backward_data", "backward_weights", "forward", "has_the_cores"]

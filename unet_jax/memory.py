"""How much memory is free on the accelerator; and the errors for too little."""

import jax

from unet_jax.host_memory import free_host_memory


def free_device_memory() -> int | None:
    """Free bytes of the first accelerator; None if the device is the host."""
    stats = jax.local_devices()[0].memory_stats()
    return stats and stats["bytes_limit"] - stats["bytes_in_use"]


def free_memory() -> int:
    """Free bytes of the first accelerator, or of the host if that is the device."""
    free = free_device_memory()
    return free_host_memory() if free is None else free


def out_of_memory(error: Exception) -> bool:
    """Whether that is what JAX, or the host, says by it."""
    if isinstance(error, jax.errors.JaxRuntimeError):
        return "RESOURCE_EXHAUSTED" in str(error)
    return isinstance(error, MemoryError)

"""The errors for too little memory."""

import torch


def out_of_memory(error: Exception) -> bool:
    """Whether that is what PyTorch, or the host, says by it."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # The host's allocator has no error of its own.
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)

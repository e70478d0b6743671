"""Where a prepared set lies while it is trained on: on the device, in host memory, or on disk."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np

from unet_jax.host_memory import free_host_memory

Place = Literal["device", "host", "none"]
Record = dict[str, np.ndarray]
Read = Callable[[np.ndarray], Record]
"""Gives the samples of int [B], each array of them one."""
Fetch = Callable[[np.ndarray], tuple[Any, ...]]
"""Gives what `Held` holds, on the device, of the samples of int32 [B]."""
SHARE = 4
"""A set may take a quarter of the free memory; the rest is for the network and everything else."""


def choose_place(wanted: str, size: int, device_free: int | None) -> Place:
    """Decides where a set lies.

    Args:
      wanted: "device", "host", "none" (on disk), or "auto": the first of these with room.
      size: Bytes of the set.
      device_free: Free bytes of the accelerator; None where the device uses the host's memory.
    """
    if wanted != "auto":
        return wanted  # type: ignore[return-value]
    if SHARE * size > free_host_memory():
        return "none"  # The way to a device leads through host memory.
    return "device" if device_free is not None and SHARE * size <= device_free else "host"


class Held(NamedTuple):
    """A whole set in host memory.

    Attributes:
      image: uint8 [N, H, W, 3].
      mask: uint8 [N, H, W].
      border: uint8 [N, H, W], as of `unet_jax.border`; None: the loss needs none.
    """

    image: np.ndarray
    mask: np.ndarray
    border: np.ndarray | None = None

    @property
    def arrays(self) -> list[np.ndarray]:
        """Those that are there."""
        return [array for array in self if array is not None]

    def __call__(self, indices: np.ndarray) -> Record:
        return {name: array[indices] for name, array in self._asdict().items() if array is not None}

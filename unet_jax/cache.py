"""Where a prepared set lies while it is trained on: on the device, in host memory, or on disk."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import psutil

Place = Literal["device", "host", "none"]
Record = dict[str, np.ndarray]
Fetch = Callable[[np.ndarray], tuple[Any, Any]]
"""Gives images [B, H, W, 3] and masks [B, H, W], on the device, of the samples of int32 [B]."""
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
    if SHARE * size > psutil.virtual_memory().available:
        return "none"  # The way to a device leads through host memory.
    return "device" if device_free is not None and SHARE * size <= device_free else "host"


class Held:
    """A whole set in host memory.

    Attributes:
      image: uint8 [N, H, W, 3].
      mask: uint8 [N, H, W].
    """

    def __init__(self, read: Callable[[int], Record], count: int, size: tuple[int, int]) -> None:
        """Args:
        read: Gives the sample of an index.
        count: How many there are.
        size: Height and width of each.
        """
        self.image = np.empty((count, *size, 3), np.uint8)
        self.mask = np.empty((count, *size), np.uint8)
        for index in range(count):
            record = read(index)
            self.image[index], self.mask[index] = record["image"], record["mask"]

    def __call__(self, index: int) -> Record:
        return {"image": self.image[index], "mask": self.mask[index]}

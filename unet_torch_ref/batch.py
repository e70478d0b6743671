"""What goes to the device."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

IGNORED = 255
"""The class id of pixels that count for nothing: not in the loss, nor in any score."""


Arrays = Iterable[np.ndarray | Tensor | None]
"""A batch's fields, in order; tensors where they are on the device already."""


class Batch(NamedTuple):
    """Samples on the device.

    Attributes:
      image: uint8 [B, H, W, 3], of the stored size.
      mask: uint8 [B, H, W] of class ids; 255 is ignored.
      valid: bool [B]; False for the padding of a last batch.
      geometry: int32 [B, 2, 3], where each pixel is taken from: output pixel (x, y) from the
        source at `geometry @ (x, y, 1)` / 65536, in coordinates of pixel centres; None: images and
        masks stay as they are.
      colour: float32 [B, 5], factors of brightness, contrast and saturation, shift of the hue,
        exponent of gamma; None: colours stay.
      border: uint8 [B, H, W], 255 where a pixel lies between two objects; None: the loss needs
        none.
    """

    image: Tensor
    mask: Tensor
    valid: Tensor
    geometry: Tensor | None = None
    colour: Tensor | None = None
    border: Tensor | None = None


def to_tensors(arrays: Arrays, device: torch.device | str = "cpu") -> Batch:
    """The batch on a device."""

    def move(array: np.ndarray | Tensor | None) -> Tensor | None:
        if isinstance(array, np.ndarray):
            return torch.from_numpy(np.require(array, requirements=("C", "W"))).to(device)
        return array

    fields = zip(Batch._fields, arrays)  # noqa: B905  # What follows is about many hosts.
    return Batch(**{name: move(array) for name, array in fields})  # type: ignore[arg-type]

"""What goes to the device."""

from typing import NamedTuple

import numpy as np


class Batch(NamedTuple):
    """Samples as they go to the device.

    Attributes:
      image: uint8 [B, H, W, 3].
      mask: uint8 [B, H, W] of class ids.
      valid: bool [B]; False for the padding of a last batch.
    """

    image: np.ndarray
    mask: np.ndarray
    valid: np.ndarray

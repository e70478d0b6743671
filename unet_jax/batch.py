"""What goes to the device."""

from typing import NamedTuple

import numpy as np

IGNORED = 255
"""The class id of pixels that count for nothing: not in the loss, nor in any score."""


class Batch(NamedTuple):
    """Samples as they go to the device; images and masks may be there already.

    Attributes:
      image: uint8 [B, H, W, 3], of the stored size.
      mask: uint8 [B, H, W] of class ids; 255 is ignored.
      valid: bool [B]; False for the padding of a last batch.
      geometry: int32 [B, 2, 3], where each pixel is taken from, as `unet_jax.draws` has it; None:
        images and masks stay as they are.
      colour: float32 [B, 5], colour factors of `unet_jax.draws`; None: colours stay.
      border: uint8 [B, H, W], as of `unet_jax.border`; None: the loss needs none.
      stop: bool [B], whether this host was asked to stop; None: it is the only one.
    """

    image: np.ndarray
    mask: np.ndarray
    valid: np.ndarray
    geometry: np.ndarray | None = None
    colour: np.ndarray | None = None
    border: np.ndarray | None = None
    stop: np.ndarray | None = None

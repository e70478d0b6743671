"""What a prepared data set holds: how much of each class, and which brightness."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from unet_jax.datasets import IGNORED


@dataclass(frozen=True)
class Statistics:
    """Counts over all masks, and moments over the training images.

    Attributes:
      pixels: How many pixels have each mask value, int64 [256].
      pictures: In how many masks each value occurs, int64 [256].
      mean: Of each channel of the training images in 0..1, float64 [3].
      std: Standard deviation of each channel over all their pixels, float64 [3].
    """

    pixels: np.ndarray
    pictures: np.ndarray
    mean: np.ndarray
    std: np.ndarray

    @property
    def shares(self) -> np.ndarray:
        """Share of all pixels of each mask value, float64 [256]; that of 255 is ignored."""
        return self.pixels / self.pixels.sum()


def measure(records: Iterable[Mapping[str, np.ndarray]], train: Collection[int]) -> Statistics:
    """Reads every record once.

    Args:
      records: `image` uint8 [H, W, 3] and `mask` uint8 [H, W] each.
      train: Positions of the training samples.
    """
    train = frozenset(train)
    pixels, pictures = np.zeros((2, IGNORED + 1), np.int64)
    levels = np.zeros((3, 256), np.int64)  # Counted, so that the moments are exact.
    for position, record in enumerate(records):
        counts = np.bincount(record["mask"].ravel(), minlength=IGNORED + 1)
        pixels += counts
        pictures += counts > 0
        if position in train:
            for channel in range(3):
                levels[channel] += np.bincount(record["image"][..., channel].ravel(), minlength=256)
    level = np.arange(256) / 255
    weights = levels / levels.sum(axis=1, keepdims=True)
    mean = weights @ level
    variance = (weights * (level - mean[:, None]) ** 2).sum(axis=1)
    return Statistics(pixels, pictures, mean, np.sqrt(variance))

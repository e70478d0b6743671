"""Whether probabilities are what they say: from sums that pixels only add to."""

from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np

from unet_jax.batch import IGNORED

BINS = 15
LEVELS = 1024
"""Thresholds that can be told apart, and their distance's inverse: a power of two, so that a float
times it is exact."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Sums over pixels. Two are added, so that no pixel is kept.

    The probability is the foreground's for two classes, and that of the predicted class for more.

    Attributes:
      pixels: int64 [BINS], of which the probability is in each of as many equal parts of 0..1.
      probability: float64 [BINS], its sum over them.
      occurred: int64 [BINS], those of them for which it came true: they are foreground, or of the
        predicted class.
      brier: float64 [], sum of squared errors: (p - y)² of the foreground for two classes, the sum
        of (p - y)² over the classes for more.
      levels: int64 [2, LEVELS], for two classes: background and foreground pixels with a
        probability above n / LEVELS, and up to (n + 1) / LEVELS; 0 counts to the first.
    """

    pixels: np.ndarray
    probability: np.ndarray
    occurred: np.ndarray
    brier: np.ndarray
    levels: np.ndarray

    def __add__(self, other: "Calibration") -> "Calibration":
        names = [f.name for f in fields(self)]
        return Calibration(**{name: getattr(self, name) + getattr(other, name) for name in names})

    @property
    def error(self) -> float:
        """Expected calibration error: the mean distance of probability and frequency, each bin
        weighing as many pixels as it has.

        References:
          Guo et al., 2017. https://arxiv.org/abs/1706.04599 (of the predicted class)
        """
        return float(np.abs(self.probability - self.occurred).sum() / self.pixels.sum())

    @property
    def brier_score(self) -> float:
        """Mean squared error of the probabilities, 0 at best.

        References:
          Brier, 1950. https://doi.org/10.1175/1520-0493(1950)078%3C0001:VOFEIT%3E2.0.CO;2
        """
        return float(self.brier / self.pixels.sum())


def nothing() -> Calibration:
    """Sums over no pixel."""
    zeros = np.zeros(BINS, np.int64)
    return Calibration(
        pixels=zeros,
        probability=np.zeros(BINS),
        occurred=zeros,
        brier=np.zeros(()),
        levels=np.zeros((2, LEVELS), np.int64),
    )


def calibration_of(band: np.ndarray, mask: np.ndarray, classes: int) -> Calibration:
    """Sums over some pixels.

    Args:
      band: Probabilities [..., K]; if K is 1, the foreground's.
      mask: Class ids [...]; pixels of 255 do not count.
      classes: Number of classes, C.
    """
    counted = mask != IGNORED
    given, true = band[counted], mask[counted]
    if classes == 2:
        p, occurred = given[:, -1], true == 1
        brier = np.square(p - occurred, dtype=np.float64).sum()
        level = np.clip(np.ceil(p * LEVELS).astype(np.int64) - 1, 0, LEVELS - 1)
        levels = np.bincount(level + LEVELS * occurred, minlength=2 * LEVELS).reshape(2, LEVELS)
    else:
        best = given.argmax(-1)
        p, occurred = np.take_along_axis(given, best[:, None], 1)[:, 0], best == true
        own = np.take_along_axis(given, true[:, None].astype(np.int64), 1)[:, 0]
        # Σ(p - y)² = Σp² - 2·p(true) + 1
        squares = np.einsum("nk,nk->n", given, given, dtype=np.float64)
        brier = (squares - 2 * own.astype(np.float64) + 1).sum()
        levels = np.zeros((2, LEVELS), np.int64)
    place = np.minimum((p * BINS).astype(np.int64), BINS - 1)
    return Calibration(
        pixels=np.bincount(place, minlength=BINS),
        probability=np.bincount(place, weights=p, minlength=BINS),
        occurred=np.bincount(place[occurred], minlength=BINS),
        brier=np.asarray(brier),
        levels=levels,
    )


class Threshold(NamedTuple):
    """A probability above which a pixel is foreground, and the Dice that this gives."""

    value: float
    dice: float


def dice_by_threshold(levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Thresholds, and the foreground's Dice with each: float64 [LEVELS - 1].

    Args:
      levels: As `Calibration` has them.
    """
    above = levels[:, ::-1].cumsum(1)[:, ::-1][:, 1:]  # Of p > n / LEVELS.
    hits, either = above[1], above.sum(0) + levels[1].sum()
    dice = np.where(either == 0, 1.0, 2 * hits / np.maximum(either, 1))
    return np.arange(1, levels.shape[1]) / levels.shape[1], dice


def best_threshold(levels: np.ndarray) -> Threshold:
    """The threshold with the highest Dice of the foreground; of equals the nearest to 0.5.

    Args:
      levels: As `Calibration` has them; thresholds are 1 / LEVELS apart.
    """
    values, dice = dice_by_threshold(levels)
    found = min(np.flatnonzero(dice == dice.max()), key=lambda n: abs(values[n] - 0.5))
    return Threshold(float(values[found]), float(dice[found]))

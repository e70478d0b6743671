"""What a network gets right and wrong, sample by sample, at one size."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from unet_jax.batch import IGNORED
from unet_jax.boundary import count_boundaries
from unet_jax.evaluation.calibration import Calibration, calibration_of, nothing
from unet_jax.metrics import boundary_rates, boundary_tolerance, rates
from unet_jax.prediction.predictor import most_probable


class Counted(NamedTuple):
    """One sample.

    Attributes:
      mask: Predicted class ids, uint8 [H, W].
      confusion: Pixels [C, C] by true class (row) and predicted class (column).
      boundary: int64 [C, 4], as from `boundary_counts`.
      calibration: Of its pixels.
    """

    mask: np.ndarray
    confusion: np.ndarray
    boundary: np.ndarray
    calibration: Calibration


def count(
    bands: Iterable[np.ndarray], truth: np.ndarray, classes: int, threshold: float
) -> Counted:
    """Compares what is predicted of a picture with its mask.

    Args:
      bands: Probabilities [n, W, K], from top to bottom.
      truth: Class ids [H, W]; pixels of 255 do not count.
      classes: Number of classes, C.
      threshold: Probability above which a pixel is foreground, if there are two classes.
    """
    mask, row, calibration = np.empty(truth.shape, np.uint8), 0, nothing()
    for band in bands:
        rows = slice(row, row + len(band))
        mask[rows] = most_probable(band, classes, threshold)
        calibration += calibration_of(band, truth[rows], classes)
        row += len(band)
    counted = truth != IGNORED
    cells = truth[counted].astype(np.int64) * classes + mask[counted]
    confusion = np.bincount(cells, minlength=classes * classes).reshape(classes, classes)
    tolerance = boundary_tolerance((truth.shape[0], truth.shape[1]))
    return Counted(mask, confusion, count_boundaries(mask, truth, classes, tolerance), calibration)


class Tally:
    """Counts of many samples. Of each sample is kept what scores are made of, 7 numbers a class: of
    150 classes, all confusion counts would be 22,500.

    Attributes:
      pixels: int64 [N, 3, C]: of each class, pixels that are predicted as such, that there are, and
        that are predicted.
      boundary: int64 [N, C, 4].
      confusion: int64 [C, C], of all samples together.
      calibration: Of all samples together.
    """

    def __init__(self, samples: int, classes: int) -> None:
        """Args:
        samples: How many there are, N.
        classes: Number of classes, C.
        """
        self.pixels = np.zeros((samples, 3, classes), np.int64)
        self.boundary = np.zeros((samples, classes, 4), np.int64)
        self.confusion = np.zeros((classes, classes), np.int64)
        self.calibration = nothing()

    def add(self, index: int, counted: Counted) -> float:
        """Adds the sample of this number.

        Returns:
          Its score: Dice of the foreground for two classes, else the mean IoU of the classes that
          occur; NaN if none of its pixels counts.
        """
        confusion = counted.confusion
        self.pixels[index] = np.diag(confusion), confusion.sum(1), confusion.sum(0)
        self.boundary[index] = counted.boundary
        self.confusion += confusion
        self.calibration += counted.calibration
        if not confusion.any():
            return float("nan")
        return float(rates(*self.pixels[index])["dice" if len(confusion) == 2 else "iou"])


def all_rates(pixels: np.ndarray, boundary: np.ndarray) -> dict[str, np.ndarray]:
    """Every score, of one set of samples or of many at once.

    Args:
      pixels: Sums [..., 3, C] of `Tally.pixels`.
      boundary: Sums [..., C, 4] of `Tally.boundary`.

    Returns:
      By the names of `scores` and `boundary_scores`: [...], or `..._per_class` [..., C].
    """
    return rates(*np.moveaxis(pixels, -2, 0)) | boundary_rates(boundary)

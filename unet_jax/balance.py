"""Class weights from how often each class occurs."""

from collections.abc import Iterable

import numpy as np

from unet_jax.config import LossConfig
from unet_jax.datasets.errors import DataError


def class_weights(
    config: LossConfig, classes: int, masks: Iterable[np.ndarray]
) -> tuple[float, ...] | None:
    """The weight of each class that `config.class_weights` stands for.

    Ignored pixels are left out of every count. A class that never occurs has the weight 0: it has
    no frequency, and should it occur in validation, its pixels have no say in the loss either.

    Args:
      config: The settings of the loss.
      classes: Number of classes, C.
      masks: uint8 [H, W] of class ids, of the training samples; read only if frequencies are asked
        for.

    Returns:
      C numbers, or None for none. Inverse frequency: pixels / (classes that occur × pixels of the
      class), so that the mean weight of a pixel is 1. Median frequency: median of the frequencies
      of the classes that occur / frequency of the class, which is its share of the pixels of those
      masks in which it occurs.

    Raises:
      ValueError: A setting of the loss does not go with so many classes.
      DataError: Every pixel is ignored.

    References:
      Eigen and Fergus, 2015 (median frequency). https://arxiv.org/abs/1411.4734
      scikit-learn's `compute_class_weight("balanced")` (inverse frequency).
    """
    config.check(classes)
    if config.class_weights == "none":
        return None
    if not isinstance(config.class_weights, str):
        return config.class_weights
    pixels, beside = np.zeros((2, classes), np.int64)
    for mask in masks:
        counts = np.bincount(mask.ravel(), minlength=classes)[:classes]
        pixels += counts
        beside += np.where(counts > 0, counts.sum(), 0)
    occurs = pixels > 0
    if not occurs.any():
        raise DataError(
            f"class_weights: {config.class_weights} needs pixels to count, and every training "
            "pixel is ignored"
        )
    weights = np.zeros(classes)
    if config.class_weights == "inverse":
        weights[occurs] = pixels.sum() / (occurs.sum() * pixels[occurs])
    else:
        frequencies = pixels[occurs] / beside[occurs]
        weights[occurs] = np.median(frequencies) / frequencies
    return tuple(weights.tolist())

"""Scores from counts: a confusion matrix is summed over the whole set, and divided once."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from unet_jax.batch import IGNORED
from unet_jax.datasets.errors import DataError


def predict_classes(logits: jax.Array) -> jax.Array:
    """Class ids [B, H, W] of logits [B, H, W, K]; one logit means foreground above 0."""
    if logits.shape[-1] == 1:
        return (logits[..., 0] > 0).astype(jnp.int32)
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)


def confusion_counts(predicted: jax.Array, mask: jax.Array, valid: jax.Array, classes: int):
    """Counts pixels by true class (row) and predicted class (column).

    Args:
      predicted: Class ids [B, H, W].
      mask: Class ids [B, H, W]; pixels of 255 do not count.
      valid: bool [B]; images that count.
      classes: Number of classes, C.

    Returns:
      int32 [C, C].
    """
    cell = mask.astype(jnp.int32) * classes + predicted
    counted = valid[:, None, None] & (mask != IGNORED)
    cell = jnp.where(counted, cell, classes * classes)  # A cell past the last.
    counts = jnp.bincount(cell.ravel(), length=classes * classes + 1)
    return counts[:-1].reshape(classes, classes).astype(jnp.int32)


def scores(confusion: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """Dice, IoU and pixel accuracy of a whole set.

    Args:
      confusion: Counts [C, C], true classes in rows.
      classes: Name of each class.

    Returns:
      `dice`, `iou`: of the foreground for two classes (1 if there is none in either truth or
      prediction, as Carvana's competition has it), else the mean over the classes that occur in
      either. `accuracy`: share of pixels that are right. `dice_per_class`,
      `iou_per_class`: by class name, None for a class that occurs in neither.

    Raises:
      DataError: No pixel counts: all of them are ignored.
    """
    counts = confusion.astype(np.int64)
    if not counts.any():
        raise DataError("there is nothing to score: every validation pixel is ignored")
    hits = np.diag(counts)
    either = counts.sum(0) + counts.sum(1)  # |truth| + |prediction|
    with np.errstate(invalid="ignore"):
        dice = 2 * hits / either
        iou = hits / (either - hits)
    one = len(classes) == 2
    empty = one and either[1] == 0
    return {
        "dice": 1.0 if empty else float(dice[1] if one else np.nanmean(dice)),
        "iou": 1.0 if empty else float(iou[1] if one else np.nanmean(iou)),
        "accuracy": float(hits.sum() / counts.sum()),
        "dice_per_class": _by_name(dice, classes),
        "iou_per_class": _by_name(iou, classes),
    }


def _by_name(values: np.ndarray, classes: Sequence[str]) -> dict[str, float | None]:
    return {n: None if np.isnan(v) else float(v) for n, v in zip(classes, values, strict=True)}

"""Scores from counts: summed over the whole set, and divided once."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from unet_jax.batch import IGNORED
from unet_jax.datasets.errors import DataError

SCORES = {
    "dice": "Dice",
    "iou": "IoU",
    "accuracy": "pixel accuracy",
    "mean_class_accuracy": "mean class accuracy",
    "boundary_f": "boundary F",
}
"""What the scores of a whole set are called."""


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


def boundary_counts(
    predicted: jax.Array, mask: jax.Array, valid: jax.Array, classes: int, tolerance: int
) -> jax.Array:
    """Counts boundary pixels, and those that the other side has, too, or nearly.

    A pixel is on the boundary of its own class if one of its four neighbours is of another class;
    the picture's edge is no boundary. Ignored pixels are nobody's neighbour, in the prediction as
    in the truth: they make no boundary, and have none. Near is a Euclidean distance of at most
    `tolerance` between centres of pixels, to a boundary pixel of the same class.

    Args:
      predicted: Class ids [B, H, W].
      mask: Class ids [B, H, W]; pixels of 255 do not count.
      valid: bool [B]; images that count.
      classes: Number of classes, C.
      tolerance: In pixels, as from `boundary_tolerance`.

    Returns:
      int32 [C, 4]: predicted boundary pixels, those of them near a true one, true boundary pixels,
      those of them near a predicted one.

    References:
      Csurka et al., 2013. https://doi.org/10.5244/C.27.32
      Perazzi et al., 2016. https://doi.org/10.1109/CVPR.2016.85
    """
    counted = valid[:, None, None] & (mask != IGNORED)
    here, there = (
        _boundaries(jnp.where(counted, ids, IGNORED).astype(jnp.uint8)) for ids in (predicted, mask)
    )
    sides = ((here, there), (there, here))
    return jnp.concatenate([_count_near(a, b, classes, tolerance) for a, b in sides], axis=1)


def _boundaries(ids: jax.Array) -> jax.Array:
    """Class ids [B, H, W] with 255 where a pixel touches no other class."""
    around = jnp.pad(ids, ((0, 0), (1, 1), (1, 1)), constant_values=IGNORED)
    touching = jnp.zeros(ids.shape, bool)
    for rows, columns in ((0, 1), (2, 1), (1, 0), (1, 2)):
        neighbour = around[:, rows : rows + ids.shape[1], columns : columns + ids.shape[2]]
        touching |= (neighbour != ids) & (neighbour != IGNORED)
    return jnp.where(touching, ids, IGNORED)


def _count_near(boundary: jax.Array, other: jax.Array, classes: int, tolerance: int) -> jax.Array:
    """The boundary pixels of each class, and those near one of `other`: int32 [C, 2]."""
    # A pixel is on one class' boundary at most, so that comparing ids serves all classes at once.
    around = jnp.pad(other, ((0, 0), *[(tolerance, tolerance)] * 2), constant_values=IGNORED)

    def look(near: jax.Array, offset: jax.Array) -> tuple[jax.Array, None]:
        return near | (
            lax.dynamic_slice(around, (np.int32(0), *offset), boundary.shape) == boundary
        ), None

    rows, columns = np.ogrid[-tolerance : tolerance + 1, -tolerance : tolerance + 1]
    disc = np.argwhere(rows**2 + columns**2 <= tolerance**2).astype(np.int32)
    near, _ = lax.scan(look, jnp.zeros(boundary.shape, bool), jnp.asarray(disc), unroll=8)
    cell = 2 * boundary.astype(jnp.int32) + near
    alone, close = jnp.bincount(cell.ravel(), length=2 * IGNORED + 2).reshape(-1, 2)[:classes].T
    return jnp.stack([alone + close, close], axis=1).astype(jnp.int32)


def boundary_tolerance(size: tuple[int, int]) -> int:
    """How far a boundary may be off, in pixels: 0.75 % of the diagonal of [H, W], rounded up."""
    return math.ceil(0.75 * math.hypot(*size) / 100)


def scores(confusion: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """Dice, IoU and accuracy of a whole set.

    Args:
      confusion: Counts [C, C], true classes in rows.
      classes: Name of each class.

    Returns:
      `dice`, `iou`: of the foreground for two classes (1 if there is none in either truth or
      prediction, as Carvana's competition has it), else the mean over the classes that occur in
      either. `accuracy`: share of pixels that are right; `mean_class_accuracy`: its mean over the
      classes that occur in the truth, two or more. `dice_per_class`, `iou_per_class`: by class
      name, None for a class that occurs in neither; `accuracy_per_class`: share of the class'
      pixels that are right, None for a class without any.

    Raises:
      DataError: No pixel counts: all of them are ignored.
    """
    counts = confusion.astype(np.int64)
    if not counts.any():
        raise DataError("there is nothing to score: every validation pixel is ignored")
    return _named(rates(np.diag(counts), counts.sum(1), counts.sum(0)), classes)


def rates(
    true_positives: np.ndarray, true: np.ndarray, predicted: np.ndarray
) -> dict[str, np.ndarray]:
    """What `scores` gives, of one set of pixels or of many at once.

    Args:
      true_positives: Pixels [..., C] of each class that are predicted as such.
      true: Pixels [..., C] of each class.
      predicted: Pixels [..., C] predicted as each class.

    Returns:
      By the names of `scores`: [...], or `..._per_class` [..., C]; NaN for None, and where no pixel
      counts.
    """
    either = true + predicted
    with np.errstate(invalid="ignore"):
        dice = 2 * true_positives / either
        iou = true_positives / (either - true_positives)
        accuracy = true_positives / true
        right = true_positives.sum(-1) / true.sum(-1)
    one = true_positives.shape[-1] == 2
    empty = one & (either[..., -1] == 0)
    return {
        "dice": np.where(empty, 1.0, dice[..., 1] if one else _mean(dice)),
        "iou": np.where(empty, 1.0, iou[..., 1] if one else _mean(iou)),
        "accuracy": right,
        "mean_class_accuracy": _mean(accuracy),
        "dice_per_class": dice,
        "iou_per_class": iou,
        "accuracy_per_class": accuracy,
    }


def boundary_scores(counts: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """Precision, recall and F-score of a whole set's boundaries.

    The publications divide once an image; here the counts of all images are divided once.

    Args:
      counts: [C, 4], as from `boundary_counts`.
      classes: Name of each class.

    Returns:
      `boundary_f`: of the foreground for two classes, else the mean over the classes with a
      boundary in truth or prediction; 1 if there is none in either. By class name:
      `boundary_precision_per_class`, the share of the predicted boundary that is near the true one;
      `boundary_recall_per_class`, of the true one that is near the predicted one; each None where
      there is nothing to share; `boundary_f_per_class`, their harmonic mean, 0 if one side has no
      boundary, None if neither has.
    """
    return _named(boundary_rates(counts), classes)


def boundary_rates(counts: np.ndarray) -> dict[str, np.ndarray]:
    """What `boundary_scores` gives, of one set of pictures or of many at once.

    Args:
      counts: [..., C, 4], as from `boundary_counts`.

    Returns:
      By the names of `boundary_scores`: [...], or `..._per_class` [..., C]; NaN for None.
    """
    predicted, found, true, met = np.moveaxis(counts.astype(np.int64), -1, 0)
    with np.errstate(invalid="ignore"):
        precision, recall = found / predicted, met / true
        f = np.where(found > 0, 2 * precision * recall / (precision + recall), 0)
    f = np.where(predicted + true == 0, np.nan, f)
    mean = _mean(f[..., 1:] if f.shape[-1] == 2 else f)
    return {
        "boundary_f": np.where(np.isnan(mean), 1.0, mean),
        "boundary_f_per_class": f,
        "boundary_precision_per_class": precision,
        "boundary_recall_per_class": recall,
    }


def _mean(values: np.ndarray) -> np.ndarray:
    """Over the classes [..., C] that have a value; NaN where none has."""
    there = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(there, values, 0).sum(-1) / there.sum(-1)


def _named(found: Mapping[str, np.ndarray], classes: Sequence[str]) -> dict[str, Any]:
    """Numbers of one set of pixels, those of classes by their names."""
    return {
        name: _by_name(value, classes) if value.ndim else float(value)
        for name, value in found.items()
    }


def _by_name(values: np.ndarray, classes: Sequence[str]) -> dict[str, float | None]:
    return {n: None if np.isnan(v) else float(v) for n, v in zip(classes, values, strict=True)}

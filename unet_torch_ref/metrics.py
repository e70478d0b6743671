"""Counts that scores are made of: see `unet_jax.metrics`."""

import math
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from unet_torch_ref.batch import IGNORED


def predict_classes(logits: Tensor) -> Tensor:
    """Class ids [B, H, W] of logits [B, K, H, W]; one logit means foreground above 0."""
    if logits.shape[1] == 1:
        return (logits[:, 0] > 0).long()
    return logits.argmax(dim=1)


def confusion_counts(predicted: Tensor, mask: Tensor, valid: Tensor, classes: int) -> Tensor:
    """Counts pixels by true class (row) and predicted class (column).

    Args:
      predicted: Class ids [B, H, W].
      mask: Class ids [B, H, W]; pixels of 255 do not count.
      valid: bool [B]; images that count.
      classes: Number of classes, C.

    Returns:
      int64 [C, C].
    """
    counted = valid[:, None, None] & (mask != IGNORED)
    cell = (mask.long() * classes + predicted)[counted]
    return torch.bincount(cell, minlength=classes * classes).reshape(classes, classes)


def boundary_counts(
    predicted: Tensor, mask: Tensor, valid: Tensor, classes: int, tolerance: int
) -> Tensor:
    """Counts boundary pixels, and those that the other side has, too, or nearly.

    See `unet_jax.metrics.boundary_counts` for what a boundary is, and near.

    Args:
      predicted: Class ids [B, H, W].
      mask: Class ids [B, H, W]; pixels of 255 do not count.
      valid: bool [B]; images that count.
      classes: Number of classes, C.
      tolerance: In pixels.

    Returns:
      int64 [C, 4]: predicted boundary pixels, those of them near a true one, true boundary pixels,
      those of them near a predicted one.
    """
    counted = valid[:, None, None] & (mask != IGNORED)
    here, there = (
        _boundaries(torch.where(counted, ids, IGNORED).byte()) for ids in (predicted, mask)
    )
    sides = ((here, there), (there, here))
    return torch.cat([_count_near(a, b, classes, tolerance) for a, b in sides], dim=1)


def _boundaries(ids: Tensor) -> Tensor:
    """Class ids [B, H, W] with 255 where a pixel touches no other class."""
    around = F.pad(ids, [1] * 4, value=IGNORED)
    touching = torch.zeros_like(ids, dtype=torch.bool)
    for rows, columns in ((0, 1), (2, 1), (1, 0), (1, 2)):
        neighbour = around[:, rows : rows + ids.shape[1], columns : columns + ids.shape[2]]
        touching |= (neighbour != ids) & (neighbour != IGNORED)
    return torch.where(touching, ids, IGNORED)


def _count_near(boundary: Tensor, other: Tensor, classes: int, tolerance: int) -> Tensor:
    """The boundary pixels of each class, and those near one of `other`: int64 [C, 2]."""
    height, width = other.shape[1:]
    around = F.pad(other, [tolerance] * 4, value=IGNORED)
    near = torch.zeros_like(boundary, dtype=torch.bool)
    for row, column in product(range(2 * tolerance + 1), repeat=2):
        if (row - tolerance) ** 2 + (column - tolerance) ** 2 <= tolerance**2:
            near |= around[:, row : row + height, column : column + width] == boundary
    counts = [torch.bincount(b.ravel(), minlength=IGNORED + 1) for b in (boundary, boundary[near])]
    return torch.stack(counts, dim=1)[:classes]


def boundary_tolerance(size: tuple[int, int]) -> int:
    """How far a boundary may be off, in pixels: 0.75 % of the diagonal of [H, W], rounded up."""
    return math.ceil(0.75 * math.hypot(*size) / 100)

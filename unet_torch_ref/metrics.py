"""Counts of a confusion matrix."""

import torch
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

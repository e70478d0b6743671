"""Losses of each pixel: [B, K, H, W] logits against [B, H, W] class ids."""

import torch.nn.functional as F
from torch import Tensor


def pixel_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """Binary cross-entropy for one logit a pixel, cross-entropy for several.

    Args:
      logits: float [B, K, H, W].
      mask: integer [B, H, W]; 0 or 1 if K is 1, else below K.

    Returns:
      The loss of each pixel, [B, H, W], in nats.
    """
    if logits.shape[1] == 1:
        target = mask.to(logits.dtype)
        return F.binary_cross_entropy_with_logits(logits[:, 0], target, reduction="none")
    return F.cross_entropy(logits, mask.long(), reduction="none")

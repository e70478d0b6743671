"""The Lovász extension of 1 - IoU, of one image."""

import torch
import torch.nn.functional as F
from torch import Tensor


def lovasz_hinge(logits: Tensor, target: Tensor) -> Tensor:
    """The Lovász extension in the hinge losses of the foreground.

    Args:
      logits: float [1, N], of the pixels that count; the loss is 0 if there are none.
      target: integer [N], 0 or 1.

    References:
      Berman, Triki and Blaschko, 2018. https://arxiv.org/abs/1705.08790
    """
    truth = target == 1
    errors = 1 - torch.where(truth, logits[0], -logits[0])
    return _extension(F.relu(errors), truth)


def lovasz_softmax(logits: Tensor, target: Tensor) -> Tensor:
    """The Lovász extension in the errors of the probabilities, mean over the classes present.

    Args:
      logits: float [K, N], of the pixels that count; the loss is 0 if there are none.
      target: integer [N], below K.

    References:
      Berman, Triki and Blaschko, 2018. https://arxiv.org/abs/1705.08790
    """
    losses = []
    for index, p in enumerate(logits.softmax(0)):
        truth = target == index
        if truth.any():
            losses.append(_extension((truth.to(p.dtype) - p).abs(), truth))
    return torch.stack(losses).mean() if losses else logits.sum()


def _extension(errors: Tensor, truth: Tensor) -> Tensor:
    """The errors, sorted, times what each adds to 1 - IoU when it is taken for wrong."""
    # Stable: among equal errors the first pixel comes first, which decides on the subgradient.
    errors, order = errors.sort(descending=True, stable=True)
    missed = truth[order].to(errors.dtype)
    intersection = missed.sum() - missed.cumsum(0)
    union = missed.sum() + (1 - missed).cumsum(0)
    jaccard = 1 - intersection / union
    return errors @ torch.cat([jaccard[:1], jaccard.diff()])

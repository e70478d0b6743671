"""One training step and one evaluation step."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from unet_torch_ref.augment import Normalisation, inputs_and_targets, normalise
from unet_torch_ref.batch import IGNORED, Batch
from unet_torch_ref.losses import pixel_loss
from unet_torch_ref.metrics import confusion_counts, predict_classes

Metrics = dict[str, Tensor]


class LossSums(NamedTuple):
    """Sums, not means, so that batches and devices just add up."""

    loss: Tensor
    pixels: Tensor

    @property
    def mean(self) -> Tensor:
        """The loss of a pixel; 0 if none counts."""
        return self.loss / self.pixels.clamp(min=1)


def summed_loss(logits: Tensor, mask: Tensor, valid: Tensor) -> LossSums:
    """The loss over the pixels that count, and their number.

    Args:
      logits: float [B, K, H, W].
      mask: uint8 [B, H, W] of class ids; 255 does not count.
      valid: bool [B]; images that count.
    """
    counted = valid[:, None, None] & (mask != IGNORED)
    loss = pixel_loss(logits, torch.where(counted, mask, 0))
    return LossSums(
        torch.where(counted, loss, 0).sum(),  # Selected: 0 times infinity would be NaN.
        counted.sum().to(loss.dtype),
    )


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: LambdaLR,
    batch: Batch,
    *,
    mean_std: Normalisation,
    fill: int,
    clip_norm: float,
) -> Metrics:
    """Takes one optimiser step.

    Args:
      model: The network; its parameters and running statistics change.
      optimizer: Of its parameters.
      schedule: Of the optimiser's learning rate.
      batch: The samples, and how to augment them.
      mean_std: Per-channel mean and standard deviation of images in 0..1.
      fill: What masks hold outside of the picture.
      clip_norm: Largest global norm of the gradient.

    Returns:
      `loss` and `pixels` (sums) and `grad_norm` (before clipping).
    """
    model.train()
    optimizer.zero_grad(set_to_none=True)
    dtype = next(model.parameters()).dtype
    image, mask = inputs_and_targets(batch, mean_std, dtype, fill)
    sums = summed_loss(model(image), mask, batch.valid)
    sums.mean.backward()
    grad_norm = nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    optimizer.step()
    schedule.step()
    return {"loss": sums.loss.detach(), "pixels": sums.pixels, "grad_norm": grad_norm}


@torch.no_grad()
def eval_step(
    model: nn.Module, batch: Batch, *, mean_std: Normalisation, classes: int
) -> tuple[Metrics, Tensor]:
    """Evaluates a batch as it is, without augmentation, with the running statistics.

    Returns:
      Sums `loss` and `pixels`, and `confusion` counts int64 [C, C], over the pixels that count;
      and the predicted class ids [B, H, W].
    """
    model.eval()
    logits = model(normalise(batch.image, mean_std, next(model.parameters()).dtype))
    predicted = predict_classes(logits)
    sums = summed_loss(logits, batch.mask, batch.valid)
    confusion = confusion_counts(predicted, batch.mask, batch.valid, classes)
    return {**sums._asdict(), "confusion": confusion}, predicted

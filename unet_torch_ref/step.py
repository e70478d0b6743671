"""One training step and one evaluation step."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from unet_torch_ref.losses import pixel_loss
from unet_torch_ref.metrics import confusion_counts, predict_classes

Metrics = dict[str, Tensor]
Normalisation = tuple[tuple[float, ...], tuple[float, ...]]


class Batch(NamedTuple):
    """`image` uint8 [B, H, W, C], `mask` uint8 [B, H, W], `valid` bool [B]."""

    image: Tensor
    mask: Tensor
    valid: Tensor


def normalise(image: Tensor, mean_std: Normalisation, dtype: torch.dtype) -> Tensor:
    """uint8 [B, H, W, C] -> (image / 255 - mean) / std, [B, C, H, W] in channels-last memory."""
    mean, std = (torch.tensor(v, dtype=dtype, device=image.device) for v in mean_std)
    return ((image.to(dtype) / 255 - mean) / std).permute(0, 3, 1, 2)


def summed_loss(logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """The loss over the valid images' pixels, and their number."""
    weight = batch.valid.to(logits.dtype).reshape(-1, 1, 1)
    loss = pixel_loss(logits, batch.mask)
    return torch.sum(loss * weight), torch.sum(weight) * loss[0].numel()


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: LambdaLR,
    batch: Batch,
    *,
    mean_std: Normalisation,
    clip_norm: float,
) -> Metrics:
    """Takes one optimiser step.

    Args:
      model: The network; its parameters and running statistics change.
      optimizer: Of its parameters.
      schedule: Of the optimiser's learning rate.
      batch: The samples.
      mean_std: Per-channel mean and standard deviation of images in 0..1.
      clip_norm: Largest global norm of the gradient.

    Returns:
      `loss` and `pixels` (sums) and `grad_norm` (before clipping).
    """
    model.train()
    optimizer.zero_grad(set_to_none=True)
    dtype = next(model.parameters()).dtype
    loss, pixels = summed_loss(model(normalise(batch.image, mean_std, dtype)), batch)
    (loss / pixels).backward()
    grad_norm = nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    optimizer.step()
    schedule.step()
    return {"loss": loss.detach(), "pixels": pixels, "grad_norm": grad_norm}


@torch.no_grad()
def eval_step(
    model: nn.Module, batch: Batch, *, mean_std: Normalisation, classes: int
) -> tuple[Metrics, Tensor]:
    """Evaluates a batch with the running statistics.

    Returns:
      Sums `loss` and `pixels`, and `confusion` counts int64 [C, C], over the valid images; and
      the predicted class ids [B, H, W].
    """
    model.eval()
    logits = model(normalise(batch.image, mean_std, next(model.parameters()).dtype))
    predicted = predict_classes(logits)
    loss, pixels = summed_loss(logits, batch)
    confusion = confusion_counts(predicted, batch.mask, batch.valid, classes)
    return {"loss": loss, "pixels": pixels, "confusion": confusion}, predicted

"""One training step and one evaluation step."""

import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from unet_torch_ref.augment import Normalisation, border_map, inputs_and_targets
from unet_torch_ref.batch import IGNORED, Batch
from unet_torch_ref.losses import Loss, Sums
from unet_torch_ref.metrics import (
    boundary_counts,
    boundary_tolerance,
    confusion_counts,
    predict_classes,
)

Metrics = dict[str, Any]
Scaler = torch.amp.GradScaler


def lower_precision(dtype: torch.dtype | None, device: torch.device) -> AbstractContextManager:
    """Autocast to `dtype`; None leaves everything in the parameters' type."""
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype)


class Step(NamedTuple):
    """What came of a batch's gradients.

    Attributes:
      loss: Of the whole batch.
      sums: The loss' sums over it.
    """

    loss: Tensor
    sums: Sums


def accumulate_gradients(
    model: nn.Module,
    loss: Loss,
    batch: Batch,
    *,
    mean_std: Normalisation,
    fill: int,
    size: tuple[int, int] | None = None,
    accumulate: int = 1,
    dtype: torch.dtype | None = None,
    scaler: Scaler | None = None,
) -> Step:
    """Adds the gradients of the loss of the whole batch to the parameters'.

    Args:
      model: The network, in train mode.
      loss: What is minimised.
      batch: The samples, and how to augment them.
      mean_std: Per-channel mean and standard deviation of images in 0..1.
      fill: What masks hold outside of the picture.
      size: H and W that the network is given; None: the batch's own.
      accumulate: Micro-batches, each of every n-th image.
      dtype: What convolutions compute in; None: what the parameters are of.
      scaler: Scales the loss, in float16.
    """
    precise = next(model.parameters()).dtype
    image, mask = inputs_and_targets(batch, mean_std, precise, fill, size)
    border = border_map(batch, size)
    # Each part's share of the loss: its own sums, over the normalisers of all.
    known = loss.normalisers(mask, batch.valid, precise) if accumulate > 1 else {}
    parts: list[Sums] = []
    for n in range(accumulate):
        rows = slice(n, None, accumulate)
        with lower_precision(dtype, image.device):
            logits = model(image[rows])
        own = (mask[rows], batch.valid[rows], None if border is None else border[rows])
        parts.append(loss.sums(logits.to(precise), *own))
        share = loss.total(parts[-1] | known)
        (share if scaler is None else scaler.scale(share)).backward()
    whole = _add(parts)
    return Step(loss.total(whole), whole)


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: Callable[[], object],
    batch: Batch,
    *,
    loss: Loss,
    mean_std: Normalisation,
    fill: int,
    clip_norm: float,
    size: tuple[int, int] | None = None,
    accumulate: int = 1,
    dtype: torch.dtype | None = None,
    scaler: Scaler | None = None,
    ema: AveragedModel | None = None,
) -> Metrics:
    """Takes one optimiser step, or skips it if the loss or a gradient is not finite.

    Args:
      model: The network; its parameters and running statistics change.
      optimizer: Of its parameters.
      schedule: Sets the learning rate of the next step.
      batch: The samples, and how to augment them.
      loss: What is minimised.
      mean_std: Per-channel mean and standard deviation of images in 0..1.
      fill: What masks hold outside of the picture.
      clip_norm: Largest global norm of the gradient.
      size: H and W that the network is given; None: the batch's own.
      accumulate: Micro-batches; the gradients are those of the whole batch.
      dtype: What convolutions compute in; None: what the parameters are of.
      scaler: Scales the loss, in float16.
      ema: Average of the parameters, which follows them.

    Returns:
      `loss`, `grad_norm` (before clipping), `learning_rate`, `finite` and, in float16, `scale`.
    """
    model.train()
    optimizer.zero_grad(set_to_none=True)
    before = [buffer.clone() for buffer in model.buffers()]
    step = accumulate_gradients(
        model,
        loss,
        batch,
        mean_std=mean_std,
        fill=fill,
        size=size,
        accumulate=accumulate,
        dtype=dtype,
        scaler=scaler,
    )
    if scaler is not None:
        scaler.unscale_(optimizer)
    grad_norm = nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    finite = bool(step.loss.isfinite() & grad_norm.isfinite())
    metrics = {"loss": step.loss, "grad_norm": grad_norm, "finite": finite}
    metrics["learning_rate"] = optimizer.param_groups[0]["lr"]
    if not step.loss.isfinite():
        with torch.no_grad():
            for buffer, old in zip(model.buffers(), before, strict=True):
                buffer.copy_(old)
    if scaler is not None:
        scaler.step(optimizer)  # Which skips it itself.
        scaler.update()
        metrics["scale"] = scaler.get_scale()
    elif finite:
        optimizer.step()
    if finite and ema is not None:
        ema.update_parameters(model)
    with warnings.catch_warnings():  # The first step may be one that was skipped.
        warnings.filterwarnings("ignore", "Detected call of .lr_scheduler.step")
        schedule()
    return metrics


@torch.no_grad()
def eval_step(
    model: nn.Module,
    batch: Batch,
    *,
    loss: Loss,
    mean_std: Normalisation,
    classes: int,
    size: tuple[int, int] | None = None,
    dtype: torch.dtype | None = None,
) -> tuple[Metrics, Tensor]:
    """Evaluates a batch without augmentation, with the running statistics.

    Returns:
      Over the pixels that count: `sums` of the loss, `confusion` counts int64 [C, C], and
      `boundary` counts int64 [C, 4]; and the predicted class ids [B, H, W].
    """
    model.eval()
    precise = next(model.parameters()).dtype
    image, mask = inputs_and_targets(batch, mean_std, precise, IGNORED, size)
    with lower_precision(dtype, image.device):
        logits = model(image)
    logits = logits.to(precise)
    predicted = predict_classes(logits)
    tolerance = boundary_tolerance((mask.shape[1], mask.shape[2]))
    counts = {
        "sums": loss.sums(logits, mask, batch.valid, border_map(batch, size)),
        "confusion": confusion_counts(predicted, mask, batch.valid, classes),
        "boundary": boundary_counts(predicted, mask, batch.valid, classes, tolerance),
    }
    return counts, predicted


def _add(parts: Sequence[Sums]) -> Sums:
    return {name: torch.stack([part[name].detach() for part in parts]).sum(0) for name in parts[0]}

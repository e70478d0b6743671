"""One training step and one evaluation step, as pure functions."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from unet_jax.augment import Normalisation, border_map, inputs_and_targets
from unet_jax.batch import IGNORED, Batch
from unet_jax.gradients import loss_and_grads, over_devices
from unet_jax.losses import Loss
from unet_jax.metrics import (
    boundary_counts,
    boundary_tolerance,
    confusion_counts,
    predict_classes,
)
from unet_jax.models import UNet
from unet_jax.models.passes import written
from unet_jax.state import TrainState
from unet_jax.vectors import tree_of, vectors

Metrics = dict[str, jax.Array]
LearningRate = Callable[[jax.Array], jax.Array]


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    model: UNet,
    optimizer: optax.GradientTransformation,
    loss: Loss,
    learning_rate: LearningRate,
    mean_std: Normalisation,
    fill: int,
    size: tuple[int, int] | None = None,
    accumulate: int = 1,
    unroll: bool = False,
    ema_decay: float = 0.0,
    axis_name: str | None = None,
) -> tuple[TrainState, Metrics]:
    """Takes one optimiser step, or skips it if the loss or a gradient is not finite.

    Args:
      state: What the last step gave back; the same on every device of `axis_name`.
      batch: This device's samples, as in `unet_jax.batch`, and how to augment them.
      model: The network.
      optimizer: Turns gradients into a direction.
      loss: What is minimised.
      learning_rate: Of each step.
      mean_std: Per-channel mean and standard deviation of images in 0..1.
      fill: What masks hold outside of the picture.
      size: H and W that the network is given; None: the batch's own.
      accumulate: Micro-batches; the gradients are those of the whole batch.
      unroll: Whether they are compiled one by one, and not as a loop.
      ema_decay: Share that the average of the parameters keeps of itself.
      axis_name: Mapped axis of the devices; None on one.

    Returns:
      The next state; and `loss`, `grad_norm` (before clipping), `learning_rate`, `skipped_in_row`
      (0 if this step was taken), in float16 `scale`, and of many hosts `stop`: whether one of
      them was asked to.
    """
    grads, sums, batch_stats = loss_and_grads(
        model,
        loss,
        state.params,
        state.batch_stats,
        batch,
        mean_std=mean_std,
        fill=fill,
        size=size,
        accumulate=accumulate,
        unroll=unroll,
        axis_name=axis_name,
        scale=state.scale and state.scale.factor,
    )
    before, grads = vectors(state.params), vectors(grads)
    value, grad_norm = loss.total(sums), optax.tree.norm(grads)
    rate = learning_rate(state.step) * state.plateau.factor
    direction, opt_state = optimizer.update(grads, state.opt_state, before)
    after = jax.tree.map(lambda p, d: p - rate.astype(p.dtype) * d, before, direction)

    known = jnp.isfinite(value)
    # On a GPU, choices between arrays of one shape are one operation if they read the same array,
    # which a number by itself is not.
    known, finite = written(jnp.stack([known, known & jnp.isfinite(grad_norm)]))
    stepped = partial(jax.tree.map, partial(jnp.where, finite))
    params = stepped(tree_of(after, state.params), state.params)
    first = state.step == state.skipped
    state = state.replace(
        step=state.step + 1,
        params=params,
        # Like PyTorch's, they follow the forward pass: a gradient alone may overflow in float16.
        batch_stats=jax.tree.map(partial(jnp.where, known), batch_stats, state.batch_stats),
        opt_state=stepped(opt_state, state.opt_state),
        ema=None
        if state.ema is None
        else stepped(_average(state.ema, params, jnp.where(first, 0.0, ema_decay)), state.ema),
        scale=state.scale and state.scale.update(finite),
        skipped=state.skipped + ~finite,
        skipped_in_row=jnp.where(finite, 0, state.skipped_in_row + 1),
    )
    metrics = {
        "loss": value,
        "grad_norm": grad_norm,
        "learning_rate": rate,
        "skipped_in_row": state.skipped_in_row,
    }
    if state.scale is not None:
        metrics["scale"] = state.scale.factor
    if batch.stop is not None:
        metrics["stop"] = jnp.any(batch.stop)
    return state, metrics


def _average(ema: Any, params: Any, decay: jax.Array) -> Any:
    """`torch.optim.swa_utils.get_ema_multi_avg_fn`, whose first average is the parameters."""
    return jax.tree.map(lambda a, p: a + (1 - decay).astype(p.dtype) * (p - a), ema, params)


def eval_step(
    state: TrainState,
    batch: Batch,
    *,
    model: UNet,
    loss: Loss,
    mean_std: Normalisation,
    classes: int,
    size: tuple[int, int] | None = None,
    axis_name: str | None = None,
) -> tuple[dict[str, Any], jax.Array]:
    """Evaluates a batch without augmentation, with the running statistics.

    Returns:
      Over the pixels that count, on all devices: `sums` of the loss, `confusion` counts
      int32 [C, C], and `boundary` counts int32 [C, 4], and of many hosts `stop`, as `train_step`
      has it; and this device's predicted class ids [B, H, W].
    """
    dtype = jax.tree.leaves(state.params)[0].dtype
    variables = {"params": state.evaluated, "batch_stats": state.batch_stats}
    image, mask = inputs_and_targets(batch, mean_std, dtype, IGNORED, size)
    logits = model.apply(variables, image)
    assert isinstance(logits, jax.Array)
    predicted, valid = predict_classes(logits), jnp.asarray(batch.valid)
    tolerance = boundary_tolerance((mask.shape[1], mask.shape[2]))
    counts = {
        "sums": loss.sums(logits, mask, valid, border_map(batch, size)),
        "confusion": confusion_counts(predicted, mask, valid, classes),
        "boundary": boundary_counts(predicted, mask, valid, classes, tolerance),
    }
    counts = over_devices(counts, axis_name)
    if batch.stop is not None:
        counts["stop"] = jnp.any(batch.stop)
    return counts, predicted

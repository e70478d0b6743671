"""One training step and one evaluation step, as pure functions."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct

from unet_jax.augment import Normalisation, inputs_and_targets, normalise
from unet_jax.batch import IGNORED, Batch
from unet_jax.losses import pixel_loss
from unet_jax.metrics import confusion_counts, predict_classes

Metrics = dict[str, jax.Array]


class TrainState(struct.PyTreeNode):
    """What a step takes and gives back: all that a resumed run needs.

    Attributes:
      step: int32 [], steps taken.
      params: Parameters.
      batch_stats: Running statistics of the batch norms; empty without them.
      opt_state: The optimiser's.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState


def init_state(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    image_shape: tuple[int, int, int],
    key: jax.Array,
) -> TrainState:
    """A state with fresh weights for images of [H, W, C]."""
    variables = model.init(key, jnp.zeros((1, *image_shape)))
    params = variables["params"]
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=variables.get("batch_stats", {}),
        opt_state=optimizer.init(params),
    )


class LossSums(NamedTuple):
    """Sums, not means, so that batches and devices just add up."""

    loss: jax.Array
    pixels: jax.Array

    @property
    def mean(self) -> jax.Array:
        """The loss of a pixel; 0 if none counts."""
        return self.loss / jnp.maximum(self.pixels, 1)


def summed_loss(logits: jax.Array, mask: jax.Array, valid: jax.Array) -> LossSums:
    """The loss over the pixels that count, and their number.

    Args:
      logits: float [B, H, W, K].
      mask: uint8 [B, H, W] of class ids; 255 does not count.
      valid: bool [B]; images that count.
    """
    counted = valid[:, None, None] & (mask != IGNORED)
    loss = pixel_loss(logits, jnp.where(counted, mask, 0))
    rows = jnp.sum(jnp.where(counted, loss, 0), axis=-1)  # 0 times infinity would be NaN.
    # XLA would merge the two sums into one, which on a CPU adds pixel after pixel to a total so
    # large that their last bits are lost.
    rows = jax.lax.optimization_barrier(rows)
    return LossSums(jnp.sum(rows), jnp.sum(counted).astype(loss.dtype))


def loss_and_grads(
    model: nn.Module,
    params: Any,
    batch_stats: Any,
    batch: Batch,
    mean_std: Normalisation,
    fill: int,
) -> tuple[Any, LossSums, Any]:
    """Gradients of the batch's mean loss over the pixels that count; 0 if none does.

    Returns:
      The gradients of `params`, the loss' sums, and the new running statistics.
    """
    dtype = jax.tree.leaves(params)[0].dtype
    image, mask = inputs_and_targets(batch, mean_std, dtype, fill)

    def mean_loss(params: Any) -> tuple[jax.Array, tuple[LossSums, Any]]:
        variables = {"params": params, "batch_stats": batch_stats}
        logits, updates = model.apply(variables, image, train=True, mutable=["batch_stats"])
        sums = summed_loss(logits, mask, jnp.asarray(batch.valid))
        return sums.mean, (sums, updates.get("batch_stats", {}))

    grads, (sums, batch_stats) = jax.grad(mean_loss, has_aux=True)(params)
    return grads, sums, batch_stats


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    mean_std: Normalisation,
    fill: int,
) -> tuple[TrainState, Metrics]:
    """Takes one optimiser step.

    Args:
      state: What the last step gave back.
      batch: The samples, as in `unet_jax.batch`, and how to augment them.
      model: The network.
      optimizer: Turns gradients into updates.
      mean_std: Per-channel mean and standard deviation of images in 0..1.
      fill: What masks hold outside of the picture.

    Returns:
      The next state; and `loss` and `pixels` (sums) and `grad_norm` (before clipping).
    """
    grads, sums, batch_stats = loss_and_grads(
        model, state.params, state.batch_stats, batch, mean_std, fill
    )
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    state = TrainState(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        batch_stats=batch_stats,
        opt_state=opt_state,
    )
    return state, {**sums._asdict(), "grad_norm": optax.tree.norm(grads)}


def eval_step(
    state: TrainState, batch: Batch, *, model: nn.Module, mean_std: Normalisation, classes: int
) -> tuple[Metrics, jax.Array]:
    """Evaluates a batch as it is, without augmentation, with the running statistics.

    Returns:
      Sums `loss` and `pixels`, and `confusion` counts int32 [C, C], over the pixels that count;
      and the predicted class ids [B, H, W].
    """
    dtype = jax.tree.leaves(state.params)[0].dtype
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    logits = model.apply(variables, normalise(batch.image, mean_std, dtype))
    assert isinstance(logits, jax.Array)
    predicted = predict_classes(logits)
    mask, valid = jnp.asarray(batch.mask), jnp.asarray(batch.valid)
    confusion = confusion_counts(predicted, mask, valid, classes)
    return {**summed_loss(logits, mask, valid)._asdict(), "confusion": confusion}, predicted

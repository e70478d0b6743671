"""One training step and one evaluation step, as pure functions."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax import lax

from unet_jax.augment import Normalisation, border_map, inputs_and_targets
from unet_jax.batch import IGNORED, Batch
from unet_jax.losses import Loss, Sums
from unet_jax.metrics import (
    boundary_counts,
    boundary_tolerance,
    confusion_counts,
    predict_classes,
)
from unet_jax.models import UNet
from unet_jax.scale import LossScale
from unet_jax.schedule import Plateau

Metrics = dict[str, jax.Array]
LearningRate = Callable[[jax.Array], jax.Array]


class TrainState(struct.PyTreeNode):
    """What a step takes and gives back: all that a resumed run needs.

    Attributes:
      step: int32 [], steps taken, skipped ones included.
      params: Parameters.
      batch_stats: Running statistics of the batch norms; empty without them.
      opt_state: The optimiser's.
      plateau: The factor that validation has brought the learning rate to.
      skipped: int32 [], steps that changed no parameter, since something was not finite.
      skipped_in_row: int32 [], of these, the last ones without another between.
      ema: Exponential moving average of the parameters, which is what is evaluated; or None.
      scale: Of the loss, in float16; or None.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    plateau: Plateau
    skipped: jax.Array
    skipped_in_row: jax.Array
    ema: Any = None
    scale: LossScale | None = None

    @property
    def evaluated(self) -> Any:
        """The parameters that are validated and predicted with."""
        return self.params if self.ema is None else self.ema


def start_state(
    params: Any,
    batch_stats: Any,
    *,
    optimizer: optax.GradientTransformation,
    ema: bool = False,
    scaled: bool = False,
) -> TrainState:
    """The state before the first step.

    Args:
      params: The network's parameters.
      batch_stats: Its running statistics.
      optimizer: Its state is made for `params`.
      ema: Whether an average of the parameters is kept.
      scaled: Whether the loss is scaled.
    """
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=batch_stats,
        opt_state=optimizer.init(params),
        plateau=Plateau.start(),
        skipped=jnp.zeros((), jnp.int32),
        skipped_in_row=jnp.zeros((), jnp.int32),
        # A copy: a donated state must not hold one buffer twice.
        ema=jax.tree.map(jnp.copy, params) if ema else None,
        scale=LossScale.start() if scaled else None,
    )


class Gradients(NamedTuple):
    """What a batch says.

    Attributes:
      grads: Of the parameters.
      sums: The loss' sums over the whole batch, on all devices.
      batch_stats: The new running statistics.
    """

    grads: Any
    sums: Sums
    batch_stats: Any


def loss_and_grads(
    model: UNet,
    loss: Loss,
    params: Any,
    batch_stats: Any,
    batch: Batch,
    *,
    mean_std: Normalisation,
    fill: int,
    size: tuple[int, int] | None = None,
    accumulate: int = 1,
    axis_name: str | None = None,
    scale: jax.Array | None = None,
) -> Gradients:
    """Gradients of the loss of the whole batch, however it is divided.

    The loss is a function of sums over images. Its derivatives by these sums are taken once they
    are known for all micro-batches and devices; each then adds what its own images contribute.

    Args:
      model: The network.
      loss: What is minimised.
      params: Its parameters.
      batch_stats: Its running statistics.
      batch: This device's images.
      mean_std: Per-channel mean and standard deviation of images in 0..1.
      fill: What masks hold outside of the picture.
      size: H and W that the network is given; None: the batch's own.
      accumulate: Micro-batches that are computed one after another; each is every n-th image, so
        that all devices take part in each.
      axis_name: Mapped axis of the devices; None on one.
      scale: What gradients are multiplied by on their way.
    """
    dtype = jax.tree.leaves(params)[0].dtype
    image, mask = inputs_and_targets(batch, mean_std, dtype, fill, size)
    images = (image, mask, jnp.asarray(batch.valid), border_map(batch, size))

    def forward(params: Any, batch_stats: Any, images: Any) -> tuple[Sums, Any]:
        image, mask, valid, border = images
        variables = {"params": params, "batch_stats": batch_stats}
        logits, updates = model.apply(variables, image, train=True, mutable=["batch_stats"])
        return loss.sums(logits, mask, valid, border), updates.get("batch_stats", {})

    def derivatives(sums: Sums) -> Sums:
        by_sums = jax.grad(loss.total)(sums)
        return by_sums if scale is None else jax.tree.map(lambda d: d * scale, by_sums)

    if accumulate == 1:
        run = partial(forward, batch_stats=batch_stats, images=images)
        sums, pull, batch_stats = jax.vjp(run, params, has_aux=True)
        sums = _over_devices(sums, axis_name)
        (grads,) = pull(derivatives(sums))
    else:
        parts = jax.tree.map(partial(_every_nth, n=accumulate), images)
        shapes = jax.eval_shape(forward, params, batch_stats, jax.tree.map(lambda x: x[0], parts))
        none = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), (params, shapes[0]))
        # The loss is linear in all other sums, so their values do not change its derivatives.
        known = none[1] | loss.normalisers(mask, jnp.asarray(batch.valid), dtype)
        known = derivatives(_over_devices(known, axis_name))

        def add(carry: Gradients, images: Any) -> tuple[Gradients, None]:
            run = partial(forward, batch_stats=carry.batch_stats, images=images)
            sums, pull, batch_stats = jax.vjp(run, params, has_aux=True)
            (grads,) = pull(known)
            grads, sums = jax.tree.map(jnp.add, (carry.grads, carry.sums), (grads, sums))
            return Gradients(grads, sums, batch_stats), None

        start = Gradients(none[0], none[1], batch_stats)
        # In a loop, XLA's convolutions take four times as long on a CPU; elsewhere it saves memory.
        unroll = jax.default_backend() == "cpu"
        (grads, sums, batch_stats), _ = lax.scan(add, start, parts, unroll=unroll)
        sums = _over_devices(sums, axis_name)

    grads = _over_devices(grads, axis_name)
    if scale is not None:
        grads = jax.tree.map(lambda g: g / scale.astype(g.dtype), grads)
    return Gradients(grads, sums, batch_stats)


def _over_devices(tree: Any, axis_name: str | None) -> Any:
    return tree if axis_name is None else lax.psum(tree, axis_name)


def _every_nth(x: jax.Array, n: int) -> jax.Array:
    """[B, ...] -> [n, B / n, ...], part i holding the images i, i + n, i + 2n, …"""
    return jnp.moveaxis(x.reshape(x.shape[0] // n, n, *x.shape[1:]), 1, 0)


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
        axis_name=axis_name,
        scale=state.scale and state.scale.factor,
    )
    value, grad_norm = loss.total(sums), optax.tree.norm(grads)
    rate = learning_rate(state.step) * state.plateau.factor
    direction, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = jax.tree.map(lambda p, d: p - rate.astype(p.dtype) * d, state.params, direction)

    finite = jnp.isfinite(value) & jnp.isfinite(grad_norm)
    stepped = partial(jax.tree.map, partial(jnp.where, finite))
    first = state.step == state.skipped
    state = state.replace(
        step=state.step + 1,
        params=stepped(params, state.params),
        # Like PyTorch's, they follow the forward pass: a gradient alone may overflow in float16.
        batch_stats=jax.tree.map(
            partial(jnp.where, jnp.isfinite(value)), batch_stats, state.batch_stats
        ),
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
    counts = _over_devices(counts, axis_name)
    if batch.stop is not None:
        counts["stop"] = jnp.any(batch.stop)
    return counts, predicted

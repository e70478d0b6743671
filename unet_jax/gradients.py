"""The gradients of a batch, however it is divided among devices and micro-batches."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from unet_jax.augment import Normalisation, border_map, inputs_and_targets
from unet_jax.batch import Batch
from unet_jax.losses import Loss, Sums
from unet_jax.models import UNet


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
    unroll: bool = False,
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
      unroll: Whether they are compiled one by one, and not as a loop.
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
        sums = over_devices(sums, axis_name)
        (grads,) = pull(derivatives(sums))
    else:
        parts = jax.tree.map(partial(_every_nth, n=accumulate), images)
        shapes = jax.eval_shape(forward, params, batch_stats, jax.tree.map(lambda x: x[0], parts))
        none = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), (params, shapes[0]))
        # The loss is linear in all other sums, so their values do not change its derivatives.
        known = none[1] | loss.normalisers(mask, jnp.asarray(batch.valid), dtype)
        known = derivatives(over_devices(known, axis_name))

        def add(carry: Gradients, images: Any) -> tuple[Gradients, None]:
            run = partial(forward, batch_stats=carry.batch_stats, images=images)
            sums, pull, batch_stats = jax.vjp(run, params, has_aux=True)
            (grads,) = pull(known)
            grads, sums = jax.tree.map(jnp.add, (carry.grads, carry.sums), (grads, sums))
            return Gradients(grads, sums, batch_stats), None

        start = Gradients(none[0], none[1], batch_stats)
        (grads, sums, batch_stats), _ = lax.scan(add, start, parts, unroll=unroll)
        sums = over_devices(sums, axis_name)

    grads = over_devices(grads, axis_name)
    if scale is not None:
        grads = jax.tree.map(lambda g: g / scale.astype(g.dtype), grads)
    return Gradients(grads, sums, batch_stats)


def over_devices(tree: Any, axis_name: str | None) -> Any:
    """Sums over the devices of a mapped axis, if there is one."""
    return tree if axis_name is None else lax.psum(tree, axis_name)


def _every_nth(x: jax.Array, n: int) -> jax.Array:
    """[B, ...] -> [n, B / n, ...], part i holding the images i, i + n, i + 2n, …"""
    return jnp.moveaxis(x.reshape(x.shape[0] // n, n, *x.shape[1:]), 1, 0)

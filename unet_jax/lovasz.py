"""The Lovász extension of each image's 1 - IoU, as a sum over its pixels."""

import jax
import jax.numpy as jnp


def lovasz_hinge(logits: jax.Array, truth: jax.Array, counted: jax.Array) -> jax.Array:
    """The Lovász extension in the hinge losses of the foreground.

    Args:
      logits: float [B, H, W].
      truth: bool [B, H, W]; pixels of the foreground that count.
      counted: bool [B, H, W]; pixels that count.

    Returns:
      What each pixel adds to its image's loss, [B, H, W]; 0 where it does not count.

    References:
      Berman, Triki and Blaschko, 2018. https://arxiv.org/abs/1705.08790
    """
    hinge = jax.nn.relu(1 - jnp.where(truth, logits, -logits))
    errors = jnp.where(counted, hinge, 0)
    return errors * _slopes(errors, truth, counted)


def lovasz_softmax(p: jax.Array, truth: jax.Array, counted: jax.Array) -> jax.Array:
    """The Lovász extension in the errors of the probabilities, mean over the classes present.

    Args:
      p: float [B, H, W, C].
      truth: bool [B, H, W, C]; the class of each pixel that counts.
      counted: bool [B, H, W]; pixels that count.

    Returns:
      What each pixel adds to its image's loss, [B, H, W]; 0 where it does not count.

    References:
      Berman, Triki and Blaschko, 2018. https://arxiv.org/abs/1705.08790
    """
    errors = jnp.where(counted[..., None], jnp.where(truth, 1 - p, p), 0)
    slopes = jax.vmap(_slopes, in_axes=(-1, -1, None), out_axes=-1)(errors, truth, counted)
    present = jnp.any(truth, axis=(1, 2), keepdims=True)
    losses = jnp.where(present, errors * slopes, 0)
    return jnp.sum(losses, axis=-1) / jnp.maximum(jnp.sum(present, axis=-1), 1)


def _slopes(errors: jax.Array, truth: jax.Array, counted: jax.Array) -> jax.Array:
    """What each of [B, H, W] errors is multiplied by.

    In the order of their errors, from the largest, pixels are taken to be wrong one after another;
    a pixel's slope is what that adds to 1 - IoU. A missed one takes 1 from the intersection:
    1 / union. A false alarm adds 1 to the union: intersection / (union - 1) - intersection / union.
    Among equal errors the first pixel comes first, which decides which subgradient is taken.
    """
    flat = errors.shape[0], -1
    # Those that do not count come last, where they change nothing for the others.
    keys = jnp.where(counted, -jax.lax.stop_gradient(errors), jnp.inf).reshape(flat)
    order = jnp.argsort(keys, axis=-1, stable=True)
    missed = jnp.take_along_axis(truth.reshape(flat), order, axis=-1)
    true = jnp.sum(missed, axis=-1, keepdims=True)
    intersection = (true - jnp.cumsum(missed, axis=-1)).astype(errors.dtype)
    union = (true + jnp.cumsum(~missed, axis=-1)).astype(errors.dtype)
    # A product, for a difference of two IoU would lose its digits in float32. Where nothing is
    # true, the first false alarm (a union of 1) takes 1 - IoU from 0 to 1.
    slopes = jnp.where(missed | (union == 1), 1, intersection / jnp.maximum(union - 1, 1)) / union
    return jnp.take_along_axis(slopes, jnp.argsort(order, axis=-1), axis=-1).reshape(errors.shape)

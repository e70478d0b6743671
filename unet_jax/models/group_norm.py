"""Group norm with a gradient that keeps its input alone. Images are [B, H, W, C]."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def group_norm(
    x: jax.Array, scale: jax.Array, bias: jax.Array, groups: int, epsilon: float
) -> jax.Array:
    """`torch.nn.functional.group_norm`; it can be differentiated in reverse only.

    Args:
      x: [B, H, W, C].
      scale: Of each channel, [C]; what is computed in is of its type.
      bias: [C].
      groups: That the channels are divided into.
      epsilon: Added to each variance.

    Returns:
      [B, H, W, C], of the type of x.

    References:
      Wu and He, 2018. https://arxiv.org/abs/1803.08494
    """
    return _forward(x, scale, bias, groups, epsilon)[0]


def _forward(
    x: jax.Array, scale: jax.Array, bias: jax.Array, groups: int, epsilon: float
) -> tuple[jax.Array, tuple]:
    wide = x.astype(scale.dtype)
    mean = _over_groups(jnp.mean(wide, (1, 2)), groups)
    # Centred first: the one-pass variance, E[x²] - E[x]², cancels where the mean is large.
    variance = _over_groups(jnp.mean(jnp.square(wide - mean), (1, 2)), groups)
    inverse = lax.rsqrt(variance + epsilon)
    factor = inverse * scale.reshape(1, 1, 1, -1)
    y = (wide - mean) * factor + bias.reshape(1, 1, 1, -1)
    return y.astype(x.dtype), (x, scale, mean, inverse)


def _backward(
    groups: int, epsilon: float, saved: tuple, g: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, scale, mean, inverse = saved
    normal = (x.astype(scale.dtype) - mean) * inverse
    g = g.astype(scale.dtype)
    by_bias, by_scale = jnp.sum(g, (1, 2)), jnp.sum(g * normal, (1, 2))
    pixels = x.shape[1] * x.shape[2]
    # What moves with a group's mean and with its deviation cannot reach the output.
    level = _over_groups(by_bias * (scale / pixels).reshape(1, -1), groups)
    slope = _over_groups(by_scale * (scale / pixels).reshape(1, -1), groups)
    by_x = inverse * (g * scale.reshape(1, 1, 1, -1) - level - normal * slope)
    return by_x.astype(x.dtype), by_scale.sum(0), by_bias.sum(0)


group_norm.defvjp(_forward, _backward)


def _over_groups(channels: jax.Array, groups: int) -> jax.Array:
    """The mean of each image's groups, [B, 1, 1, C] of [B, C]: every channel has its group's."""
    batch, features = channels.shape
    means = channels.reshape(batch, groups, -1).mean(-1)
    return jnp.repeat(means, features // groups, axis=-1).reshape(batch, 1, 1, features)

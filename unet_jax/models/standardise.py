"""What group and batch norm do, with a gradient that keeps the input alone.

Images are [B, H, W, C].
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from unet_jax.models.passes import pixel_sums
from unet_jax.models.platforms import by_platform

FAR = 16
"""Squared distance of a mean from 0, in variances, up to which E[x²] - E[x]² is near enough to the
variance: with XLA's sums of float32 on x86-64, off by less than 1e-5 of it (docs/speed_cpu.md)."""


class Alike(NamedTuple):
    """Which values have a mean and a variance in common.

    Attributes:
      groups: Those of so many groups of an image's channels; None: a channel's in all images.
      axis_name: Mapped axis whose devices' images count, too.
    """

    groups: int | None = None
    axis_name: str | None = None

    def mean(self, channels: jax.Array) -> jax.Array:
        """[B, C], the means of each image's channels -> [B or 1, 1, 1, C], this device's."""
        batch, features = channels.shape
        if self.groups is None:
            return channels.mean(0).reshape(1, 1, 1, features)
        means = channels.reshape(batch, self.groups, -1).mean(-1)
        return jnp.repeat(means, features // self.groups, axis=-1).reshape(batch, 1, 1, features)

    def over_devices(self, x: jax.Array) -> jax.Array:
        return x if self.axis_name is None else lax.pmean(x, self.axis_name)


def standardise(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    alike: Alike,
    epsilon: float,
    rectified: bool = False,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Takes off the mean, divides by the deviation, scales and shifts.

    It can be differentiated in reverse only; no gradient comes through mean and variance.

    Args:
      x: [B, H, W, C].
      scale: Of each channel, [C]; what is computed in is of its type.
      bias: [C].
      alike: Which values have their statistics in common.
      epsilon: Added to each variance.
      rectified: Whether a ReLU follows.

    Returns:
      [B, H, W, C], of the type of x; mean and variance, [B or 1, 1, 1, C], of that of `scale`.

    References:
      Ioffe and Szegedy, 2015 (batch norm). https://arxiv.org/abs/1502.03167
      Wu and He, 2018 (group norm). https://arxiv.org/abs/1803.08494
    """
    return _standardise(x, scale, bias, alike, epsilon, rectified)


def by_statistics(
    x: jax.Array,
    mean: jax.Array,
    variance: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    epsilon: float,
) -> jax.Array:
    """The same by given statistics, of shapes that go with x."""
    factor = lax.rsqrt(variance + epsilon) * scale.reshape(1, 1, 1, -1)
    y = (x.astype(scale.dtype) - mean) * factor + bias.reshape(1, 1, 1, -1)
    return y.astype(x.dtype)


Results = tuple[jax.Array, jax.Array, jax.Array]


def _plain(*given: Any) -> Results:
    return _forward(*given)[0]


_standardise = jax.custom_vjp(_plain, nondiff_argnums=(3, 4, 5))


def _forward(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    alike: Alike,
    epsilon: float,
    rectified: bool,
) -> tuple[Results, tuple]:
    mean, variance = _statistics(x.astype(scale.dtype), alike)
    y = by_statistics(x, mean, variance, scale, bias, epsilon)
    y = jnp.maximum(y, 0) if rectified else y
    return (y, mean, variance), (x, scale, bias, mean, lax.rsqrt(variance + epsilon))


def _backward(
    alike: Alike, epsilon: float, rectified: bool, saved: tuple, gradients: Results
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The gradients of y = scale * normal + bias, where normal = (x - mean) * inverse.

    Where h is scale * g, g being the gradient by y, and E the mean of the values that are alike,
    that by x is inverse * (h - E[h] - normal * E[h * normal]). `level` is E[h], and `slope` is
    E[h * normal].
    """
    x, scale, bias, mean, inverse = saved
    centred, g = x.astype(scale.dtype) - mean, gradients[0]
    if rectified:
        y = centred * (inverse * scale.reshape(1, 1, 1, -1)) + bias.reshape(1, 1, 1, -1)
        g = jnp.where(y.astype(x.dtype) > 0, g, 0)
    g, normal = g.astype(scale.dtype), centred * inverse
    by_bias, by_scale = pixel_sums(g, g * normal, read=2)
    share = (scale / (x.shape[1] * x.shape[2])).reshape(1, -1)
    # What moves with the mean and with the deviation cannot reach the output.
    level, slope = (alike.over_devices(alike.mean(s * share)) for s in (by_bias, by_scale))
    by_x = inverse * (g * scale.reshape(1, 1, 1, -1) - level - normal * slope)
    return by_x.astype(x.dtype), by_scale.sum(0), by_bias.sum(0)


_standardise.defvjp(_forward, _backward)


def _statistics(x: jax.Array, alike: Alike) -> tuple[jax.Array, jax.Array]:
    """Mean and variance, [B or 1, 1, 1, C] each."""
    if x.dtype.itemsize < 4:
        mean = alike.over_devices(alike.mean(jnp.mean(x, (1, 2))))
        return mean, alike.over_devices(_centred(x, mean, alike))
    by_squares, shifted = partial(_by_squares, alike=alike), partial(_shifted, alike=alike)
    return by_platform(x, cpu=by_squares, default=shifted)


def _centred(x: jax.Array, mean: jax.Array, alike: Alike) -> jax.Array:
    """The variance by its definition, on this device."""
    return alike.mean(jnp.mean(jnp.square(x - mean), (1, 2)))


def _by_squares(x: jax.Array, alike: Alike) -> tuple[jax.Array, jax.Array]:
    """Without x - mean, which XLA writes to memory on a CPU; but it cancels.

    Where M is the mean that channels or images share, and m a channel's own in one image,
    E[(x - M)²] = E[x²] - (2m - M)M.
    """
    means = jnp.mean(x, (1, 2))
    mean = alike.over_devices(alike.mean(means))
    middle = mean.reshape(-1, x.shape[-1])
    squares = jnp.mean(jnp.square(x), (1, 2)) - (2 * means - middle) * middle
    variance = alike.mean(squares)
    # Squares that overflow, or their sum, leave nan or infinity.
    near = jnp.all(jnp.isfinite(variance) & (jnp.square(mean) <= FAR * variance))
    centred = partial(_centred, alike=alike)
    variance = lax.cond(near, lambda *_: variance, centred, x, mean)
    return mean, alike.over_devices(variance)


def _shifted(x: jax.Array, alike: Alike) -> tuple[jax.Array, jax.Array]:
    """In one pass over x, less the mean of a sixteenth of its pixels.

    If that mean is d off the mean of all, the variance is at least d² / 15, however the values are
    distributed: so of E[y²] - E[y]² at least a sixteenth is left.
    """
    sample = x[:, ::4, ::4]
    [sums] = pixel_sums(sample)
    shift = alike.over_devices(alike.mean(sums / (sample.shape[1] * sample.shape[2])))
    y, pixels = x - shift, x.shape[1] * x.shape[2]
    sums = pixel_sums(y, jnp.square(y))
    rest, square = (alike.over_devices(alike.mean(each / pixels)) for each in sums)
    # Of equal values, and a mean that is rounded, less than nothing may be left.
    return shift + rest, jnp.maximum(square - jnp.square(rest), 0)

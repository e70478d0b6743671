"""Augmentation on the device: what the host drew (`unet_jax.draws`), applied to a batch."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from unet_jax.batch import Batch

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]
LUMINANCE = (0.2989, 0.587, 0.114)


def inputs_and_targets(
    batch: Batch,
    mean_std: Normalisation,
    dtype: Any,
    fill: int,
    size: tuple[int, int] | None = None,
) -> tuple[jax.Array, jax.Array]:
    """What the network is given: the batch with its colours and its geometry changed.

    Args:
      batch: The samples; without `colour` and `geometry`, images are only normalised.
      mean_std: Per-channel mean and standard deviation of images in 0..1.
      dtype: Of the images.
      fill: What the mask holds outside of the picture; there the image has the mean colour.
      size: H and W that `geometry` is for; None: the batch's own.

    Returns:
      Normalised images [B, H, W, C], and masks uint8 [B, H, W].
    """
    image, mask = normalise(batch.image, mean_std, dtype, batch.colour), jnp.asarray(batch.mask)
    if batch.geometry is None:
        return image, mask
    return warp(image, batch.geometry, size), warp_mask(mask, batch.geometry, fill, size)


def border_map(batch: Batch, size: tuple[int, int] | None = None) -> jax.Array | None:
    """The batch's border map [B, H, W] with its geometry changed; 0 outside of the picture."""
    if batch.border is None or batch.geometry is None:
        return None if batch.border is None else jnp.asarray(batch.border)
    return warp_mask(jnp.asarray(batch.border), batch.geometry, 0, size)


def normalise(
    image: Any, mean_std: Normalisation, dtype: Any, factors: Any | None = None
) -> jax.Array:
    """uint8 [B, H, W, C] -> (image / 255 - mean) / std, each channel its own.

    `factors` [B, 5] change the colours before the mean is taken off.
    """
    mean, std = (jnp.asarray(values, dtype).reshape(1, 1, 1, -1) for values in mean_std)
    image = jnp.asarray(image).astype(dtype) / 255
    if factors is not None:
        image = colour(image, jnp.asarray(factors))
    return (image - mean) / std


def colour(image: jax.Array, factors: jax.Array) -> jax.Array:
    """Changes gamma, brightness, contrast, saturation and hue, in this order.

    Gamma is first, where values are still exact: for exponents below 1 its slope at 0 has no
    bound, and would show the rounding of what came before it. Values are cut to 0..1 after each.

    Args:
      image: [B, H, W, 3] in 0..1.
      factors: [B, 5], as in `unet_jax.draws.Draw.colour`. What is 1 (hue: 0) changes no bit.

    References:
      torchvision.transforms.functional.adjust_gamma, adjust_brightness, adjust_contrast,
      adjust_saturation and adjust_hue (in HSV) do the same.
    """
    columns = jnp.split(factors.astype(image.dtype)[:, None, None], 5, axis=-1)  # [B, 1, 1, 1]
    brightness, contrast, saturation, shift, exponent = columns
    image = _unless(exponent == 1, image, lambda image: image**exponent)
    image = _blend(image, jnp.zeros_like(image), brightness)
    image = _blend(image, _luminance(_mean_colour(image)), contrast)
    image = _blend(image, _luminance(image), saturation)
    return _unless(shift == 0, image, lambda image: _turn_hue(image, shift))


def warp(image: jax.Array, geometry: Any, size: tuple[int, int] | None = None) -> jax.Array:
    """Takes each pixel from where int32 [B, 2, 3] says: bilinear, 0 outside.

    Args:
      image: [B, H', W', C].
      geometry: As in `unet_jax.draws.Draw.geometry`.
      size: H and W; None: the image's.

    Returns:
      [B, H, W, C].
    """
    x, y = _source(geometry, size or image.shape[1:3])
    # The low 16 bits are a share of a pixel; float32 holds it exactly.
    right, below = ((v & 0xFFFF).astype(image.dtype)[..., None] / 65536 for v in (x, y))
    batch, height, width, channels = image.shape
    # Two zeros all round: whatever is outside finds all of its neighbours there.
    x, y = (jnp.clip((v >> 16) + 2, 0, n + 2) for v, n in ((x, width), (y, height)))
    pixels = jnp.pad(image, ((0, 0), (2, 2), (2, 2), (0, 0))).reshape(batch, -1, channels)
    first = (y * (width + 4) + x).reshape(batch, -1, 1)

    def take(beside: int) -> jax.Array:
        taken = jnp.take_along_axis(pixels, first + beside, axis=1, mode="promise_in_bounds")
        return taken.reshape(*x.shape, channels)

    upper = take(0) * (1 - right) + take(1) * right
    lower = take(width + 4) * (1 - right) + take(width + 5) * right
    return upper * (1 - below) + lower * below


def warp_mask(
    mask: jax.Array, geometry: Any, fill: int, size: tuple[int, int] | None = None
) -> jax.Array:
    """Takes each id from where int32 [B, 2, 3] says: nearest, `fill` outside.

    Half-way between two pixels, the right and the lower one are nearest.

    Args:
      mask: [B, H', W'].
      geometry: As in `unet_jax.draws.Draw.geometry`.
      fill: The id outside.
      size: H and W; None: the mask's.

    Returns:
      [B, H, W].
    """
    batch, height, width = mask.shape
    x, y = ((v + 0x8000) >> 16 for v in _source(geometry, size or (height, width)))
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    place = jnp.clip(y, 0, height - 1) * width + jnp.clip(x, 0, width - 1)
    taken = jnp.take_along_axis(
        mask.reshape(batch, -1), place.reshape(batch, -1), axis=1, mode="promise_in_bounds"
    )
    return jnp.where(inside, taken.reshape(x.shape), fill)


def _source(geometry: Any, size: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """Where each output pixel is taken from: x and y in fixed point, int32 [B, H, W]."""
    x, y = (jax.lax.broadcasted_iota(jnp.int32, (1, *size), axis) for axis in (2, 1))
    g = jnp.asarray(geometry)[..., None, None]  # [B, 2, 3, 1, 1]
    return tuple(g[:, row, 0] * x + g[:, row, 1] * y + g[:, row, 2] for row in range(2))  # type: ignore[return-value]


def _unless(
    same: jax.Array, image: jax.Array, change: Callable[[jax.Array], jax.Array]
) -> jax.Array:
    """Changes those images [B, H, W, C] that `same` [B, 1, 1, 1] does not hold for."""
    # Powers and hues are slow on a CPU: a batch that needs none is spared them.
    return jax.lax.cond(
        jnp.all(same),
        lambda image: image,
        lambda image: jnp.where(same, image, change(image)),
        image,
    )


def _blend(image: jax.Array, other: jax.Array, share: jax.Array) -> jax.Array:
    """`share` of the image and the rest of the other; more than 1 leads away from the other."""
    return jnp.clip(share * image + (1 - share) * other, 0, 1)


def _mean_colour(image: jax.Array) -> jax.Array:
    """[B, 1, 1, 3]."""
    # XLA would merge the two means into one, which takes a CPU four times as long.
    columns = jax.lax.optimization_barrier(jnp.mean(image, axis=1, keepdims=True))
    return jnp.mean(columns, axis=2, keepdims=True)


def _luminance(image: jax.Array) -> jax.Array:
    # As terms, not as a sum over an axis of three, for which XLA has no good code on a CPU.
    red, green, blue = (
        weight * channel
        for weight, channel in zip(LUMINANCE, jnp.split(image, 3, axis=-1), strict=True)
    )
    return red + green + blue


def _turn_hue(image: jax.Array, shift: jax.Array) -> jax.Array:
    """Shifts the hue in HSV by a share of the circle; saturation and value stay.

    Round the circle, in sixths, a channel is at the pixel's highest value for two, falls for one,
    is at its lowest for two, and rises for one; blue is two sixths behind green, as green is
    behind red.
    """
    red, green, blue = jnp.split(image, 3, axis=-1)
    high, low = jnp.max(image, -1, keepdims=True), jnp.min(image, -1, keepdims=True)
    chroma = high - low
    divisor = jnp.where(chroma == 0, 1, chroma)  # Grey has no hue: any will do.
    hue = jnp.where(
        high == red,
        (green - blue) / divisor,
        jnp.where(high == green, (blue - red) / divisor + 2, (red - green) / divisor + 4),
    )
    start = jnp.asarray((5, 3, 1), image.dtype).reshape(1, 1, 1, 3)
    place = (start + hue + 6 * shift) % 6
    return jnp.clip(high - chroma * jnp.clip(jnp.minimum(place, 4 - place), 0, 1), 0, 1)

"""Random numbers of augmentation: one sample's geometry and colour, drawn on the host.

Both frameworks apply the same draws, on their devices (`augment.py`).
"""

import math
from typing import NamedTuple

import numpy as np

from unet_jax.config import AugmentConfig

ONE_PIXEL = 1 << 16
"""One source pixel in fixed point."""

MAX_REACH = 32767
"""Farthest source coordinate, in pixels, that int32 in fixed point holds."""


class Draw(NamedTuple):
    """How one sample is varied.

    Attributes:
      geometry: int32 [2, 3] in fixed point, units of 1/65536 source pixel: output pixel (x, y) is
        taken from the source at `geometry @ (x, y, 1)`, the first row being source x; coordinates
        are those of pixel centres, pixel 0's being 0.0. The identity is
        [[65536, 0, 0], [0, 65536, 0]]. Integers, because their arithmetic is the same to the bit
        on every device and in both frameworks, and so are masks; float32 would differ at ties and
        by fused multiply-adds.
      colour: float32 [5]: factors of brightness, contrast and saturation, shift of the hue as a
        share of the colour circle, exponent of gamma. The identity is [1, 1, 1, 0, 1].
    """

    geometry: np.ndarray
    colour: np.ndarray


class _Numbers(NamedTuple):
    """Uniform in [0, 1). All are drawn, in this order, whatever is on: new ones go to the end."""

    horizontal_flip: float
    vertical_flip: float
    angle: float
    zoom: float
    shift_x: float
    shift_y: float
    crop: float
    side: float
    left: float
    top: float
    brightness: float
    contrast: float
    saturation: float
    hue: float
    gamma: float


def geometric(config: AugmentConfig) -> bool:
    """Whether any draw moves pixels."""
    chances = (config.horizontal_flip, config.vertical_flip, config.crop)
    return any((*chances, config.rotation, config.translation)) or config.scale != (1, 1)


def photometric(config: AugmentConfig) -> bool:
    """Whether any draw changes colours."""
    changes = (config.brightness, config.contrast, config.saturation, config.hue, config.gamma)
    return any(changes)


def check_reach(config: AugmentConfig, stored: tuple[int, int], native: tuple[int, int]) -> None:
    """Makes sure that `draw` stays within fixed point for pictures of these sizes.

    Raises:
      ValueError: The smallest zoom looks farther than fixed point reaches.
    """
    stretch = max(stored[0] / native[0], stored[1] / native[1])
    around = math.hypot(*native) * (0.5 + config.translation) / config.scale[0]
    reach = max(stored) + stretch * around
    if reach > MAX_REACH:
        raise ValueError(
            f"scale: {config.scale} shows up to {reach:.0f} pixels around a picture of {stored}; "
            f"at most {MAX_REACH} are possible"
        )


def draw(
    config: AugmentConfig,
    *,
    seed: int,
    epoch: int,
    index: int,
    size: tuple[int, int],
    native: tuple[int, int],
    stored: tuple[int, int] | None = None,
) -> Draw:
    """Draws how a sample is varied in an epoch, from (seed, epoch, index) alone.

    Turning one option on or off leaves the draws of all others as they are.

    Args:
      config: What may change, and how much.
      seed: The run's.
      epoch: From 0.
      index: The sample's, from 0.
      size: Height and width of the sample.
      native: Height and width that the picture has when not squashed; `check_reach` holds for
        them.
      stored: Height and width of the stored picture; None: `size`.
    """
    numbers = np.random.default_rng([seed, epoch, index]).random(len(_Numbers._fields))
    u = _Numbers(*numbers.tolist())
    return Draw(_geometry(config, u, size, native, stored), _colour(config, u))


def affine(
    size: tuple[int, int],
    native: tuple[int, int],
    *,
    stored: tuple[int, int] | None = None,
    mirrored: bool = False,
    upside_down: bool = False,
    angle: float = 0.0,
    zoom: float = 1.0,
    shift: tuple[float, float] = (0.0, 0.0),
    crop: tuple[float, float, float] | None = None,
) -> np.ndarray:
    """One map from output to source pixels: a crop, flipped, turned, zoomed and shifted, in turn.

    Args:
      size: Height and width of the output.
      native: Height and width of the picture when not squashed; angles are true there.
      stored: Height and width of the stored picture, the source; None: `size`.
      mirrored: Left for right.
      upside_down: Top for bottom.
      angle: Degrees counter-clockwise, around the middle of the crop.
      zoom: 2 shows things twice as large.
      shift: How far the picture goes right and down, as shares of the output's sides.
      crop: Left, top and side of a square in native pixels; None: the whole picture.

    Returns:
      int32 [2, 3], as in `Draw.geometry`.
    """
    output, picture = size[::-1], native[::-1]  # Width first.
    corner, window = ((0.0, 0.0), picture) if crop is None else (crop[:2], (crop[2], crop[2]))
    cos, sin = math.cos(math.radians(angle)) / zoom, math.sin(math.radians(angle)) / zoom
    turned = ((cos, -sin), (sin, cos))
    flips = (-1 if mirrored else 1, -1 if upside_down else 1)
    rows = []  # Numbers, not arrays of four: NumPy would take three times as long.
    for axis in (0, 1):
        density = (stored or size)[1 - axis] / picture[axis]  # Stored pixels for each native one.
        step = [
            round(ONE_PIXEL * density * flips[axis] * turned[axis][to] * window[to] / output[to])
            for to in (0, 1)
        ]
        # From the rounded steps, so that the middle is exact and only the far ends carry their
        # error.
        middle = (corner[axis] + window[axis] / 2) * density - 0.5
        way = sum(step[to] * ((output[to] - 1) / 2 + shift[to] * output[to]) for to in (0, 1))
        rows.append([*step, round(ONE_PIXEL * middle - way)])
    return np.array(rows, np.int32)


def _geometry(
    config: AugmentConfig,
    u: _Numbers,
    size: tuple[int, int],
    native: tuple[int, int],
    stored: tuple[int, int] | None,
) -> np.ndarray:
    crop = None
    if u.crop < config.crop:
        side = _between(*config.crop_ratio, u.side) * min(native)
        crop = (u.left * (native[1] - side), u.top * (native[0] - side), side)
    return affine(
        size,
        native,
        stored=stored,
        mirrored=u.horizontal_flip < config.horizontal_flip,
        upside_down=u.vertical_flip < config.vertical_flip,
        angle=_around(0, config.rotation, u.angle),
        zoom=_between(*config.scale, u.zoom),
        shift=(
            _around(0, config.translation, u.shift_x),
            _around(0, config.translation, u.shift_y),
        ),
        crop=crop,
    )


def _colour(config: AugmentConfig, u: _Numbers) -> np.ndarray:
    factors = (
        _around(1, config.brightness, u.brightness),
        _around(1, config.contrast, u.contrast),
        _around(1, config.saturation, u.saturation),
        _around(0, config.hue, u.hue),
        math.exp(_around(0, config.gamma, u.gamma)),
    )
    return np.array(factors, np.float32)


def _between(low: float, high: float, u: float) -> float:
    return low + (high - low) * u


def _around(middle: float, most: float, u: float) -> float:
    return middle + most * (2 * u - 1)

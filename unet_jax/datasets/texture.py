"""Textures and colours of a scene's surfaces.

Points are open grids x [1, W] and y [H, 1]; lengths are in units of a scene's shorter side; colours
are linear light, unless OKLab is named.
"""

import math

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Array = NDArray[np.floating]

# OKLab to cone responses to linear sRGB (Ottosson, 2020).
LAB_TO_LMS = np.array(((1, 0.39634, 0.21580), (1, -0.10556, -0.06385), (1, -0.08948, -1.29149)))
LMS_TO_RGB = np.array(
    ((4.07674, -3.30771, 0.23097), (-1.26844, 2.60976, -0.34132), (-0.0042, -0.70342, 1.70761))
)


KINDS = ("clouds", "wood", "stripes", "tiles", "dots", "grain", "gradient")


def paint(rng: Generator, x: Array, y: Array, tones: Array, kind: str) -> Array:
    """Draws a surface: a texture between two tones.

    Args:
      rng: Source of the texture.
      x: Columns [1, W].
      y: Rows [H, 1].
      tones: OKLab [2, 3].
      kind: One of `KINDS`.

    Returns:
      Albedo [H, W, 3].
    """
    low, high = np.clip((tones @ LAB_TO_LMS.T) ** 3 @ LMS_TO_RGB.T, 0.004, 1).astype(np.float32)
    return low + (high - low) * random_texture(rng, x, y, kind)[..., None]


def random_colour(rng: Generator, hue: float) -> Array:
    """Draws a colour of about this hue (in radians): OKLab [3]."""
    hue += rng.uniform(-0.4, 0.4)
    chroma = rng.uniform(0.06, 0.17)
    return np.array((rng.uniform(0.42, 0.88), chroma * math.cos(hue), chroma * math.sin(hue)))


def distinct_colour(rng: Generator, others: Array) -> Array:
    """Draws six colours of any hue, and returns the one least like the `others` [N, 3]."""
    colours = np.stack([random_colour(rng, rng.uniform(0, 2 * math.pi)) for _ in range(6)])
    apart = np.linalg.norm(colours[:, None] - others, axis=2)
    return colours[apart.min(axis=1).argmax()]


def random_texture(rng: Generator, x: Array, y: Array, kind: str) -> Array:
    """Draws a pattern [H, W] of this kind, in about 0..1."""
    angle, k = rng.uniform(0, 2 * math.pi), 2 * math.pi / rng.uniform(0.1, 0.24)
    c, s = math.cos(angle), math.sin(angle)
    u, v = c * x + s * y, c * y - s * x
    clouds = value_noise(rng, x, y, rng.uniform(0.25, 0.6), 3)
    match kind:
        case "clouds":
            pattern = np.tanh(2.5 * clouds)
        case "wood":  # A cut through warped growth rings.
            pattern = 0.75 * np.sin(1.5 * k * np.hypot(0.3 * u + 0.2, v - 0.5) + 1.5 * clouds)
        case "stripes":  # Straight to wavy.
            pattern = np.tanh(3 * np.sin(k * u + rng.uniform(0, 1.2) * clouds))
        case "tiles":
            pattern = np.tanh(8 * np.sin(k / 1.6 * u) * np.sin(k / 1.6 * v))
        case "dots":
            pattern = np.tanh(4 * (np.cos(k * u) + np.cos(k * v) - 0.7))
        case "grain":
            pattern = np.tanh(2 * value_noise(rng, x, y, 0.05, 2))
        case _:  # A gradient.
            pattern = np.clip(2 * (u - u.mean()), -1, 1)
    return 0.5 + 0.42 * pattern + 0.16 * clouds


def value_noise(rng: Generator, x: Array, y: Array, cell: float, octaves: int) -> Array:
    """Draws smooth noise.

    Args:
      rng: Source of the values on the lattice.
      x: Evenly spaced columns [1, W].
      y: Evenly spaced rows [H, 1].
      cell: Spacing of the first octave's lattice; each further octave halves spacing and height.
      octaves: How many are summed.

    Returns:
      Noise [H, W], in about -1..1.
    """
    total = np.zeros((y.size, x.size), np.float32)
    for octave in range(octaves):
        u, v = (x[0] - x[0, 0]) * (2**octave / cell), (y - y[0]) * (2**octave / cell)
        left, top = u.astype(np.intp), v[:, 0].astype(np.intp)
        lattice = rng.uniform(-1, 1, (top[-1] + 2, left[-1] + 2)).astype(np.float32)
        rows = lattice[top] + smoothstep(v - top[:, None]) * (lattice[top + 1] - lattice[top])
        step = np.diff(rows, axis=1)
        total += 0.5**octave * (rows[:, left] + smoothstep(u - left) * step[:, left])
    return total


def smoothstep(t: Array) -> Array:
    """Rises from 0 at t ≤ 0 to 1 at t ≥ 1, flat at both ends."""
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)

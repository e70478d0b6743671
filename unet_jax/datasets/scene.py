"""Scenes of lit, textured, overlapping shapes: an embedded data set that needs no download.

The class of an object shows in its silhouette, in the relief that shading gives it, in its hue and
most often in its texture; the background has every hue and texture that objects have, and cast
shadows belong to it, so no threshold on brightness or colour solves the task.

Points are open grids x [1, W] and y [H, 1]; lengths are in units of min(height, width); colours are
linear light until the exposure.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from unet_jax.datasets.outline import Array, Distance, random_outline
from unet_jax.datasets.texture import KINDS, distinct_colour, paint, random_colour, smoothstep

Bytes = NDArray[np.uint8]

CLASSES: tuple[str, ...] = ("background", "ball", "box", "triangle", "star", "ring")
PALETTE: tuple[tuple[int, int, int], ...] = (
    (38, 40, 46),
    (244, 162, 58),
    (112, 196, 82),
    (52, 192, 214),
    (146, 108, 232),
    (240, 98, 134),
)
TEXTURES = ("", "stripes", "wood", "gradient", "dots", "tiles")  # Each class' favourite.
FAITHFUL = 0.9  # Share of objects that have it.
SHADOW_TINT = np.array((1.0, 0.95, 0.86), np.float32)  # Absorbs blue least: shadows look cool.


def render(seed: int, index: int, height: int, width: int) -> tuple[Bytes, Bytes]:
    """Renders scene `index` of the series `seed`, the same bytes on every call.

    Args:
      seed: Non-negative number of the series.
      index: Non-negative number of the scene in the series.
      height: Rows in pixels, at least 16.
      width: Columns in pixels, at least 16.

    Returns:
      The sRGB image, uint8 [H, W, 3], and the mask of class ids, uint8 [H, W].
    """
    rng = np.random.default_rng((seed, index))
    unit = min(height, width)
    x = (np.arange(width, dtype=np.float32)[None, :] + 0.5) / unit
    y = (np.arange(height, dtype=np.float32)[:, None] + 0.5) / unit
    light, bodies = random_light(rng), random_bodies(rng, width / unit, height / unit)
    main = distinct_colour(rng, np.concatenate([body.tones for body in bodies]))
    other = random_colour(rng, rng.uniform(0, 2 * math.pi))
    tones = np.stack((main, main + rng.uniform(0.3, 0.7) * (other - main)))
    image = paint(rng, x, y, tones, rng.choice(KINDS))
    mask = np.zeros((height, width), np.uint8)
    for body in bodies:
        cast_shadow(image, x, y, body, light)
        draw(rng, image, mask, x, y, body, light)
    return expose(rng, image, x, y, light), mask


@dataclass(frozen=True)
class Body:
    """An object of a scene.

    Attributes:
      label: Its class.
      outline: Signed distance from its outline, as if it lay unturned at the origin.
      x, y: Its middle.
      angle: How far it is turned, in radians.
      reach: Radius of a circle that bounds it.
      inner: Half of its thickness.
      tones: Its two colours, OKLab [2, 3].
    """

    label: int
    outline: Distance
    x: float
    y: float
    angle: float
    reach: float
    inner: float
    tones: Array

    def distance(self, x: Array, y: Array) -> Array:
        """Signed distance [H, W] of the points of a scene from the outline."""
        c, s = math.cos(self.angle), math.sin(self.angle)
        x, y = x - self.x, y - self.y
        return self.outline(c * x + s * y, c * y - s * x)


def random_bodies(rng: Generator, width: float, height: float) -> list[Body]:
    """Draws two to five objects, the furthest from the viewer first."""
    count = int(rng.integers(2, 6))
    labels = np.concatenate([1 + rng.permutation(len(CLASSES) - 1) for _ in range(2)])[:count]
    sizes = np.sort(rng.uniform(0.16, 0.3, count))[::-1]  # Small ones in front: none is buried.
    bodies: list[Body] = []
    for label, size in zip(labels.tolist(), sizes.tolist(), strict=True):
        outline, reach, inner = random_outline(rng, CLASSES[label], size)
        spots = rng.uniform((0.08, 0.08), (width - 0.08, height - 0.08), (4, 2)).tolist()
        # Best-candidate sampling (Mitchell, 1991): objects overlap, yet seldom bury each other.
        gaps = [[math.dist(s, (b.x, b.y)) / (reach + b.reach) for b in bodies] for s in spots]
        x, y = max(zip(gaps, spots, strict=True), key=lambda g: min(g[0], default=0))[1]
        hue = 2 * math.pi * label / (len(CLASSES) - 1)
        tones = np.stack((random_colour(rng, hue), random_colour(rng, hue)))
        turned = rng.uniform(0, 2 * math.pi)
        bodies.append(Body(label, outline, x, y, turned, reach, inner, tones))
    return bodies


@dataclass(frozen=True)
class Light:
    """Light from one side.

    Attributes:
      direction: Unit vector towards it.
      ambient: Share of the light that comes from everywhere.
      blur: Half width of a shadow's edge.
    """

    direction: tuple[float, float, float]
    ambient: float
    blur: float


def random_light(rng: Generator) -> Light:
    """Draws a light, 37 to 63 degrees above the horizon."""
    azimuth, elevation = rng.uniform(0, 2 * math.pi), rng.uniform(0.65, 1.1)
    x, y = math.cos(elevation) * math.cos(azimuth), math.cos(elevation) * math.sin(azimuth)
    return Light((x, y, math.sin(elevation)), rng.uniform(0.3, 0.5), rng.uniform(0.04, 0.12))


def window(x: Array, y: Array, cx: float, cy: float, reach: float) -> tuple[slice, slice]:
    """Rows and columns of the grid within `reach` of a centre: the rest need not be computed."""
    columns = np.searchsorted(x[0], (cx - reach, cx + reach)).tolist()
    rows = np.searchsorted(y[:, 0], (cy - reach, cy + reach)).tolist()
    return slice(*rows), slice(*columns)


def cast_shadow(image: Array, x: Array, y: Array, body: Body, light: Light) -> None:
    """Darkens what lies below an object, in place; it hovers a little, as paper cut-outs do."""
    lx, ly, lz = light.direction
    lift = (0.1 + 0.5 * body.inner) / lz
    cx, cy = body.x - lift * lx, body.y - lift * ly
    rows, columns = window(x, y, cx, cy, body.reach + light.blur)
    distance = body.distance(x[:, columns] + lift * lx, y[rows] + lift * ly)
    shadow = smoothstep(0.5 - distance / (2 * light.blur))[..., None]
    image[rows, columns] *= 1 - (1 - light.ambient) * shadow * SHADOW_TINT


def draw(
    rng: Generator,
    image: Array,
    mask: Bytes,
    x: Array,
    y: Array,
    body: Body,
    light: Light,
) -> None:
    """Paints an object over image and mask, in place (painter's algorithm)."""
    pixel = 1 / min(mask.shape)
    rows, columns = window(x, y, body.x, body.y, body.reach + 2 * pixel)
    x, y = x[:, columns], y[rows]
    distance = body.distance(x, y)
    favourite = rng.random() < FAITHFUL
    kind = TEXTURES[body.label] if favourite else rng.choice(KINDS)
    lit = shade(rng, paint(rng, x, y, body.tones, kind), distance, pixel, body, light)
    softness = pixel * float(rng.choice((1.1, 1.4, 2.2), p=(0.5, 0.35, 0.15)))
    below = image[rows, columns]
    below += smoothstep(0.5 - distance / softness)[..., None] * (lit - below)
    mask[rows, columns][distance <= 0] = body.label


def shade(
    rng: Generator, albedo: Array, distance: Array, pixel: float, body: Body, light: Light
) -> Array:
    """Lights a relief whose slope is a function of the signed distance.

    A slope that grows linearly to the outline makes a sphere of a circle and a torus of a ring;
    one that jumps near it makes a plate with a chamfer. The reflection is Lambertian, with a
    Blinn-Phong highlight for a viewer straight above.

    Returns:
      The picture of the object [H, W, 3].
    """
    lx, ly, lz = light.direction
    rise, steep, sharp = body.inner, 0.96, 1
    if CLASSES[body.label] != "ball":
        rise, steep, sharp = rise * rng.uniform(0.2, 0.9), rng.uniform(0.4, 0.8), rng.choice((1, 5))
    tilt = steep * np.clip(int(sharp) * (1 + distance / rise), 0, 1)
    gy, gx = np.gradient(distance, pixel)
    toward = (lx * gx + ly * gy) * tilt / np.maximum(np.hypot(gx, gy), 1e-3)
    nz = np.sqrt(1 - tilt * tilt)
    diffuse = (1 - light.ambient) * np.maximum(toward + lz * nz, 0) / lz
    aligned = np.maximum(toward + (1 + lz) * nz, 0) / math.sqrt(2 + 2 * lz)
    gleam = rng.uniform(0, 0.35) * aligned ** rng.uniform(15, 60)
    ambient = light.ambient * (0.4 + 0.6 * nz)
    return albedo * (ambient + diffuse)[..., None] + gleam[..., None]


def expose(rng: Generator, image: Array, x: Array, y: Array, light: Light) -> Bytes:
    """Takes the picture: uneven tinted light, vignette, exposure, gamma and sensor noise."""
    u, v = x - x.mean(), y - y.mean()
    ramp = (light.direction[0] * u + light.direction[1] * v)[..., None]
    slope = rng.uniform(0, 0.7) + rng.uniform(-0.4, 0.4, 3).astype(np.float32)
    vignette = rng.uniform(0, 0.3) * (u * u + v * v)[..., None]
    image = image * np.maximum(1 + slope * ramp - vignette, 0.2) * 2 ** rng.uniform(-0.3, 0.5)
    image = np.clip(image, 0, 1) ** (1 / 2.2)
    image += rng.uniform(0.004, 0.02) * rng.standard_normal(image.shape, np.float32)
    return (255 * np.clip(image, 0, 1) + 0.5).astype(np.uint8)

"""Procedural scenes of lit, textured shapes: an embedded data set that needs no download.

The class of an object is its silhouette, and the relief that shading gives it: colours and textures
of every class and of the background come from one distribution, and cast shadows belong to the
background, so no threshold on brightness or colour solves the task.

Lengths are in units of ``min(height, width)``, points are open grids ``x [1, W]`` and ``y [H, 1]``,
colours are linear light until the exposure.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Array = NDArray[np.floating]
Bytes = NDArray[np.uint8]
Distance = Callable[[Array, Array], Array]  # (x, y) -> signed distance, negative inside

CLASSES: tuple[str, ...] = ("background", "ball", "box", "triangle", "star", "ring")
PALETTE: tuple[tuple[int, int, int], ...] = (
    (38, 40, 46),
    (239, 98, 84),
    (74, 144, 226),
    (246, 189, 70),
    (157, 112, 219),
    (76, 187, 140),
)

# OKLab to cone responses to linear sRGB (Ottosson, 2020).
LAB_TO_LMS = np.array(((1, 0.39634, 0.21580), (1, -0.10556, -0.06385), (1, -0.08948, -1.29149)))
LMS_TO_RGB = np.array(
    ((4.07674, -3.30771, 0.23097), (-1.26844, 2.60976, -0.34132), (-0.0042, -0.70342, 1.70761))
)
SHADOW_TINT = np.array((1.0, 0.95, 0.86), np.float32)  # absorbs blue least: shadows look cool


def render(seed: int, index: int, height: int, width: int) -> tuple[Bytes, Bytes]:
    """Render scene ``index`` of the series ``seed``, the same bytes on every call.

    Args:
        seed: Non-negative number of the series.
        index: Non-negative number of the scene in the series.
        height: Rows in pixels, at least 16.
        width: Columns in pixels, at least 16.

    Returns:
        The sRGB image, uint8 ``[H, W, 3]``, and the mask of class ids, uint8 ``[H, W]``.
    """
    rng = np.random.default_rng((seed, index))
    unit = min(height, width)
    x = (np.arange(width, dtype=np.float32)[None, :] + 0.5) / unit
    y = (np.arange(height, dtype=np.float32)[:, None] + 0.5) / unit
    light, palette = random_light(rng), random_palette(rng)
    image = paint(rng, x, y, palette)
    mask = np.zeros((height, width), np.uint8)
    for i, body in enumerate(random_bodies(rng, width / unit, height / unit)):
        # The main colours of neighbours in depth, and of an object and the background, differ.
        main = 1 + i % (len(palette) - 1)
        cast_shadow(image, x, y, body, light)
        draw(rng, image, mask, x, y, body, np.roll(palette, -main, axis=0), light)
    return expose(rng, image, x, y, light), mask


# Outlines: signed distance functions.


def ellipse(rx: float, ry: float) -> Distance:
    """Ellipse with semi-axes ``rx`` and ``ry``; first-order distance, exact in sign (Quilez)."""

    def distance(x: Array, y: Array) -> Array:
        near = np.hypot(x / rx, y / ry)
        return near * (near - 1) / np.maximum(np.hypot(x / rx**2, y / ry**2), 1e-6)

    return distance


def ring(middle: float, half: float) -> Distance:
    """Annulus: the band within ``half`` of the circle of radius ``middle``."""
    return lambda x, y: np.abs(np.hypot(x, y) - middle) - half


def polygon(radius: Array, angle: Array, rounding: float) -> Distance:
    """Polygon through polar corners ``[N]``, grown by ``rounding`` (Quilez, even-odd rule)."""
    corners = np.stack((radius * np.cos(angle), radius * np.sin(angle)), axis=1).tolist()

    def distance(x: Array, y: Array) -> Array:
        nearest = np.full(x.shape, np.inf, np.float32)
        inside = np.zeros(x.shape, bool)
        for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
            ex, ey, px, py = bx - ax, by - ay, x - ax, y - ay
            along = np.clip((px * ex + py * ey) / (ex * ex + ey * ey), 0, 1)
            nearest = np.minimum(nearest, (px - ex * along) ** 2 + (py - ey * along) ** 2)
            inside ^= ((y < ay) != (y < by)) & ((px * ey < py * ex) == (ey > 0))
        nearest = np.sqrt(nearest)
        return np.where(inside, -nearest, nearest) - rounding

    return distance


def random_outline(rng: Generator, label: int, size: float) -> tuple[Distance, float, float]:
    """Draw an outline, its bounding radius and half thickness; factors even out class areas."""
    rounding = size * rng.uniform(0.02, 0.12)
    match CLASSES[label]:
        case "ball":
            minor = size * rng.uniform(0.8, 1)
            return ellipse(1.05 * size, minor), 1.05 * size, minor
        case "ring":
            outer, half = 1.24 * size, size * rng.uniform(0.25, 0.35)
            return ring(outer - half, half), outer, half
        case "box":
            lean = rng.uniform(0.56, math.pi / 4)
            angle = np.array((lean, math.pi - lean, math.pi + lean, -lean))
            radius, inner = np.full(4, 1.15 * size), 1.15 * size * math.sin(lean)
        case "triangle":
            angle = np.arange(3) * (2 * math.pi / 3) + rng.uniform(-0.25, 0.25, 3)
            radius, inner = np.full(3, 1.42 * size), 0.65 * size
        case _:
            points = int(rng.integers(5, 7))
            angle = np.arange(2 * points) * (math.pi / points)
            radius = 1.36 * size * np.tile((1, rng.uniform(0.43, 0.55)), points)
            inner = 0.6 * size
    return polygon(radius, angle, rounding), float(radius.max()) + rounding, inner + rounding


@dataclass(frozen=True)
class Body:
    """An object of a scene: ``reach`` bounds it, ``inner`` is its half thickness."""

    label: int
    outline: Distance
    x: float
    y: float
    angle: float
    reach: float
    inner: float

    def distance(self, x: Array, y: Array) -> Array:
        """Signed distance ``[H, W]`` of the points of a scene from the outline."""
        c, s = math.cos(self.angle), math.sin(self.angle)
        x, y = x - self.x, y - self.y
        return self.outline(c * x + s * y, c * y - s * x)


def random_bodies(rng: Generator, width: float, height: float) -> list[Body]:
    """Draw three to seven objects, the furthest from the viewer first."""
    count = int(rng.integers(3, 8))
    labels = np.concatenate([1 + rng.permutation(len(CLASSES) - 1) for _ in range(2)])[:count]
    sizes = np.sort(rng.uniform(0.13, 0.26, count))[::-1]  # small ones in front: none is buried
    bodies: list[Body] = []
    for label, size in zip(labels.tolist(), sizes.tolist(), strict=True):
        outline, reach, inner = random_outline(rng, label, size)
        spots = rng.uniform((0.08, 0.08), (width - 0.08, height - 0.08), (4, 2)).tolist()
        # Best-candidate sampling (Mitchell, 1991): objects overlap, yet seldom bury each other.
        gaps = [[math.dist(s, (b.x, b.y)) / (reach + b.reach) for b in bodies] for s in spots]
        x, y = max(zip(gaps, spots, strict=True), key=lambda g: min(g[0], default=0))[1]
        bodies.append(Body(label, outline, x, y, rng.uniform(0, 2 * math.pi), reach, inner))
    return bodies


# Surfaces: textures and colours.


def smoothstep(t: Array) -> Array:
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)


def value_noise(rng: Generator, x: Array, y: Array, cell: float, octaves: int) -> Array:
    """Value noise ``[H, W]`` in about [-1, 1]; lattice spacing ``cell``, halved by octave."""
    total = np.zeros((y.size, x.size), np.float32)
    for octave in range(octaves):
        u, v = (x[0] - x[0, 0]) * (2**octave / cell), (y - y[0]) * (2**octave / cell)
        left, top = u.astype(np.intp), v[:, 0].astype(np.intp)
        lattice = rng.uniform(-1, 1, (top[-1] + 2, left[-1] + 2)).astype(np.float32)
        rows = lattice[top] + smoothstep(v - top[:, None]) * (lattice[top + 1] - lattice[top])
        step = np.diff(rows, axis=1)
        total += 0.5**octave * (rows[:, left] + smoothstep(u - left) * step[:, left])
    return total


def random_texture(rng: Generator, x: Array, y: Array) -> Array:
    """Draw one of seven patterns ``[H, W]`` in about [0, 1]."""
    angle, k = rng.uniform(0, 2 * math.pi), 2 * math.pi / rng.uniform(0.1, 0.24)
    c, s = math.cos(angle), math.sin(angle)
    u, v = c * x + s * y, c * y - s * x
    clouds = value_noise(rng, x, y, rng.uniform(0.25, 0.6), 3)
    match int(rng.integers(7)):
        case 0:  # clouds
            pattern = np.tanh(2.5 * clouds)
        case 1:  # wood: a cut through warped growth rings
            pattern = 0.75 * np.sin(1.5 * k * np.hypot(0.3 * u + 0.2, v - 0.5) + 1.5 * clouds)
        case 2:  # stripes, straight to wavy
            pattern = np.tanh(3 * np.sin(k * u + rng.uniform(0, 1.2) * clouds))
        case 3:  # tiles
            pattern = np.tanh(8 * np.sin(k / 1.6 * u) * np.sin(k / 1.6 * v))
        case 4:  # dots
            pattern = np.tanh(4 * (np.cos(k * u) + np.cos(k * v) - 0.7))
        case 5:  # grain
            pattern = np.tanh(2 * value_noise(rng, x, y, 0.05, 2))
        case _:  # gradient
            pattern = np.clip(2 * (u - u.mean()), -1, 1)
    return 0.5 + 0.42 * pattern + 0.16 * clouds


def random_palette(rng: Generator) -> Array:
    """Draw eight palettes, return the one with the least like colours: OKLab ``[5, 3]``."""
    lightness = rng.uniform(0.42, 0.88, (8, 5))
    chroma, hue = rng.uniform(0.04, 0.17, (8, 5)), rng.uniform(0, 2 * math.pi, (8, 5))
    palettes = np.stack((lightness, chroma * np.cos(hue), chroma * np.sin(hue)), axis=2)
    apart = np.linalg.norm(palettes[:, :, None] - palettes[:, None], axis=3) + np.eye(5)
    return palettes[apart.min(axis=(1, 2)).argmax()]


def paint(rng: Generator, x: Array, y: Array, palette: Array) -> Array:
    """Albedo ``[H, W, 3]``: a texture between the first and a random other colour."""
    main, other = palette[0], rng.choice(palette[1:])
    tones = np.stack((main, other + rng.uniform(0, 0.2) * (main - other)))
    low, high = np.clip((tones @ LAB_TO_LMS.T) ** 3 @ LMS_TO_RGB.T, 0.004, 1).astype(np.float32)
    return low + (high - low) * random_texture(rng, x, y)[..., None]


# Light: what turns outlines and surfaces into a picture.


@dataclass(frozen=True)
class Light:
    """Directional light: unit vector towards it ``[3]``, share of ambient light, shadow blur."""

    direction: tuple[float, float, float]
    ambient: float
    blur: float


def random_light(rng: Generator) -> Light:
    azimuth, elevation = rng.uniform(0, 2 * math.pi), rng.uniform(0.65, 1.1)
    x, y = math.cos(elevation) * math.cos(azimuth), math.cos(elevation) * math.sin(azimuth)
    return Light((x, y, math.sin(elevation)), rng.uniform(0.3, 0.5), rng.uniform(0.04, 0.12))


def window(x: Array, y: Array, cx: float, cy: float, reach: float) -> tuple[slice, slice]:
    """Rows and columns of the grid within ``reach`` of a centre: the rest need not be computed."""
    columns = np.searchsorted(x[0], (cx - reach, cx + reach)).tolist()
    rows = np.searchsorted(y[:, 0], (cy - reach, cy + reach)).tolist()
    return slice(*rows), slice(*columns)


def cast_shadow(image: Array, x: Array, y: Array, body: Body, light: Light) -> None:
    """Darken what lies below an object, in place; it hovers a little, as paper cut-outs do."""
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
    palette: Array,
    light: Light,
) -> None:
    """Paint an object over image and mask, in place (painter's algorithm)."""
    pixel = 1 / min(mask.shape)
    rows, columns = window(x, y, body.x, body.y, body.reach + 2 * pixel)
    x, y = x[:, columns], y[rows]
    distance = body.distance(x, y)
    lit = shade(rng, paint(rng, x, y, palette), distance, pixel, body, light)
    softness = pixel * float(rng.choice((1.1, 1.4, 2.2), p=(0.5, 0.35, 0.15)))
    below = image[rows, columns]
    below += smoothstep(0.5 - distance / softness)[..., None] * (lit - below)
    mask[rows, columns][distance <= 0] = body.label


def shade(
    rng: Generator, albedo: Array, distance: Array, pixel: float, body: Body, light: Light
) -> Array:
    """Light a relief whose slope is a function of the signed distance; ``[H, W, 3]``.

    A slope that grows linearly to the outline makes a sphere of a circle and a torus of a ring;
    one that jumps near it makes a plate with a chamfer. Lambertian diffuse reflection, and a
    Blinn-Phong highlight for a viewer straight above.
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
    """Take the picture: uneven tinted light, vignette, exposure, gamma and sensor noise."""
    u, v = x - x.mean(), y - y.mean()
    ramp = (light.direction[0] * u + light.direction[1] * v)[..., None]
    slope = rng.uniform(0, 0.7) + rng.uniform(-0.4, 0.4, 3).astype(np.float32)
    vignette = rng.uniform(0, 0.3) * (u * u + v * v)[..., None]
    image = image * np.maximum(1 + slope * ramp - vignette, 0.2) * 2 ** rng.uniform(-0.3, 0.5)
    image = np.clip(image, 0, 1) ** (1 / 2.2)
    image += rng.uniform(0.004, 0.02) * rng.standard_normal(image.shape, np.float32)
    return (255 * np.clip(image, 0, 1) + 0.5).astype(np.uint8)

"""Outlines of a scene's objects, as signed distance functions.

A distance is negative inside. Points are open grids x [1, W] and y [H, 1]; lengths are in units of
a scene's shorter side.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Array = NDArray[np.floating]
Distance = Callable[[Array, Array], Array]
"""Signed distance [H, W] of the points (x, y)."""


def ellipse(rx: float, ry: float) -> Distance:
    """An ellipse with semi-axes `rx` and `ry`; its distance is of first order, exact in sign.

    References:
      Quilez, distance functions (ellipsoid). https://iquilezles.org/articles/distfunctions
    """

    def distance(x: Array, y: Array) -> Array:
        near = np.hypot(x / rx, y / ry)
        return near * (near - 1) / np.maximum(np.hypot(x / rx**2, y / ry**2), 1e-6)

    return distance


def ring(middle: float, half: float) -> Distance:
    """An annulus: the band within `half` of the circle of radius `middle`."""
    return lambda x, y: np.abs(np.hypot(x, y) - middle) - half


def polygon(radius: Array, angle: Array, rounding: float) -> Distance:
    """A polygon, grown by `rounding`; inside by the even-odd rule.

    Args:
      radius: Distances [N] of the corners from the origin.
      angle: Their directions [N], in radians.
      rounding: Radius of the rounded corners.

    References:
      Quilez, 2D distance functions (polygon). https://iquilezles.org/articles/distfunctions2d
    """
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


def random_outline(rng: Generator, kind: str, size: float) -> tuple[Distance, float, float]:
    """Draws an outline; its factors give all kinds about the same area.

    Args:
      rng: Source of its proportions.
      kind: "ball", "box", "triangle", "star" or "ring".
      size: Its rough radius.

    Returns:
      The signed distance, the radius of a circle that bounds the outline, and its half thickness.

    Raises:
      ValueError: There is no such kind.
    """
    rounding = size * rng.uniform(0.02, 0.12)
    match kind:
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
        case "star":
            points = int(rng.integers(5, 7))
            angle = np.arange(2 * points) * (math.pi / points)
            radius = 1.36 * size * np.tile((1, rng.uniform(0.43, 0.55)), points)
            inner = 0.6 * size
        case _:
            raise ValueError(f"kind {kind!r} is none of ball, box, triangle, star, ring")
    return polygon(radius, angle, rounding), float(radius.max()) + rounding, inner + rounding

"""Boundary counts on the host, of one picture of any size, which nothing is compiled for."""

import numpy as np
from scipy.spatial import KDTree

from unet_jax.batch import IGNORED


def count_boundaries(
    predicted: np.ndarray, mask: np.ndarray, classes: int, tolerance: int
) -> np.ndarray:
    """Counts what `unet_jax.metrics.boundary_counts` counts. The time it takes grows with the
    boundaries' lengths, not with the square of the tolerance.

    Args:
      predicted: Class ids [H, W].
      mask: Class ids [H, W]; pixels of 255 do not count.
      classes: Number of classes, C.
      tolerance: In pixels.

    Returns:
      int64 [C, 4].
    """
    sides = [_boundaries(np.where(mask == IGNORED, IGNORED, x)) for x in (predicted, mask)]
    points = [np.argwhere(ids != IGNORED) for ids in sides]
    kinds = [ids[ids != IGNORED] for ids in sides]
    counts = np.zeros((classes, 4), np.int64)
    for index in np.unique(np.concatenate(kinds)):
        ours, theirs = (at[kind == index] for at, kind in zip(points, kinds, strict=True))
        near = _count_near(ours, theirs, tolerance), _count_near(theirs, ours, tolerance)
        counts[index] = len(ours), near[0], len(theirs), near[1]
    return counts


def _boundaries(ids: np.ndarray) -> np.ndarray:
    """Class ids [H, W] with 255 where a pixel touches no other class."""
    touching = np.zeros(ids.shape, bool)
    for before, after in ((np.s_[:-1], np.s_[1:]), (np.s_[:, :-1], np.s_[:, 1:])):
        one, other = ids[before], ids[after]
        differ = (one != other) & (one != IGNORED) & (other != IGNORED)
        touching[before] |= differ
        touching[after] |= differ
    return np.where(touching, ids, IGNORED)


def _count_near(points: np.ndarray, others: np.ndarray, tolerance: int) -> int:
    """How many of `points` [N, 2] are near one of `others` [M, 2]."""
    if not len(points) or not len(others):
        return 0
    # Squared distances are whole numbers: none is between that of the tolerance and this.
    bound = np.sqrt(tolerance**2 + 0.5)
    distances, _ = KDTree(others).query(points, distance_upper_bound=bound)
    return int(np.isfinite(distances).sum())

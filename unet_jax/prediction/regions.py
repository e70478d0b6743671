"""Clean-up of a predicted mask: regions too small to be anything."""

from typing import Any

import numpy as np
from scipy import ndimage

TOUCHING = np.ones((3, 3), bool)  # At edges and at corners.


def remove_small_regions(mask: np.ndarray, min_area: int) -> np.ndarray:
    """Gives pixels of small regions the class of the nearest pixel of a large one.

    A region is connected pixels of one class that share edges. Specks of foreground become
    background, and holes in it are filled. If there is no large region, nothing changes.

    Args:
      mask: Class ids, uint8 [H, W].
      min_area: Fewest pixels of a large region.

    Returns:
      uint8 [H, W]; `mask` is left as it is.
    """
    small = np.zeros(mask.shape, bool)
    for each in np.flatnonzero(_counts(mask, 256)):
        labels, count = _label(mask == each)
        areas = _counts(labels, count + 1)
        areas[0] = min_area
        small |= (areas < min_area)[labels]
    cleaned = mask.copy()
    if small.all():
        return cleaned
    labels, _ = _label(small, TOUCHING)
    for label, box in enumerate(ndimage.find_objects(labels), 1):
        # The nearest pixel of a large region touches what is small: a frame of one is enough.
        window = tuple(slice(max(0, side.start - 1), side.stop + 1) for side in box)
        nearest: Any = ndimage.distance_transform_edt(
            small[window], return_distances=False, return_indices=True
        )
        np.copyto(cleaned[window], mask[window][tuple(nearest)], where=labels[window] == label)
    return cleaned


def _label(pixels: np.ndarray, structure: np.ndarray | None = None) -> tuple[np.ndarray, int]:
    found: Any = ndimage.label(pixels, structure)
    return found


def _counts(labels: np.ndarray, count: int) -> np.ndarray:
    """How often each of `count` numbers occurs; in parts, as NumPy makes int64 of all it counts."""
    counts = np.zeros(count, np.int64)
    for rows in np.array_split(labels, max(1, labels.size >> 22)):
        counts += np.bincount(rows.ravel(), minlength=count)
    return counts

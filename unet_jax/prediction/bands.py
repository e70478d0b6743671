"""Probabilities of a picture as bands of rows, from top to bottom: all of them at once may not fit
into memory."""

from collections.abc import Iterable, Iterator

import numpy as np

from unet_jax.models.layers import interpolation

LARGEST = 1 << 20
"""Numbers in a band that is made here."""

Size = tuple[int, int]


def resize_bands(bands: Iterable[np.ndarray], size: Size, target: Size) -> Iterator[np.ndarray]:
    """Resizes a picture bilinearly while it comes in.

    Each result is that of `torch.nn.functional.interpolate(x, target, mode="bilinear")`, however
    the picture is divided into bands.

    Args:
      bands: [n, w, K] each; all rows of the picture.
      size: Its height and width, h and w.
      target: Height and width of the result, H and W.

    Yields:
      [m, W, K], all H rows one after another, of the bands' dtype.
    """
    if size == target:
        yield from bands
        return
    low, high, down = interpolation(size[0], target[0], align_corners=False)
    across = interpolation(size[1], target[1], align_corners=False)
    first, row, held = 0, 0, None  # `held` has the rows from `first` on.
    for band in bands:
        held = band if held is None else np.concatenate([held, band])
        ready = int(np.searchsorted(high, first + len(held)))
        step = max(1, LARGEST // (target[1] * band.shape[2]))
        for start in range(row, ready, step):
            rows = slice(start, min(start + step, ready))
            mixed = _mix(held, 0, low[rows] - first, high[rows] - first, down[rows])
            yield _mix(mixed, 1, *across)
        row = ready
        if row < target[0]:
            passed = min(int(low[row]) - first, len(held))
            held, first = held[passed:], first + passed


def _mix(
    array: np.ndarray, axis: int, low: np.ndarray, high: np.ndarray, share: np.ndarray
) -> np.ndarray:
    share = share.astype(array.dtype).reshape(-1, *[1] * (array.ndim - 1 - axis))
    lower, mixed = np.take(array, low, axis), np.take(array, high, axis)
    mixed -= lower
    mixed *= share
    mixed += lower
    return mixed

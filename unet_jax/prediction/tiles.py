"""Large images through a small window: overlapping tiles, blended so that no seam is seen.

What is blended are probabilities. Logits have no bound: of two tiles that disagree, one that is
very sure would decide for both, and what tiles see least well is what lies at their edges.
"""

import math
from collections.abc import Callable, Iterator
from itertools import product
from typing import NamedTuple

import numpy as np

SIGMA = 1 / 8
"""Of the Gaussian that tiles are weighed by, as a share of their side; as nnU-Net and MONAI do."""

Run = Callable[[np.ndarray], np.ndarray]
"""Images [B, h, w, 3] -> probabilities [B, h, w, K]."""


class Axis(NamedTuple):
    """Where tiles lie along one side of the image.

    Attributes:
      starts: First pixel of each.
      weights: [tiles, pixels of a tile]; over all tiles, a pixel's weights add up to 1.
    """

    starts: list[int]
    weights: np.ndarray


def place_tiles(length: int, tile: int, overlap: float) -> Axis:
    """Lays tiles along `length` pixels; the last one is moved inwards, to end where these do.

    Args:
      length: At least `tile`.
      tile: Pixels of a tile.
      overlap: Least share of a tile that the next one covers, too.

    References:
      Isensee et al., 2021 (nnU-Net). https://doi.org/10.1038/s41592-020-01008-z
      monai.inferers.SlidingWindowInferer, mode="gaussian".
    """
    step = max(1, math.floor(tile * (1 - overlap) + 1e-9))
    starts = [*range(0, length - tile, step), length - tile]
    window = np.exp(-0.5 * ((np.arange(tile) - (tile - 1) / 2) / (SIGMA * tile)) ** 2)
    total = np.zeros(length)
    for start in starts:
        total[start : start + tile] += window
    return Axis(starts, np.stack([window / total[start : start + tile] for start in starts]))


def tiled_bands(
    image: np.ndarray,
    tile: tuple[int, int],
    overlap: float,
    run: Run,
    batch_size: int,
    fill: np.ndarray,
) -> Iterator[np.ndarray]:
    """Runs a network on tiles of an image, and blends what it says by a Gaussian of each tile.

    Memory holds the probabilities of a row of tiles, and no more of them.

    Args:
      image: [H, W, 3].
      tile: Height and width of a tile.
      overlap: As in `place_tiles`.
      run: The network; called with the same number of tiles each time.
      batch_size: Most tiles at once.
      fill: Colour [3] that an image smaller than a tile is surrounded by, below and to the right.

    Yields:
      Probabilities [n, W, K], all H rows one after another, of the network's dtype.
    """
    height, width = image.shape[:2]
    image = pad_to(image, tile, fill)
    rows, columns = (
        place_tiles(length, side, overlap)
        for length, side in zip(image.shape[:2], tile, strict=True)
    )
    results = _in_batches(image, tile, list(product(rows.starts, columns.starts)), run, batch_size)
    band = None
    for row, top in enumerate(rows.starts):
        for column, left in enumerate(columns.starts):
            seen = next(results)
            if band is None:
                band = np.zeros((tile[0], image.shape[1], seen.shape[2]), seen.dtype)
            weights = rows.weights[row][:, None] * columns.weights[column]
            band[:, left : left + tile[1]] += weights.astype(seen.dtype)[..., None] * seen
        assert band is not None
        # Rows above the next tiles are finished; after the last tiles, all are.
        done = (rows.starts[row + 1] if row + 1 < len(rows.starts) else height) - top
        yield band[:done, :width]
        band = np.concatenate([band[done:], np.zeros_like(band[:done])])


def pad_to(image: np.ndarray, size: tuple[int, int], fill: np.ndarray) -> np.ndarray:
    """Adds rows below and columns to the right until [H, W, C] is at least of `size`."""
    below, right = (max(0, n - m) for n, m in zip(size, image.shape[:2], strict=True))
    if not below and not right:
        return image
    padded = np.empty((image.shape[0] + below, image.shape[1] + right, image.shape[2]), image.dtype)
    padded[:] = fill
    padded[: image.shape[0], : image.shape[1]] = image
    return padded


def _in_batches(
    image: np.ndarray,
    tile: tuple[int, int],
    places: list[tuple[int, int]],
    run: Run,
    batch_size: int,
) -> Iterator[np.ndarray]:
    """What the network says of each tile. Batches are as equal as can be; the last is padded."""
    size = math.ceil(len(places) / math.ceil(len(places) / batch_size))
    for first in range(0, len(places), size):
        cut = [image[y : y + tile[0], x : x + tile[1]] for y, x in places[first : first + size]]
        yield from run(np.stack(cut + [cut[0]] * (size - len(cut))))[: len(cut)]

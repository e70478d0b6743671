"""Masks as run lengths: a submission to Carvana's competition."""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np

from unet_jax.draft import draft


def encode_runs(mask: np.ndarray) -> str:
    """Start and length of each run of foreground: `1 3 10 5`.

    Pixels are numbered from 1, from left to right, then from top to bottom.

    Args:
      mask: [H, W]; foreground is what is not 0.

    References:
      https://www.kaggle.com/c/carvana-image-masking-challenge/overview/evaluation
    """
    pixels = np.concatenate([[False], mask.ravel() != 0, [False]])
    starts, stops = np.flatnonzero(pixels[1:] != pixels[:-1]).reshape(-1, 2).T
    return " ".join(map(str, np.stack([starts + 1, stops - starts], axis=1).ravel()))


def decode_runs(runs: str, size: tuple[int, int]) -> np.ndarray:
    """The mask of `encode_runs`: uint8 [H, W] of 0 and 1.

    Raises:
      ValueError: A run lies outside of `size`, or the text is not one of runs.
    """
    numbers = np.array(runs.split(), np.int64)
    if numbers.size % 2:
        raise ValueError(f"{numbers.size} numbers; runs are pairs of start and length")
    mask = np.zeros(size[0] * size[1], np.uint8)
    for start, length in numbers.reshape(-1, 2):
        if start < 1 or length < 1 or start - 1 + length > mask.size:
            raise ValueError(f"the run {start} {length} lies outside of {size[0]}×{size[1]} pixels")
        mask[start - 1 : start - 1 + length] = 1
    return mask.reshape(size)


class Table(Protocol):
    def writerow(self, row: tuple[str, str], /) -> object: ...


@contextmanager
def submission(path: Path) -> Iterator[Table]:
    """A CSV file with the header `img,rle_mask`, for rows of a file's name and its runs; it is
    there when all rows are."""
    with draft(path) as part, part.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("img", "rle_mask"))
        yield rows

"""Confidence intervals by the bootstrap, of groups of samples that belong together."""

from collections.abc import Sequence

import numpy as np

SHARE = 0.95
FEW = 5
"""Groups; with fewer, an interval says little."""


def by_group(values: np.ndarray, groups: Sequence[str]) -> np.ndarray:
    """Sums of each group's samples: [G, ...], in order of the groups' names.

    Args:
      values: Integers [N, ...].
      groups: Each sample's.
    """
    names, place = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.zeros((len(names), *values.shape[1:]), np.int64)
    np.add.at(sums, place, values)
    return sums


def resampled(sums: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Sums of as many groups as there are, drawn with replacement: int64 [count, ...].

    Args:
      sums: Of each group, integers [G, ...].
      count: How often they are drawn.
      seed: The same draws the same groups, so that what two networks reach on them can be
        compared.

    References:
      Efron, 1979. https://doi.org/10.1214/aos/1176344552
      Field and Welsh, 2007 (of clusters). https://doi.org/10.1111/j.1467-9868.2007.00593.x
    """
    rng, groups = np.random.default_rng(seed), len(sums)
    drawn = np.empty((count, *sums.shape[1:]), np.int64)
    for n in range(count):
        times = np.bincount(rng.integers(groups, size=groups), minlength=groups)
        drawn[n] = np.tensordot(times, sums, axes=1)
    return drawn


def interval(values: np.ndarray) -> np.ndarray:
    """The middle `SHARE` of resampled values: [2, ...], the lowest and the highest.

    Args:
      values: [R, ...]; NaN where a resample has nothing of its kind, which is left out.
    """
    ends = np.full((2, *values.shape[1:]), np.nan)
    some = ~np.isnan(values).all(0)
    if len(values) and some.any():
        shares = (1 - SHARE) / 2, (1 + SHARE) / 2
        ends[:, some] = np.nanquantile(values[:, some], shares, axis=0)
    return ends

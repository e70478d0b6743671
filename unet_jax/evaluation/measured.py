"""A network's scores at one size, with what they would be for other draws of the groups."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from unet_jax.evaluation.bootstrap import by_group, interval, resampled
from unet_jax.evaluation.tally import Tally, all_rates


class Estimate(NamedTuple):
    """A number and its 95 % confidence interval; NaN for what there is nothing of."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Scores by the names of `unet_jax.metrics.scores` and `boundary_scores`.

    Attributes:
      values: [], or for each class [C].
      drawn: The same of each resample: [R], or [R, C].
    """

    values: Mapping[str, np.ndarray]
    drawn: Mapping[str, np.ndarray]

    def estimate(self, name: str) -> Estimate:
        """Of a score of the whole set."""
        return self.estimates(name)[0]

    def estimates(self, name: str) -> list[Estimate]:
        """Of a score of each class; of one of the whole set, a list of one."""
        ends = interval(self.drawn[name])
        rows = np.stack([self.values[name], *ends]).reshape(3, -1).T
        return [Estimate(*row) for row in rows.tolist()]

    def minus(self, other: "Measured") -> "Measured":
        """What this network has more of than another, on the same draws: a paired bootstrap."""
        return Measured(
            values={name: value - other.values[name] for name, value in self.values.items()},
            drawn={name: value - other.drawn[name] for name, value in self.drawn.items()},
        )


def measure(tally: Tally, groups: Sequence[str], count: int, seed: int) -> Measured:
    """Scores, and those of `count` draws of the groups.

    Args:
      tally: The counts of the samples.
      groups: Each sample's.
      count: How often groups are drawn.
      seed: The same draws the same groups.
    """
    pixels, boundary = by_group(tally.pixels, groups), by_group(tally.boundary, groups)
    drawn = [resampled(sums, count, seed) for sums in (pixels, boundary)]
    return Measured(values=all_rates(pixels.sum(0), boundary.sum(0)), drawn=all_rates(*drawn))

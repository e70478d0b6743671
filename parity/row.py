"""What one comparison found, and the distances that it is made of."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Row(NamedTuple):
    """One tensor, compared.

    Attributes:
      case, precision: Which comparison; precision is float64, float32, tf32 or bfloat16.
      stage, name: Which tensor; layers come in the order in which they run.
      error: ‖a - b‖ / ‖b‖ over all batches together, or what the comparison's docstring says;
        infinite where a tensor is missing, misshapen or not finite.
      limit: The largest error that passes.
      ulps: The 99th percentile of |a - b|, in units of the last place of b rounded to float32;
        None where it is not asked for.
      ulps_limit: The largest of these that passes; None for a tensor of too few values, which is
        judged by its error alone.
      ulps_max: The largest |a - b|, in the same units; it is not judged, since beside a b of
        nearly 0 it has no bound in either framework.
    """

    case: str
    precision: str
    stage: str
    name: str
    error: float
    limit: float
    ulps: float | None = None
    ulps_limit: float | None = None
    ulps_max: float | None = None

    @property
    def passed(self) -> bool:
        near = self.ulps is None or self.ulps_limit is None or self.ulps <= self.ulps_limit
        return self.error <= self.limit and near


def first_divergence(rows: Sequence[Row]) -> Row | None:
    """The first tensor that fails: the layer to look at."""
    return next((row for row in rows if not row.passed), None)


def relative_error(a: np.ndarray, b: np.ndarray) -> float:
    """‖a - b‖ / ‖b‖ in float64 (‖a‖ if b is 0); infinite if shapes differ or it is not finite."""
    if np.shape(a) != np.shape(b):
        return float("inf")
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    error = np.linalg.norm((a - b).ravel()) / (np.linalg.norm(b.ravel()) or 1.0)
    return float(error) if np.isfinite(error) else float("inf")


def ulps(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """The 99th percentile and the largest of |a - b| in units of the last place of float32(b)."""
    if np.shape(a) != np.shape(b):
        return float("inf"), float("inf")
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    units = np.abs(a - b) / np.spacing(np.abs(b).astype(np.float32)).astype(np.float64)
    return float(np.quantile(units, 0.99)), float(units.max())


def count_row(case: str, stage: str, name: str, ours: np.ndarray, theirs: np.ndarray) -> Row:
    """A row of counts or decisions, which must be equal: its error is how many are not."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    different = ours.size if ours.shape != theirs.shape else np.count_nonzero(ours != theirs)
    return Row(case, "float64", stage, name, float(different), 0.0)

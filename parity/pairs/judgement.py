"""From what two sides computed to rows that pass or do not."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from parity.pairs.torch_side import OUTPUT
from parity.row import Row, relative_error
from parity.sides import Quantities, Quantity

NOISE = {"float64": 0.01, "float32": 1.0}
"""A gradient whose entries are smaller than this share of the largest gradient's is measured as if
they were as large. It may be 0 on paper, as a bias's in front of a batch norm is; then what there
is of it is the rounding of the sums that it comes from. Float64 rounds far below its limit, so that
a small share will do; in float32 the limit is rounding itself."""


class Measured(NamedTuple):
    """The same thing, computed three times.

    Attributes:
      jax, torch: In the precision in question.
      truth: PyTorch's in float64.
    """

    jax: Quantities
    torch: Quantities
    truth: Quantities

    @property
    def names(self) -> list[Quantity]:
        """What is compared: what both have, and every output."""
        shared = [q for q in self.torch if q in self.jax or is_output(q)]
        return shared + [q for q in self.jax if q not in self.torch and is_output(q)]


def is_output(quantity: Quantity) -> bool:
    return quantity[1].split("/")[0] == OUTPUT


def judge64(case: str, measured: Measured, limit: float, limit_steps: float) -> list[Row]:
    """Rows of float64: each tensor's relative error against a limit.

    Args:
      case: Its name.
      measured: PyTorch's is the truth.
      limit: Of single passes.
      limit_steps: Of optimiser steps.
    """
    errors = _errors([measured.jax], [measured.truth], measured.names, NOISE["float64"])
    return [
        Row(case, "float64", stage, name, e, limit_steps if is_step(stage) else limit)
        for (stage, name), e in errors.items()
    ]


def judge32(case: str, draws: Sequence[Measured], limit: float) -> list[Row]:
    """Rows of float32: JAX's distance to the truth against PyTorch's own.

    Each tensor may be `limit` times as far away as the worst of PyTorch's in its stage, and the
    stage as a whole (root mean square, the row "all") as PyTorch's whole. The loss, one number in
    which errors cancel by luck, is judged by PyTorch's worst of all stages.

    Args:
      case: Its name.
      draws: All their tensors of a name are compared as one.
      limit: A multiple.
    """
    names, truth = draws[0].names, [draw.truth for draw in draws]
    errors = _errors([draw.jax for draw in draws], truth, names, NOISE["float32"])
    own = _errors([draw.torch for draw in draws], truth, names, NOISE["float32"])
    stages: dict[str, list[Quantity]] = {}
    for quantity in names:
        stages.setdefault(quantity[0], []).append(quantity)
    worst = {stage: max(_finite(own[q] for q in members)) for stage, members in stages.items()}
    if "loss" in worst:
        worst["loss"] = max(worst.values())
    rows = []
    for stage, members in stages.items():
        rows += [
            Row(case, "float32", *quantity, errors[quantity], limit * worst[stage])
            for quantity in members
        ]
        if len(members) > 1:
            ours, theirs = (_root_mean_square(e[q] for q in members) for e in (errors, own))
            rows.append(Row(case, "float32", stage, "all", ours, limit * theirs))
    return rows


def explain(measured: Measured, quantity: Quantity) -> str | None:
    """What is wrong with a tensor apart from its numbers, or None."""
    ours, theirs = measured.jax.get(quantity), measured.torch.get(quantity)
    if ours is None or theirs is None:
        return f"{'JAX' if ours is None else 'PyTorch'} has no such output"
    if ours.shape != theirs.shape:
        return f"shape {ours.shape}; PyTorch's, laid out for JAX, is {theirs.shape}"
    if ours.size == 0:
        return f"shape {ours.shape}: there is nothing to compare"
    for side, array in (("PyTorch", theirs), ("JAX", ours)):
        if not np.isfinite(np.asarray(array, np.float64)).all():
            return f"NaN or infinite in {side}"
    if ours.dtype != theirs.dtype and ours.dtype.kind != "i":
        return f"{ours.dtype} in JAX, {theirs.dtype} in PyTorch"
    return None


def activations(measured: Measured) -> tuple[list[str], list[str]]:
    """Names of the layers' outputs in eval mode: JAX's, and PyTorch's in the order of the calls."""
    ours, theirs = (
        [name for stage, name in side if stage == "eval" and not is_output((stage, name))]
        for side in (measured.jax, measured.torch)
    )
    return ours, theirs


def is_step(stage: str) -> bool:
    return stage.startswith("step")


def _errors(
    sides: Sequence[Quantities],
    references: Sequence[Quantities],
    names: Sequence[Quantity],
    noise: float,
) -> dict[Quantity, float]:
    gradients = [_size(side[q]) for side in references for q in names if q[0] == "gradients"]
    floor = noise * max(_finite(gradients))
    return {
        quantity: _error(sides, references, quantity, floor if quantity[0] == "gradients" else 0.0)
        for quantity in names
    }


def _error(
    sides: Sequence[Quantities],
    references: Sequence[Quantities],
    quantity: Quantity,
    floor: float,
) -> float:
    """All draws' relative error together, that of the reference being `floor` or more an entry."""
    if any(quantity not in side for side in (*sides, *references)):
        return float("inf")
    if any(a[quantity].shape != b[quantity].shape for a, b in zip(sides, references, strict=True)):
        return float("inf")
    a, b = (
        np.stack([np.asarray(side[quantity], np.float64) for side in both])
        for both in (sides, references)
    )
    if not (a.size and np.isfinite(a).all() and np.isfinite(b).all()):
        return float("inf")
    if _size(b) < floor:
        return _size(a - b) / floor
    return relative_error(a, b)


def _size(array: np.ndarray) -> float:
    """Root mean square of the entries."""
    return _root_mean_square(np.ravel(array))


def _root_mean_square(values: Iterable[float]) -> float:
    array = np.asarray(list(values) if not isinstance(values, np.ndarray) else values, np.float64)
    return float(np.sqrt(np.mean(np.square(array)))) if array.size else 0.0


def _finite(values: Iterable[float]) -> list[float]:
    return [0.0, *(value for value in values if np.isfinite(value))]

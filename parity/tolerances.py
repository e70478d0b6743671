"""How near two networks have to be, tensor by tensor."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from parity.row import relative_error, ulps
from parity.sides import Quantities, Quantity

POOLED = ("eval", "train", "statistics", "gradients")
"""Stages of many tensors."""

PARAMETERS = 0.0
"""Weights are carried across without arithmetic, so without error."""

FLOAT64 = 1e-12
"""Sums of many products in another order: on these cases the worst tensor, a gradient, is 2e-14
apart."""

FLOAT32 = 2.0
"""JAX's distance to PyTorch's float64 result, as a multiple of PyTorch's own float32 distance.

It holds for each stage as a whole (the root mean square over its tensors, the row "all"), and for
each tensor against PyTorch's worst of the stage, in the norm and in units of the last place; for
the loss, a mean that errors cancel in, against its logits, too."""


ENOUGH = 1000
"""Values, of all batches together, of a tensor that is judged in ULPs. Their 99th percentile leaves
out the ten or more largest, of which some are beside a truth of nearly 0."""

Measures = dict[Quantity, tuple[Any, ...]]
"""A row's fields from `error` on."""


def measure_float64(ours: Sequence[Quantities], theirs: Sequence[Quantities], _: Any) -> Measures:
    """The distance of the two sides, of each tensor over all batches."""
    return {
        quantity: (
            _error(ours, theirs, quantity),
            PARAMETERS if quantity[0] == "parameters" else FLOAT64,
        )
        for quantity in _either(ours, theirs)
    }


def measure_float32(
    ours: Sequence[Quantities], theirs: Sequence[Quantities], truth: Sequence[Quantities]
) -> Measures:
    """Distances to float64's results, and PyTorch's own as limits.

    Args:
      ours: JAX's side in lower precision, on each batch.
      theirs: PyTorch's.
      truth: PyTorch's in float64.
    """
    names = _either(ours, theirs)
    # Parameters are compared with PyTorch's own; what follows from them with the truth.
    errors = {
        name: _error(ours, theirs if name[0] == "parameters" else truth, name) for name in names
    }
    own = {name: _error(theirs, truth, name) for name in names}
    limits, places = _limits(own), _ulps_limits(theirs, truth, names)
    found: Measures = {}
    for name in names:
        found[name] = errors[name], limits[name]
        if name[0] != "parameters":
            usual, largest = _ulps(ours, truth, name)
            found[name] += usual, places.get(name), largest
    for stage in dict.fromkeys(stage for stage, _ in names if stage in POOLED):
        found[stage, "all"] = _pool(errors, stage), FLOAT32 * _pool(own, stage)
    return found


def _either(ours: Sequence[Quantities], theirs: Sequence[Quantities]) -> list[Quantity]:
    return list(theirs[0] | ours[0])


def _both(
    sides: Sequence[Quantities], references: Sequence[Quantities], quantity: Quantity
) -> tuple[np.ndarray, np.ndarray] | None:
    """All batches' tensors together; None if a side has none."""
    if quantity not in sides[0] or quantity not in references[0]:
        return None
    a, b = (np.stack([batch[quantity] for batch in side]) for side in (sides, references))
    return a, b


def _error(
    sides: Sequence[Quantities], references: Sequence[Quantities], quantity: Quantity
) -> float:
    pair = _both(sides, references, quantity)
    return float("inf") if pair is None else relative_error(*pair)


def _ulps(
    sides: Sequence[Quantities], references: Sequence[Quantities], quantity: Quantity
) -> tuple[float, float]:
    pair = _both(sides, references, quantity)
    return (float("inf"), float("inf")) if pair is None else ulps(*pair)


def _pool(errors: Mapping[Quantity, float], stage: str) -> float:
    """Root mean square over a stage's tensors."""
    squares = [error**2 for (own, _), error in errors.items() if own == stage]
    return float(np.sqrt(np.mean(squares)))


def _limits(own: Mapping[Quantity, float]) -> dict[Quantity, float]:
    """How far each tensor of JAX's may be from the truth, given how far PyTorch's are."""
    worst: dict[str, float] = {}
    for (stage, _), error in own.items():
        worst[stage] = max(worst.get(stage, 0.0), error if np.isfinite(error) else 0.0)
    worst["loss"] = max(worst["loss"], own["train", "logits"])
    worst["parameters"] = PARAMETERS
    return {(stage, name): FLOAT32 * worst[stage] for stage, name in own}


def _ulps_limits(
    theirs: Sequence[Quantities], truth: Sequence[Quantities], names: Sequence[Quantity]
) -> dict[Quantity, float]:
    """Of those tensors that have enough values."""
    counted = [n for n in names if n in theirs[0] and len(theirs) * theirs[0][n].size >= ENOUGH]
    worst: dict[str, float] = {}
    for stage, name in counted:
        worst[stage] = max(worst.get(stage, 0.0), _ulps(theirs, truth, (stage, name))[0])
    return {(stage, name): FLOAT32 * worst[stage] for stage, name in counted}

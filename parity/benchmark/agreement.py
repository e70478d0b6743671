"""Whether contestants computed the same: only then is it fair to compare how fast."""

from collections.abc import Sequence

import numpy as np

from parity.benchmark.stopped import Stopped

LIMITS = {
    "train": {
        # Sums in another order; after a step, what Adam makes of gradients that are rounding alone.
        "float32": 1e-3,
        # Products of 10 bits, 1e-3 each, of which most cancels.
        "tf32": 1e-2,
        # 10 bits too, but what lies between two layers is rounded as well.
        "float16": 2e-2,
        # 7 bits, 8e-3 each, and rounded between layers.
        "bfloat16": 5e-2,
    },
    "infer": {"float32": 1e-3, "tf32": 1e-2, "float16": 2e-2, "bfloat16": 1e-1},
}
"""Largest `distance` from the float32 reference, by subject and precision; the losses of whole
steps, and the logits of one, whose errors do not average out as those of a loss do."""


class Refusal(Stopped):
    """Two contestants do not compute the same; the message has who, what, and the limit."""


def distance(ours: Sequence[np.ndarray], reference: Sequence[np.ndarray]) -> float:
    """The largest over the steps of ‖ours - reference‖ / ‖reference‖; infinite if not finite."""
    pairs = zip(ours, reference, strict=True)
    errors = [np.linalg.norm(a - b) / max(float(np.linalg.norm(b)), 1e-12) for a, b in pairs]
    worst = float(max(errors))
    return worst if np.isfinite(worst) else float("inf")


def check(
    name: str, ours: Sequence[np.ndarray], reference: Sequence[np.ndarray], limit: float
) -> float:
    """Gives the distance.

    Args:
      name: Whose `ours` are.
      ours: Outcomes of the first steps.
      reference: The reference's.
      limit: Of the distance.

    Raises:
      Refusal: They differ by more, or in shape.
    """
    if [a.shape for a in ours] != [b.shape for b in reference]:
        raise Refusal(f"{name} gives {_shapes(ours)}, the reference {_shapes(reference)}")
    found = distance(ours, reference)
    if found > limit:
        raise Refusal(
            f"no comparison: {name} does not compute what the reference does: "
            f"{_shown(ours)} against {_shown(reference)}, off by {found:.1e}, limit {limit:.0e}"
        )
    return found


def _shapes(arrays: Sequence[np.ndarray]) -> str:
    return ", ".join(str(array.shape) for array in arrays)


def _shown(arrays: Sequence[np.ndarray]) -> str:
    """Losses; of larger outcomes their norms."""
    if arrays[0].ndim == 0:
        return f"losses {', '.join(f'{float(a):.6g}' for a in arrays)}"
    return f"values of norm {', '.join(f'{float(np.linalg.norm(a)):.6g}' for a in arrays)}"

"""Whether contestants computed the same: only then is it fair to compare how fast."""

from collections.abc import Sequence

import numpy as np

from parity.benchmark.contender import Precision
from parity.benchmark.stopped import Stopped

ORDER = 1e-3
"""Of float32, too: sums in another order, algorithms that save multiplications; after a step, what
Adam makes of gradients that are rounding alone."""
ROUNDINGS: dict[Precision, float] = {
    "float32": 0.0,
    "tf32": 2**-10,  # Each product has two factors of 11 bits.
    "float16": 2**-11,
    "bfloat16": 2**-8,
}
"""By what share a value may be off that was rounded once; `ORDER` has float32's."""
LIMITS = {
    subject: {precision: ORDER + count * rounding for precision, rounding in ROUNDINGS.items()}
    for subject, count in (("train", 2), ("ops", 2), ("infer", 8))
}
"""Largest `distance` from the float32 reference (ops: from the other framework's layer), by subject
and precision: so many roundings are let pass.

train: A loss is off by no more than the values that it is the mean of, whose errors average out,
and by what gradients were off in the steps before: measured were 1.6e-3 at most in bfloat16, 4e-4
in float16, of networks of up to 32 channels; 5e-4 of large ones on a GPU in bfloat16. ops: Each
framework rounds what its layer gives. infer: Logits have gone through some sixty layers, whose
errors add up as the root of their number: measured were 1.4e-2 at most in bfloat16, 2e-3 in
float16.
"""


class Refusal(Stopped):
    """Two contestants do not compute the same; the message has who, what, and the limit."""


def distance(ours: Sequence[np.ndarray], reference: Sequence[np.ndarray]) -> float:
    """The largest over the steps of ‖ours - reference‖ / ‖reference‖; infinite if not finite."""
    pairs = zip(ours, reference, strict=True)
    errors = [np.linalg.norm(a - b) / max(float(np.linalg.norm(b)), 1e-12) for a, b in pairs]
    worst = float(np.max(errors))
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
            f"{_shown(ours)} against {_shown(reference)}, off by {found:.1e}, limit {limit:.1e}"
        )
    return found


def _shapes(arrays: Sequence[np.ndarray]) -> str:
    return ", ".join(str(array.shape) for array in arrays)


def _shown(arrays: Sequence[np.ndarray]) -> str:
    """Losses; of larger outcomes their norms."""
    if arrays[0].ndim == 0:
        return f"losses {', '.join(f'{float(a):.6g}' for a in arrays)}"
    return f"values of norm {', '.join(f'{float(np.linalg.norm(a)):.6g}' for a in arrays)}"

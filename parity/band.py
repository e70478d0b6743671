"""How near two trainings have to stay.

In float64 they must stay together. In float32 and bfloat16 no two trainings do, also not two of
PyTorch's that add up in another order: each leaves the float64 path, and PyTorch's band is how far
its own variants are from it. JAX must be in that band.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from parity.row import Row
from parity.training import EVERY, Training
from parity.trajectory import Trajectory

FLOAT64 = 1e-10
"""Relative, of all parameters together and of each step's loss: Adam divides by gradients that are
rounding noise where they are nearly 0, so trajectories part faster than single steps do."""
BAND = 2.0
"""How far JAX may be from the float64 path, as a multiple of PyTorch's farthest training: nine
draws of a distance that varies by half of itself seldom reach half of what a tenth would."""


def distances(training: Training, truth: Training) -> dict[str, np.ndarray]:
    """How far a training is from the float64 one, relative, every `EVERY` steps.

    Returns:
      `parameters`, ‖a - b‖ / ‖b‖ after those steps; `loss`, the same of the losses since the last.
    """
    count = len(truth.losses) // EVERY * EVERY
    losses, right = (np.reshape(t.losses[:count], (-1, EVERY)) for t in (training, truth))
    pairs = zip(training.parameters, truth.parameters, strict=True)
    return {
        "parameters": np.array([np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in pairs]),
        "loss": np.linalg.norm(losses - right, axis=1) / np.linalg.norm(right, axis=1),
    }


def band(trajectory: Trajectory, truth: Training) -> dict[str, np.ndarray]:
    """The largest `distances` of PyTorch's training and its variants."""
    own = [distances(t, truth) for t in (trajectory.torch, *trajectory.variants.values())]
    return {name: np.max([each[name] for each in own], axis=0) for name in own[0]}


def judge(found: Mapping[str, Trajectory], name: str = "trajectory") -> list[Row]:
    """A row for the parameters and one for the losses, every `EVERY` steps of each precision."""
    truth, rows = found["float64"].torch, []
    for precision, trajectory in found.items():
        ours = distances(trajectory.jax, truth)
        exact = precision == "float64"
        limits = {} if exact else band(trajectory, truth)
        for quantity in ("loss", "parameters"):
            for n, error in enumerate(ours[quantity]):
                limit = FLOAT64 if exact else BAND * float(limits[quantity][n])
                error = float(error) if np.isfinite(error) else float("inf")
                place = f"{quantity} at step {(n + 1) * EVERY}"
                rows.append(Row(name, precision, name, place, error, limit))
    return rows


def summary(found: Mapping[str, Trajectory]) -> dict[str, dict[str, Any]]:
    """The curves as JSON has them: losses of each step, and what bands they are judged by."""
    truth = found["float64"].torch
    result: dict[str, dict[str, Any]] = {}
    for precision, trajectory in found.items():
        result[precision] = {"jax": trajectory.jax.losses, "torch": trajectory.torch.losses}
        if trajectory.variants:
            losses = np.array([t.losses for t in trajectory.variants.values()])
            edges, ours = band(trajectory, truth), distances(trajectory.jax, truth)
            result[precision]["band"] = {
                "variants": list(trajectory.variants),
                "low": losses.min(axis=0).tolist(),
                "high": losses.max(axis=0).tolist(),
                "every": EVERY,
                "factor": BAND,
                **{f"{q}_jax": ours[q].tolist() for q in ours},
                **{f"{q}_torch": edges[q].tolist() for q in edges},
            }
    return result

"""How near two trainings have to stay.

In float64 they must stay together. In float32 and bfloat16 no two trainings do, also not two of
PyTorch's that add up in another order: each leaves the float64 path, and PyTorch's band is how far
its own variants are from it. JAX must stray from it no farther than they do.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from parity.row import Row
from parity.training import EVERY, Training
from parity.trajectory import Trajectory

FLOAT64 = 1e-10
"""Relative, of all parameters together and of each step's loss: Adam divides by gradients that are
rounding noise where they are nearly 0, so trajectories part faster than single steps do."""
BAND = 2.0
"""How far JAX may be from the float64 path, as a multiple of how far PyTorch's own trainings stray:
JAX rounds in other places, and is one draw more."""


class Band(NamedTuple):
    """How far PyTorch's own trainings are from the float64 one.

    Attributes:
      edge: The farthest of them, every `EVERY` steps.
      stray: How many times farther the farthest is than all the others, at its worst step: what a
        band of the others has to be widened by to hold the one left out. At least 1.
    """

    edge: np.ndarray
    stray: float

    @property
    def limit(self) -> np.ndarray:
        """How far JAX may be."""
        return BAND * self.stray * self.edge


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


def band(trajectory: Trajectory, truth: Training) -> dict[str, Band]:
    """Of PyTorch's training and its variants, for each of `distances`."""
    own = [distances(t, truth) for t in (trajectory.torch, *trajectory.variants.values())]
    bands = {}
    for name in own[0]:
        *_, second, farthest = np.sort([each[name] for each in own], axis=0)
        bands[name] = Band(farthest, float(np.max(farthest / second)))
    return bands


def judge(found: Mapping[str, Trajectory], name: str = "trajectory") -> list[Row]:
    """A row for the parameters and one for the losses, every `EVERY` steps of each precision."""
    truth, rows = found["float64"].torch, []
    for precision, trajectory in found.items():
        ours = distances(trajectory.jax, truth)
        exact = precision == "float64"
        bands = {} if exact else band(trajectory, truth)
        for quantity in ("loss", "parameters"):
            for n, error in enumerate(ours[quantity]):
                limit = FLOAT64 if exact else float(bands[quantity].limit[n])
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
            bands, ours = band(trajectory, truth), distances(trajectory.jax, truth)
            result[precision]["band"] = {
                "variants": list(trajectory.variants),
                "low": losses.min(axis=0).tolist(),
                "high": losses.max(axis=0).tolist(),
                "every": EVERY,
                **{f"{q}_jax": ours[q].tolist() for q in ours},
                **{f"{q}_torch": bands[q].edge.tolist() for q in bands},
                **{f"{q}_limit": bands[q].limit.tolist() for q in bands},
            }
    return result

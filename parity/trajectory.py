"""Both frameworks trained from the same weights on the same batches, step by step.

In float64 they must stay together. In float32 and bfloat16 no two trainings do, also not two of
PyTorch's that add up in another order: each leaves the float64 path, and PyTorch's band is how far
its own variants are from it. JAX must be in that band.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain, count, islice, product
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import torch
from flax.traverse_util import flatten_dict

from parity.row import Row
from parity.twin import flax_variables, make_learner, start_both
from unet_jax.batch import Batch
from unet_jax.config import Config
from unet_jax.datasets import open_dataset
from unet_jax.pipeline import Pipeline

FLOAT64 = 1e-10
"""Relative, of all parameters together and of each step's loss: Adam divides by gradients that are
rounding noise where they are nearly 0, so trajectories part faster than single steps do."""
BAND = 2.0
"""How far JAX may be from the float64 path, as a multiple of PyTorch's farthest training: nine
draws of a distance that varies by half of itself seldom reach half of what a tenth would."""
EVERY = 10
"""Steps between two looks at parameters; losses are taken together over as many, because one alone
may be right by chance."""


class Training(NamedTuple):
    """What one framework's training passed through.

    Attributes:
      losses: Mean loss of each step.
      parameters: All of them, float64 [N], after every `EVERY`-th step.
    """

    losses: list[float]
    parameters: list[np.ndarray]


class Trajectory(NamedTuple):
    """The same training in both frameworks.

    Attributes:
      jax, torch: Their trainings.
      variants: PyTorch's own, in other orders of summation, by what is other.
    """

    jax: Training
    torch: Training
    variants: Mapping[str, Training] = {}

    @property
    def difference(self) -> float:
        """The largest relative difference of any step's loss."""
        ours, theirs = np.asarray(self.jax.losses), np.asarray(self.torch.losses)
        return float(np.max(np.abs(ours - theirs) / np.abs(theirs)))


def train_both(
    config: Config, batches: Sequence[Batch], classes: Sequence[str], dtype: torch.dtype
) -> Trajectory:
    """Takes a step on each batch, in each framework, from one set of weights.

    Args:
      config: The network and how it is trained; its schedule spans these batches.
      batches: The same for both.
      classes: Names of the classes in the masks.
      dtype: Of the parameters and all arithmetic that the config does not have in another.
    """
    once = dataclasses.replace(config, train=dataclasses.replace(config.train, epochs=1))
    recipe, state, twin = start_both(
        once, classes=len(classes), steps_per_epoch=len(batches), dtype=dtype
    )
    step, ours = jax.jit(recipe.train), Training([], [])
    for n, batch in enumerate(batches, start=1):
        state, metrics = step(state, batch)
        ours.losses.append(float(metrics["loss"]))
        if n % EVERY == 0:
            ours.parameters.append(_flat(state.params))
    return Trajectory(ours, _train_twin(twin, batches))


def _train_twin(
    twin: Any, batches: Sequence[Batch], order: Callable[[Batch], Batch] = lambda batch: batch
) -> Training:
    training = Training([], [])
    for n, batch in enumerate(batches, start=1):
        training.losses.append(float(twin.train_step(order(batch))["loss"]))
        if n % EVERY == 0:
            training.parameters.append(_flat(flax_variables(twin.model)["params"]))
    return training


def _flat(params: Any) -> np.ndarray:
    leaves = sorted(flatten_dict(dict(params), sep="/").items())
    return np.concatenate([np.ravel(np.asarray(leaf, np.float64)) for _, leaf in leaves])


def train_variants(
    config: Config, batches: Sequence[Batch], classes: Sequence[str]
) -> dict[str, Training]:
    """PyTorch's training again and again, each time adding up in another order.

    All combinations of: the batch whole, or summed as two micro-batches where no batch norm mixes
    its images; channels last in memory or first, which other kernels serve; one thread or two. In
    each the images of a batch have a random order of their own. On paper none of this changes
    anything.

    Args:
      config: As `train_both` has it; in float32, or what the config says.
      batches: The same for all.
      classes: Names of the classes in the masks.
    """
    train, rng = config.train, np.random.default_rng(0)
    divisible = config.model.norm != "batch" and train.accumulate == 1
    parts = (1, 2) if divisible else (train.accumulate,)
    layouts = (torch.channels_last, torch.contiguous_format)
    variants, threads = {}, torch.get_num_threads()
    try:
        for accumulate, layout, used in product(parts, layouts, (1, 2)):
            settings = dataclasses.replace(train, epochs=1, accumulate=accumulate)
            once = dataclasses.replace(config, train=settings)
            twin = _make_twin(once, classes, len(batches))
            twin.model.to(memory_format=layout)
            torch.set_num_threads(used)
            places = rng.permutation(len(batches[0].valid))
            memory = str(layout).removeprefix("torch.")
            name = f"order {places.tolist()}, micro-batches {accumulate}, {memory}, threads {used}"
            variants[name] = _train_twin(twin, batches, partial(_reorder, places))
    finally:
        torch.set_num_threads(threads)
    return variants


def _reorder(places: np.ndarray, batch: Batch) -> Batch:
    fields = {name: None if x is None else x[places] for name, x in batch._asdict().items()}
    return batch._replace(**fields)


def _make_twin(config: Config, classes: Sequence[str], steps: int) -> Any:
    few = len(classes)
    return make_learner(
        config,
        num_classes=1 if few == 2 else few,
        classes=few,
        class_weights=None,
        steps_per_epoch=steps,
        folder=Path(),
    )


def trajectories(
    config: Config, steps: int, precisions: Iterable[str] = ("float64", "float32")
) -> dict[str, Trajectory]:
    """Trains both for `steps` steps on the config's data, in each precision.

    Args:
      config: The network and how it is trained.
      steps: How many.
      precisions: float64 first: the others' distances are those to it.
    """
    data = Pipeline.of(config, open_dataset(config.data))
    batches = list(islice(chain.from_iterable(map(data.train, count())), steps))
    return {name: train_in(config, batches, data.classes, name) for name in precisions}


def train_in(
    config: Config, batches: Sequence[Batch], classes: Sequence[str], precision: str
) -> Trajectory:
    """Trains both, and PyTorch's variants where the precision is not float64."""
    computed = precision if precision == "bfloat16" else "float32"
    train = dataclasses.replace(config.train, precision=computed)
    config = dataclasses.replace(config, train=train)
    exact = precision == "float64"
    both = train_both(config, batches, classes, torch.float64 if exact else torch.float32)
    return both if exact else both._replace(variants=train_variants(config, batches, classes))


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
                rows.append(Row(name, precision, "trajectory", place, error, limit))
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


def plot(trajectories: Mapping[str, Trajectory], path: Path) -> None:
    """Draws loss curves and distances to the float64 path into a PNG file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 9), layout="constrained")
    losses, differences, parted = figure.subplots(3, 1, sharex=True, height_ratios=(3, 2, 3))
    first = next(iter(trajectories.values()))
    steps = np.arange(1, len(first.jax.losses) + 1)
    losses.plot(steps, first.torch.losses, color="#f59e0b", linewidth=5, alpha=0.5, label="PyTorch")
    losses.plot(steps, first.jax.losses, color="#1d4ed8", linewidth=1.2, label="JAX")
    losses.set(title="Same weights, same batches, float64", ylabel="loss")
    colours = {"float64": "#16a34a", "float32": "#1d4ed8", "bfloat16": "#b91c1c"}
    for name, trajectory in trajectories.items():
        ours, theirs = np.asarray(trajectory.jax.losses), np.asarray(trajectory.torch.losses)
        gap = np.maximum(np.abs(ours - theirs) / theirs, 1e-17)
        differences.semilogy(steps, gap, linewidth=1, color=colours[name], label=name)
        far = distances(trajectory.jax, first.torch)["parameters"]
        places = EVERY * np.arange(1, len(far) + 1)
        style = {"color": colours[name], "linewidth": 1.5, "marker": ".", "label": f"JAX, {name}"}
        parted.semilogy(places, np.maximum(far, 1e-17), **style)
        if trajectory.variants:
            own = [
                distances(t, first.torch)["parameters"]
                for t in (trajectory.torch, *trajectory.variants.values())
            ]
            low, high = np.min(own, axis=0), np.max(own, axis=0)
            label = f"PyTorch's variants, {name}"
            parted.fill_between(places, low, high, color=colours[name], alpha=0.25, label=label)
    differences.set(ylabel="JAX to PyTorch: loss,\nrelative (0 at 1e-17)")
    parted.set(xlabel="step", ylabel="to PyTorch's float64:\nparameters, relative")
    for axes in (losses, differences, parted):
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small", ncols=2)
    figure.savefig(path, dpi=120)

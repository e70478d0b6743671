"""Both frameworks trained from the same weights on the same batches: their losses, step by step."""

import dataclasses
from collections.abc import Mapping, Sequence
from itertools import chain, count, islice
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import torch

from parity.twin import start_both
from unet_jax.batch import Batch
from unet_jax.config import Config
from unet_jax.datasets import open_dataset
from unet_jax.pipeline import Pipeline


class Trajectory(NamedTuple):
    """Mean loss of each step, in nats per pixel."""

    jax: list[float]
    torch: list[float]

    @property
    def difference(self) -> float:
        """The largest relative difference of any step's loss."""
        ours, theirs = np.asarray(self.jax), np.asarray(self.torch)
        return float(np.max(np.abs(ours - theirs) / np.abs(theirs)))


def train_both(
    config: Config, batches: Sequence[Batch], classes: Sequence[str], dtype: torch.dtype
) -> Trajectory:
    """Takes a step on each batch, in each framework, from one set of weights.

    Args:
      config: The network and how it is trained; its schedule spans these batches.
      batches: The same for both.
      classes: Names of the classes in the masks.
      dtype: Of the parameters and all arithmetic.
    """
    once = dataclasses.replace(config, train=dataclasses.replace(config.train, epochs=1))
    recipe, state, twin = start_both(
        once, classes=len(classes), steps_per_epoch=len(batches), dtype=dtype
    )
    step = jax.jit(recipe.train)
    losses = Trajectory([], [])
    for batch in batches:
        state, ours = step(state, batch)
        losses.jax.append(float(ours["loss"]))
        losses.torch.append(float(twin.train_step(batch)["loss"]))
    return losses


def curves(config: Config, steps: int) -> dict[str, Trajectory]:
    """Trains both for `steps` steps on the config's data, in float64 and in float32."""
    data = Pipeline(
        open_dataset(config.data),
        config.data,
        config.augment,
        config.train.batch_size,
        config.train.seed,
        border_sigma=config.loss.border,
    )
    batches = list(islice(chain.from_iterable(map(data.train, count())), steps))
    return {
        name: train_both(config, batches, data.classes, getattr(torch, name))
        for name in ("float64", "float32")
    }


def plot(trajectories: Mapping[str, Trajectory], path: Path) -> None:
    """Draws both loss curves, and below them their relative difference, into a PNG file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), layout="constrained")
    losses, differences = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    first = next(iter(trajectories.values()))
    steps = np.arange(1, len(first.jax) + 1)
    losses.plot(steps, first.torch, color="#f59e0b", linewidth=5, alpha=0.5, label="PyTorch")
    losses.plot(steps, first.jax, color="#1d4ed8", linewidth=1.2, label="JAX")
    losses.set(title="Same weights, same batches", ylabel="loss, nats per pixel")
    for name, trajectory in trajectories.items():
        ours, theirs = np.asarray(trajectory.jax), np.asarray(trajectory.torch)
        gap = np.abs(ours - theirs) / theirs
        differences.semilogy(steps, np.maximum(gap, 1e-17), marker=".", label=name)
    differences.set(xlabel="step", ylabel="relative difference (0 at 1e-17)")
    for axes in (losses, differences):
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=120)

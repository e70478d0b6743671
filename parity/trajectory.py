"""Both frameworks trained from the same weights on the same batches."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, count, islice
from typing import NamedTuple

import numpy as np
import torch

from parity.training import Training, train_jax, train_twin
from parity.twin import start_both
from parity.variants import train_variants
from unet_jax.batch import Batch
from unet_jax.config import Config
from unet_jax.datasets import open_dataset
from unet_jax.pipeline import Pipeline


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
    return Trajectory(train_jax(recipe, state, batches), train_twin(twin, batches))


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

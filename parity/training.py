"""One framework's training, step by step, and what it passed through."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from parity.twin import flax_variables, make_learner
from unet_jax.batch import Batch
from unet_jax.config import Config
from unet_jax.models.convolution import xla_alone
from unet_jax.recipe import Recipe
from unet_jax.state import TrainState
from unet_torch_ref.learner import TorchLearner

EVERY = 10
"""Steps between two looks at parameters; losses are taken together over as many, because one alone
may be right by chance."""


class Training(NamedTuple):
    """What a training passed through.

    Attributes:
      losses: Mean loss of each step.
      parameters: All of them, float64 [N], after every `EVERY`-th step.
    """

    losses: list[float]
    parameters: list[np.ndarray]


@xla_alone()
def train_jax(recipe: Recipe, state: TrainState, batches: Sequence[Batch]) -> Training:
    """Takes a step on each batch, by XLA alone (see `parity.device.arithmetic`).

    Args:
      recipe: The step.
      state: Before the first one.
      batches: In order.
    """
    step, training = jax.jit(recipe.train), Training([], [])
    for n, batch in enumerate(batches, start=1):
        state, metrics = step(state, batch)
        training.losses.append(float(metrics["loss"]))
        if n % EVERY == 0:
            training.parameters.append(_flat(state.params))
    return training


def train_twin(
    twin: TorchLearner,
    batches: Sequence[Batch],
    order: Callable[[Batch], Batch] = lambda batch: batch,
) -> Training:
    """Takes a step on each batch.

    Args:
      twin: Before the first one.
      batches: In order.
      order: Puts the images of a batch into the order in which they are trained on.
    """
    training = Training([], [])
    for n, batch in enumerate(batches, start=1):
        training.losses.append(float(twin.train_step(order(batch))["loss"]))
        if n % EVERY == 0:
            training.parameters.append(_flat(flax_variables(twin.model)["params"]))
    return training


def _flat(params: Any) -> np.ndarray:
    leaves = sorted(flatten_dict(dict(params), sep="/").items())
    return np.concatenate([np.ravel(np.asarray(leaf, np.float64)) for _, leaf in leaves])


def make_twin(config: Config, classes: Sequence[str], steps: int) -> TorchLearner:
    """PyTorch's side alone, before the first step."""
    few = len(classes)
    return make_learner(
        config,
        num_classes=1 if few == 2 else few,
        classes=few,
        class_weights=None,
        steps_per_epoch=steps,
        folder=Path(),
    )

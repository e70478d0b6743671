"""What all contenders are given: the same settings, weights and batch."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from unet_jax.config import Config, OptimConfig
from unet_jax.config.optim import SCHEDULE_SETTINGS

BATCH, TORCH, JAX = "batch.npz", "weights_torch.npz", "weights_jax.npz"
SAMPLED = 8
"""Of inference's logits, every so many rows and columns of the first image are compared."""


class Task(NamedTuple):
    """What is to be run; small enough to be sent to a process.

    Attributes:
      config: The network's and its training's; its precision is left to the contender.
      classes: Classes in the masks.
      folder: Where batch and weights lie.
      gpu: Whether the device is a GPU.
      devices: How many there are.
      workers: Processes of PyTorch's loader.
    """

    config: Config
    classes: int
    folder: Path
    gpu: bool
    devices: int
    workers: int

    @property
    def num_classes(self) -> int:
        """Channels of the logits."""
        return 1 if self.classes == 2 else self.classes

    @property
    def class_weights(self) -> tuple[float, ...] | None:
        """Of the loss: all the same, but multiplied with where the config says so."""
        return None if self.config.loss.class_weights == "none" else (1.0,) * self.classes

    def save(
        self,
        batch: Mapping[str, np.ndarray],
        torch_weights: Mapping[str, np.ndarray],
        jax_weights: Mapping[str, np.ndarray],
    ) -> None:
        """Writes what the contenders read."""
        for name, arrays in ((BATCH, batch), (TORCH, torch_weights), (JAX, jax_weights)):
            arguments: dict[str, Any] = dict(arrays)
            np.savez(self.folder / name, **arguments)

    def load(self, name: str) -> dict[str, np.ndarray]:
        """Reads one of these files."""
        with np.load(self.folder / name) as arrays:
            return dict(arrays)


def steady(config: Config, batch_size: int) -> Config:
    """The config with a learning rate that stays as it is from the first step on.

    So the first steps change the weights by as much as later ones, and a wrong one is seen.
    """
    untouched = {name: getattr(OptimConfig(), name) for name in SCHEDULE_SETTINGS}
    optim = replace(config.optim, schedule="constant", warmup=0.0, warmup_steps=0, **untouched)
    return replace(config, optim=optim, train=replace(config.train, batch_size=batch_size))

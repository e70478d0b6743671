"""What a framework brings to a training: a learner, and what can be said before it is made."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from rich.console import RenderableType

from unet_jax.batch import Batch
from unet_jax.cache import Fetch
from unet_jax.config import Config
from unet_jax.describe import Network

T = TypeVar("T")


class Learner(Protocol):
    """A network in training. Values it returns may still be under way on the device."""

    framework: str

    @property
    def step(self) -> int: ...

    @property
    def skipped(self) -> int:
        """Steps that changed nothing, since a loss or a gradient was not finite."""
        ...

    @property
    def parameters(self) -> int: ...

    def weights(self) -> dict[str, np.ndarray]:
        """The parameters by name, in host memory."""
        ...

    @property
    def device(self) -> str: ...

    @property
    def free_memory(self) -> int | None:
        """Bytes free on the accelerator; None if the device is the host."""
        ...

    def hold(self, *arrays: np.ndarray) -> Fetch:
        """Puts arrays [N, …] on the device, the rows of each to be fetched from there."""
        ...

    def train_step(self, batch: Batch) -> Mapping[str, Any]:
        """Takes a step; gives `loss`, `grad_norm`, `learning_rate`, `skipped_in_row`."""
        ...

    def eval_step(self, batch: Batch) -> tuple[Mapping[str, Any], Any]:
        """Gives `sums` by name, `confusion` [C, C] and `boundary` [C, 4] to be added up, of many
        hosts `stop`; and class ids [B, H, W]."""
        ...

    def read(self, values: T) -> T:
        """Brings what steps gave, an array or a tree of them, to host memory; waits for it."""
        ...

    def total(self, sums: Mapping[str, np.ndarray]) -> float:
        """The loss of added-up sums."""
        ...

    def validated(self, metrics: Mapping[str, float]) -> None:
        """Lets a schedule that waits for a plateau see an epoch's metrics."""
        ...

    def save(self, position: Mapping[str, Any], metrics: Mapping[str, float] | None) -> None:
        """Starts to save the state with `position`.

        `metrics` is None for a state that has not been validated.
        """
        ...

    def restore(self) -> dict[str, Any] | None:
        """Goes back to the last state that is whole, and gives its position; None if there is none.

        Raises:
          ValueError: None is whole, or it is of another network, optimiser or framework.
        """
        ...

    def close(self) -> None:
        """Waits for what is being written.

        Raises:
          OSError: It could not be.
        """
        ...


class MakeLearner(Protocol):
    def __call__(
        self,
        config: Config,
        *,
        num_classes: int,
        classes: int,
        class_weights: tuple[float, ...] | None,
        steps_per_epoch: int,
        folder: Path,
        say: Callable[[str], object],
    ) -> Learner: ...


@dataclass(frozen=True, kw_only=True)
class Framework:
    """A framework to train with.

    Attributes:
      make_learner: Builds the learner.
      describe: Describes the network of (config, channels of logits).
      rehearse: Says what a training step of that network takes.
      out_of_memory: Whether an error says that the device or the host has too little memory.
    """

    make_learner: MakeLearner
    describe: Callable[[Config, int], Network]
    rehearse: Callable[[Config, int], RenderableType]
    out_of_memory: Callable[[Exception], bool]

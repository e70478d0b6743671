"""What a training tells of itself, to whoever keeps it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from unet_jax.config import SaveConfig
from unet_jax.pipeline import Pipeline
from unet_jax.retention import merit


class Keeper(Protocol):
    """Keeps what a run leaves behind, or leaves that to another host.

    Attributes:
      workdir: The run's folder.
      checkpoints: Its subfolder for the learner's states, which all hosts write together.
      records: One an epoch.
    """

    workdir: Path
    checkpoints: Path
    records: list[dict[str, Any]]

    @property
    def begun(self) -> bool:
        """Whether there is something to go on with."""
        ...

    @property
    def summarised(self) -> bool:
        """Whether there is a summary already."""
        ...

    def rewind(self, epoch: int) -> None:
        """Forgets the records of `epoch` (from 0) and later ones: they will come again."""
        ...

    def split(self, pipeline: Pipeline) -> None:
        """Keeps which samples are in each part, and the classes.

        Raises:
          ValueError: The run to go on with had other samples.
        """
        ...

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """Logs a training step's scalars."""
        ...

    def weights(self, arrays: Mapping[str, np.ndarray], step: int) -> None:
        """Logs how the values of each parameter are distributed."""
        ...

    def epoch(self, record: Mapping[str, Any], panel: Image.Image) -> None:
        """Adds an epoch's record, and its picture."""
        ...

    def confusion(self, counts: np.ndarray, classes: Sequence[str]) -> None:
        """Draws the confusion matrix [C, C] of the epoch recorded last."""
        ...

    def inspect(self, pipeline: Pipeline, epoch: int, batch: int) -> tuple[list[str], Path]:
        """Saves a training batch to be looked at: the names of its samples, and where it is."""
        ...

    def summary(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Writes what came of the run: the `best` epoch's record, and `facts`."""
        ...

    def close(self) -> None:
        """Ends the keeping."""
        ...


def best_record(records: Sequence[dict[str, Any]], save: SaveConfig) -> dict[str, Any]:
    """The record with the best `save.best`; the last of equals, as of checkpoints."""
    return max(reversed(records), key=lambda record: merit(record[save.best], save.lowest))

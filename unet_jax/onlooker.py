"""The run folder, as the hosts see it that do not write to it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unet_jax.config import SaveConfig
from unet_jax.pipeline import Pipeline
from unet_jax.run import Run


class Onlooker(Run):
    """A run that another host keeps: knows the folder, and the records of its own epochs."""

    def __init__(self, workdir: Path, save: SaveConfig) -> None:
        """Args:
        workdir: The folder, for checkpoints, which all hosts write together.
        save: Says what is best.
        """
        self._save = save
        self.workdir, self.checkpoints = workdir, workdir / "checkpoints"
        self.records: list[dict[str, Any]] = []

    def rewind(self, epoch: int) -> None:
        """Does nothing."""

    def split(self, pipeline: Pipeline) -> None:
        """Does nothing."""

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """Does nothing."""

    def weights(self, arrays: Mapping[str, np.ndarray], step: int) -> None:
        """Does nothing."""

    def epoch(self, record: Mapping[str, Any], panel: Image.Image) -> None:
        """Remembers the record."""
        self.records.append(dict(record))

    def confusion(self, counts: np.ndarray, classes: Sequence[str]) -> None:
        """Does nothing."""

    def inspect(self, pipeline: Pipeline, epoch: int, batch: int) -> tuple[list[str], Path]:
        """The names that `Run.inspect` gives; nothing is saved."""
        return pipeline.samples(epoch, batch), self.workdir

    @property
    def summarised(self) -> bool:
        """Not asked of this host."""
        return True

    def summary(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """As `Run.summary` has it, of this process's epochs."""
        return {"best": self.best(), **facts}

    def close(self) -> None:
        """Does nothing."""

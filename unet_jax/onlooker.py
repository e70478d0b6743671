"""The run's keeper on the hosts that do not write to its folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unet_jax.config import SaveConfig
from unet_jax.keeper import best_record
from unet_jax.pipeline import Pipeline


class Onlooker:
    """Knows the folder, and the records of its own epochs; see `unet_jax.keeper.Keeper`."""

    begun = summarised = True  # Nothing is said of it, nor written, by this host.

    def __init__(self, workdir: Path, save: SaveConfig) -> None:
        """Args:
        workdir: The folder, for checkpoints.
        save: Says what is best.
        """
        self._save = save
        self.workdir, self.checkpoints = workdir, workdir / "checkpoints"
        self.records: list[dict[str, Any]] = []

    def rewind(self, epoch: int) -> None:
        """Does nothing, as the next four."""

    def split(self, pipeline: Pipeline) -> None: ...

    def step(self, step: int, values: Mapping[str, float]) -> None: ...

    def weights(self, arrays: Mapping[str, np.ndarray], step: int) -> None: ...

    def confusion(self, counts: np.ndarray, classes: Sequence[str]) -> None: ...

    def epoch(self, record: Mapping[str, Any], panel: Image.Image) -> None:
        """Remembers the record."""
        self.records.append(dict(record))

    def inspect(self, pipeline: Pipeline, epoch: int, batch: int) -> tuple[list[str], Path]:
        """The names; the other host saves the batch."""
        return pipeline.samples(epoch, batch), self.workdir

    def summary(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Of this process's epochs."""
        return {"best": best_record(self.records, self._save), **facts}

    def close(self) -> None: ...

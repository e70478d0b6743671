"""Weights & Biases, for those who asked for it."""

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from unet_jax.config import Config, dump

IDENTITY = "wandb_id"
"""The file, in a run's folder, that names it there."""


class WeightsAndBiases:
    """Sends what the TensorBoard events have; `WANDB_MODE=offline` keeps it in the run's folder."""

    def __init__(self, workdir: Path, config: Config) -> None:
        """Args:
          workdir: The run's folder; its name is the run's, and a run that is resumed goes on.
          config: Sent, too.

        Raises:
          ValueError: The package is not installed, or will not start.
        """
        try:
            import wandb  # Only here: others need not have it.
        except ImportError:
            raise ValueError(
                '--wandb: the package wandb is missing: pip install -e ".[wandb]"'
            ) from None
        self._wandb = wandb
        path = workdir / IDENTITY
        identity = path.read_text() if path.exists() else secrets.token_hex(4)
        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "unet-jax"),
                name=workdir.name,
                id=identity,
                resume="allow",
                dir=workdir,
                config=yaml.safe_load(dump(config)),
            )
        except wandb.Error as error:
            raise ValueError(f"--wandb: {error}") from None
        path.write_text(identity)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Sends values by tag."""
        self._run.log(dict(values), step=step)

    def image(self, tag: str, image: Image.Image, step: int) -> None:
        """Sends a picture."""
        self._run.log({tag: self._wandb.Image(image)}, step=step)

    def histograms(self, arrays: Mapping[str, np.ndarray], step: int) -> None:
        """Sends how the values of each array are distributed, leaving out those not finite."""
        finite: dict[str, Any] = {tag: array[np.isfinite(array)] for tag, array in arrays.items()}
        drawn = {tag: self._wandb.Histogram(x) for tag, x in finite.items() if x.size}
        self._run.log(drawn, step=step)

    def close(self) -> None:
        """Waits until all is sent."""
        self._run.finish()

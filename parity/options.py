"""The command line of `python -m parity`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Options:
    preset: str | None = None
    """Compare this preset's network and recipe (a name or a YAML file) and nothing else."""

    weights: Path | None = None
    """Compare this trained network (a safetensors file of unet-jax) and nothing else."""

    image: Path | None = None
    """Use this picture beside random ones, and draw both frameworks' predictions of it."""

    device: Literal["cpu", "gpu"] = "cpu"
    """Where both compute; on a GPU, TF32 has rows of its own."""

    level: Literal["quick", "full"] = "quick"
    """quick: components, every network in float64, two in float32, 50 steps of training. full: all
    networks in both, every preset's recipe, 200 steps in three precisions, planted faults."""

    out: Path = Path("parity_report")
    """Folder for report.html, report.md, report.json and pictures."""

    steps: int | None = None
    """Training steps from the same weights on the same batches, 10 or more; 0: none. Default: the
    level's."""

    mutations: bool = False
    """Plant faults, one at a time, and see each named; and nothing else."""

    break_weight: str | None = None
    """Change one entry of this Flax parameter, such as encoder_0/conv_1/kernel, by 1 percent in the
    first network, to see the report turn red and name the layer."""

    def check(self) -> None:
        """Raises:
        ValueError: Options that do not go together.
        """
        if self.preset is not None and self.weights is not None:
            raise ValueError("--preset, --weights: give one of them; a file has its own network")
        if self.steps is not None and self.steps != 0 and self.steps < 10:
            raise ValueError(f"--steps: {self.steps} must be 0, or 10 or more")
        if self.mutations and (self.preset or self.weights or self.image or self.break_weight):
            raise ValueError(
                "--mutations plants its own faults in its own networks, and goes alone"
            )

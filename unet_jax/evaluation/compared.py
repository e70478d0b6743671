"""Networks that were evaluated on the same samples, and how."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unet_jax.evaluation.evaluation import Evaluation
from unet_jax.evaluation.measured import Measured
from unet_jax.evaluation.samples import Samples
from unet_jax.evaluation.tally import Tally
from unet_jax.weights import Trained

SIZES = {"training": "At the training's size", "native": "At native size"}


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """A network, and what it reached.

    Attributes:
      label: Short, and no other network's.
      place: The run's folder, or the file.
      framework: What computed: "JAX" or "PyTorch".
      trained: The network.
      samples: What it was evaluated on.
      evaluation: The counts.
      measured: Scores at each size, by the names of `Evaluation.tallies`.
      recorded: What the run itself has written down for this state; empty if that is not known, or
        of other samples.
    """

    label: str
    place: Path
    framework: str
    trained: Trained
    samples: Samples
    evaluation: Evaluation
    measured: Mapping[str, Measured]
    recorded: Mapping[str, float]

    @property
    def tally(self) -> Tally:
        """At native size, if there is one."""
        return self.evaluation.native or self.evaluation.trained

    def size(self, name: str) -> str:
        """In words."""
        if name == "training":
            return "{}×{}".format(*self.samples.config.size)
        sizes = sorted(set(self.samples.native))
        first = "{}×{}".format(*sizes[0])
        return first if len(sizes) == 1 else f"{first} to {'{}×{}'.format(*sizes[-1])}"


@dataclass(frozen=True, kw_only=True)
class Compared:
    """All that a report is made of.

    Attributes:
      networks: At least one; the others are compared with the first.
      draws, seed: Of the bootstrap.
      settings: How images met the networks.
      command: That made the report.
      versions: Of programs.
    """

    networks: Sequence[Evaluated]
    draws: int
    seed: int
    settings: Mapping[str, Any]
    command: str
    versions: Mapping[str, str]

    @property
    def samples(self) -> Samples:
        """Of the first network: all have the same, perhaps at different sizes."""
        return self.networks[0].samples

    @property
    def groups(self) -> int:
        return len(set(self.samples.groups))

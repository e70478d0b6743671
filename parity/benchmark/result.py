"""What a benchmark measured: raw samples as they are written and read, and what they come to."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from unet_jax.draft import draft


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """What a quarter of them stays below, and above."""
    if len(values) == 1:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


@dataclass(frozen=True, kw_only=True)
class Row:
    """A contender at one size of batch.

    Attributes:
      case: Of what size: image and batch; or a layer, and its precision.
      contender: Its name.
      precision: What convolutions computed in.
      failure: Why it was not measured; None if it was.
      images: A step's.
      devices: How many took part.
      checkout: Name of the folder of another checkout of this project that it was of; else nothing.
      samples: Seconds a step of each sample, in the order in which they were taken.
      steps: A sample's.
      wanted: How many samples there were to be.
      first: Seconds that the first step took, compilation included.
      warm_up: Steps before the first sample.
      memory: Most bytes held at once; None: not known.
      flops: Of a step's convolutions.
      bound: Seconds that they take at least: the roofline; None: not counted.
      distance: Largest from the reference of what it computed; see `parity.benchmark.agreement`.
      count: How often the layer occurs; 1 for a whole network.
      clock: Of a GPU's multiprocessors, right after the last samples; None: no GPU, or a layer.
    """

    case: str
    contender: str
    precision: str
    failure: str | None = None
    images: int = 0
    devices: int = 1
    checkout: str = ""
    samples: tuple[float, ...] = ()
    steps: int = 0
    wanted: int = 0
    first: float = 0.0
    warm_up: int = 0
    memory: int | None = None
    flops: int = 0
    bound: float | None = None
    distance: float | None = None
    count: int = 1
    clock: str | None = None

    @property
    def median(self) -> float:
        """Seconds a step."""
        return statistics.median(self.samples)

    @property
    def quartiles(self) -> tuple[float, float]:
        """Seconds a step that a quarter of the samples stayed below, and above."""
        return quartiles(self.samples)

    @property
    def compilation(self) -> float:
        """Seconds that the first step took longer than one does."""
        return max(self.first - self.median, 0.0)

    @property
    def rate(self) -> float:
        """Images a second."""
        return self.images / self.median

    @property
    def tflops(self) -> float:
        """10¹² operations a second that were reached."""
        return self.flops / self.median / 1e12

    @property
    def roofline(self) -> float | None:
        """Share of it that was reached."""
        return None if self.bound is None else self.bound / self.median


@dataclass(frozen=True, kw_only=True)
class Results:
    """A whole benchmark.

    Attributes:
      subject: train, infer, ops, end-to-end, or scaling.
      title: The network in a line.
      device: Its name.
      facts: Versions, commit, machine, date, command.
      rows: In the order in which contenders are listed.
    """

    subject: str
    title: str
    device: str
    facts: dict[str, Any]
    rows: list[Row]

    @property
    def versions(self) -> str:
        """Of what measured, in a line; this project's is its commit, where that is known."""
        commit = self.facts.get("commit")
        found = self.facts["versions"] | ({"unet-jax": commit} if commit else {})
        return ", ".join(f"{name} {version}" for name, version in found.items())

    def save(self, path: Path) -> None:
        """Writes JSON: the whole file, or none."""
        with draft(path) as part:
            part.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False), "utf-8")


def load(path: Path) -> Results:
    """Reads what `Results.save` wrote.

    Raises:
      ValueError: It is something else; the message names the file.
      OSError: It cannot be read.
    """
    try:
        results = TypeAdapter(Results).validate_json(path.read_text("utf-8"))
    except (ValidationError, UnicodeDecodeError):
        raise ValueError(f"{path}: not what train, infer, ops or scaling write") from None
    measured = [row for row in results.rows if row.failure is None]
    if "date" not in results.facts or not all(
        row.samples and min(row.samples) > 0 for row in measured
    ):
        raise ValueError(f"{path}: not what train, infer, ops or scaling write")
    return results

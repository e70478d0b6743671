"""Runs as they are found in their folders afterwards, finished or not."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic.dataclasses
import yaml
from pydantic import TypeAdapter, ValidationError

from unet_jax.retention import merit


class Unreadable(Exception):
    """A run's folder lacks something, or holds what no run leaves; the message says what."""


@pydantic.dataclasses.dataclass(frozen=True)
class Epoch:
    """What `metrics.jsonl` says of an epoch; all else in it is passed over."""

    epoch: int
    dice: float
    iou: float
    accuracy: float
    val_loss: float
    mean_class_accuracy: float | None = None
    boundary_f: float | None = None


@pydantic.dataclasses.dataclass(frozen=True)
class Summary:
    """What `summary.json` says; a run that is not finished has none."""

    wall_seconds: float | None = None
    images_per_second: float | None = None
    framework: str | None = None
    device: str | None = None
    finished: str | None = None


@dataclass(frozen=True, kw_only=True)
class PastRun:
    """A run with at least one epoch.

    Attributes:
      folder: Where it lies.
      settings: Each setting of `config.yaml`, as the file has it: runs of other versions, with
        other settings, are read, too.
      epochs: At least one.
      summary: Empty if the run is not finished.
      date: When it ended, or its last epoch did: YYYY-MM-DD HH:MM.
      picture: Its last predictions, if any.
    """

    folder: Path
    settings: Mapping[str, Any]
    epochs: list[Epoch]
    summary: Summary
    date: str
    picture: Path | None

    @property
    def deciding(self) -> str:
        """The score that the run was set to go by, if all epochs have it; else Dice."""
        chosen = str(self.settings.get("best"))
        scores = [vars(epoch).get(chosen) for epoch in self.epochs]
        return "dice" if None in scores else chosen  # It is a setting of another version.

    @property
    def best(self) -> Epoch:
        """The best epoch by `deciding`; the last of equals."""
        chosen = self.deciding
        merits = [merit(vars(e)[chosen], lowest=chosen == "val_loss") for e in self.epochs]
        return max(zip(merits, self.epochs, strict=True), key=lambda m: (m[0], m[1].epoch))[1]


def read_run(folder: Path) -> PastRun | None:
    """Reads the folder of a run; None if it is none.

    Raises:
      Unreadable: It is one, but a file is missing or damaged, or no epoch is finished yet.
    """
    names = ("config.yaml", "metrics.jsonl", "summary.json")
    config, metrics, summary = (folder / name for name in names)
    if not any(path.is_file() for path in (config, metrics, summary)):
        return None
    groups = _checked(config, dict[str, dict[str, Any]], yaml.safe_load)
    epochs = _checked(metrics, list[Epoch], _records)
    if not epochs:
        raise Unreadable("no epoch is finished")
    facts = _checked(summary, Summary, json.loads) if summary.exists() else Summary()
    ended = time.strftime("%Y-%m-%dT%H:%M", time.localtime(metrics.stat().st_mtime))
    # Longer names later: from 1000 on, epochs have a digit more.
    pictures = sorted(folder.glob("predictions/epoch_*.png"), key=lambda p: (len(p.name), p.name))
    return PastRun(
        folder=folder,
        settings={name: value for group in groups.values() for name, value in group.items()},
        epochs=epochs,
        summary=facts,
        date=(facts.finished or ended)[:16].replace("T", " "),
        picture=pictures[-1] if pictures else None,
    )


def read_records(path: Path) -> list[dict[str, Any]]:
    """What a run's `metrics.jsonl` says of each validation; nothing if it is not there.

    Raises:
      ValueError: A line is damaged; the message names the file.
    """
    if not path.is_file():
        return []
    try:
        found = _records(path.read_text("utf-8", "replace"))
        return TypeAdapter(list[dict[str, Any]]).validate_python(found)
    except (json.JSONDecodeError, ValidationError):
        raise ValueError(f"{path}: damaged; each line is JSON as runs write it") from None


def _checked(path: Path, kind: Any, parse: Callable[[str], Any]) -> Any:
    try:
        return TypeAdapter(kind).validate_python(parse(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise Unreadable(f"no {path.name}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Unreadable(f"{path.name}: {where}: {first['msg']}") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise Unreadable(f"{path.name}: {' '.join(str(error).split())}") from None


def _records(text: str) -> list[Any]:
    # A process killed while writing leaves half a line.
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

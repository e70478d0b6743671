"""A run's folder: its settings, classes, split, metrics, curves, pictures and summary."""

import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from unet_jax import visualize
from unet_jax.comparison import refresh
from unet_jax.config import Config, differences, dump, load
from unet_jax.draft import draft
from unet_jax.events import Events
from unet_jax.pipeline import Pipeline
from unet_jax.retention import merit
from unet_jax.versions import versions

PACKAGES = ("unet-jax", "jax", "flax", "optax", "orbax-checkpoint", "torch", "numpy")


class Log(Protocol):
    """Where scalars, pictures and histograms go."""

    def scalars(self, values: Mapping[str, float], step: int) -> None: ...

    def image(self, tag: str, image: Image.Image, step: int) -> None: ...

    def histograms(self, arrays: Mapping[str, np.ndarray], step: int) -> None: ...

    def close(self) -> None: ...


class Run:
    """Writes what a run leaves behind.

    Attributes:
      workdir: The folder.
      checkpoints: Its subfolder for the learner's states.
      records: What `metrics.jsonl` holds, one record an epoch.
    """

    def __init__(self, workdir: Path, config: Config, *, resume: bool) -> None:
        """Args:
          workdir: Made if it does not exist.
          config: Written to `config.yaml`; the same as before if `resume`.
          resume: Whether the folder holds a run to go on with.

        Raises:
          ValueError: The folder holds a run already, or none to resume, or one with other settings.
        """
        self.workdir = workdir
        self.checkpoints = workdir / "checkpoints"
        self._metrics = workdir / "metrics.jsonl"
        self._summary = workdir / "summary.json"
        if workdir.exists() and not workdir.is_dir():
            raise ValueError(f"--workdir: {workdir} is a file; a folder is needed")
        exists = (workdir / "config.yaml").exists()
        if exists and not resume:
            raise ValueError(
                f"--workdir: {workdir} holds a run already; choose another folder, or --resume it"
            )
        if resume and not exists:
            raise ValueError(f"--resume: {workdir} holds no run (no config.yaml)")
        if resume:
            different = differences(load(workdir / "config.yaml"), config)
            if different:
                raise ValueError(
                    f"--resume goes on with the settings of {workdir}; not the same: "
                    + ", ".join(different)
                )
        workdir.mkdir(parents=True, exist_ok=True)
        _write(workdir / "config.yaml", dump(config))
        self.records: list[dict[str, Any]] = []
        if self._metrics.exists():
            lines = self._metrics.read_text().splitlines(keepends=True)
            # A process killed while writing leaves half a line; its epoch will come again.
            self.records = [json.loads(line) for line in lines if line.endswith("\n")]
        self._resumed = resume
        self._save = config.save
        self._others: list[Log] = []

    @cached_property
    def _events(self) -> Events:
        return Events(self.workdir / "events")  # Made when there is something to write.

    @property
    def _logs(self) -> list[Log]:
        return [self._events, *self._others]

    def log_to(self, log: Log) -> None:
        """Has another log beside the TensorBoard events, closed with the run."""
        self._others.append(log)

    def rewind(self, epoch: int) -> None:
        """Forgets the records of `epoch` (from 0) and later ones: they will come again."""
        self.records = self.records[:epoch]
        _write(self._metrics, "".join(_line(r) for r in self.records))

    def split(self, pipeline: Pipeline) -> None:
        """Writes `split.json`: the names of the samples in each part, and a digest of all; and
        `classes.json`: the classes' names and colours, which runs of earlier versions lack.

        Raises:
          ValueError: The run to go on with had other samples, so the data has changed.
        """
        names = {
            "content": pipeline.content,
            "train": [pipeline.names[i] for i in pipeline.split.train],
            "validation": [pipeline.names[i] for i in pipeline.split.validation],
        }
        if pipeline.split.test:
            names["test"] = [pipeline.names[i] for i in pipeline.split.test]
        path = self.workdir / "split.json"
        if path.exists() and json.loads(path.read_text()) != names:
            raise ValueError(f"--resume: the data is not what {path} lists; was it changed?")
        _write(path, json.dumps(names, indent=1))
        classes = {"classes": list(pipeline.classes), "palette": [*map(list, pipeline.palette)]}
        _write(self.workdir / "classes.json", json.dumps(classes))

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """Logs a training step's scalars."""
        for log in self._logs:
            log.scalars({f"train/{name}": value for name, value in values.items()}, step)

    def weights(self, arrays: Mapping[str, np.ndarray], step: int) -> None:
        """Logs how the values of each parameter are distributed."""
        for log in self._logs:
            log.histograms({f"weights/{name}": array for name, array in arrays.items()}, step)

    def epoch(self, record: Mapping[str, Any], panel: Image.Image) -> None:
        """Adds an epoch's record, redraws the curves, and saves its picture."""
        self.records.append(dict(record))
        with self._metrics.open("a") as file:
            file.write(_line(record))
        names = ("val_loss", "dice", "iou", "accuracy")
        scalars = {f"validation/{name}": record[name] for name in names}
        for log in self._logs:
            log.scalars(scalars, record["step"])
            log.image("predictions", panel, record["step"])
        visualize.plot_curves(self.records, self.workdir / "curves.png")
        pictures = self.workdir / "predictions"
        pictures.mkdir(exist_ok=True)
        panel.save(pictures / f"epoch_{record['epoch']:03d}.png")
        with contextlib.suppress(OSError):  # Others may own the folder; at the end it is said.
            refresh(self.workdir, patience=30.0)  # With many runs it takes a second.

    def confusion(self, counts: np.ndarray, classes: Sequence[str]) -> None:
        """Draws the confusion matrix of the epoch recorded last, if that is the best one so far."""
        if self.best() is self.records[-1]:
            visualize.plot_confusion(counts, classes, self.workdir / "confusion.png")

    def inspect(self, pipeline: Pipeline, epoch: int, batch: int) -> tuple[list[str], Path]:
        """Saves a training batch to be looked at: the names of its samples, and its file."""
        arrays = next(pipeline.train(epoch, batch))._asdict()
        path = self.workdir / f"not_finite_epoch_{epoch + 1}_batch_{batch + 1}.npz"
        given: dict[str, Any] = {n: np.asarray(x) for n, x in arrays.items() if x is not None}
        np.savez(path, **given)
        return pipeline.samples(epoch, batch), path

    def best(self) -> dict[str, Any]:
        """The record with the best `save.best`; the last of equals, as of checkpoints."""
        name, lowest = self._save.best, self._save.lowest
        return max(reversed(self.records), key=lambda record: merit(record[name], lowest))

    @property
    def summarised(self) -> bool:
        """Whether `summary.json` is there."""
        return self._summary.exists()

    def summary(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Writes `summary.json`: the best epoch, and `facts` about the whole run."""
        best = {key: value for key, value in self.best().items() if key != "seconds"}
        summary = {
            "best": best,
            "epochs": len(self.records),
            **facts,
            "versions": versions(PACKAGES),
        }
        summary["finished"] = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        text = json.dumps(summary, indent=2)
        _write(self._summary, text)
        return summary

    def close(self) -> None:
        """Closes the events. If there are none, nothing was trained: a new run's folder goes."""
        for log in self._others:
            log.close()
        if "_events" in vars(self):
            self._events.close()
        elif not self._resumed:
            for name in ("config.yaml", "split.json", "classes.json"):
                (self.workdir / name).unlink(missing_ok=True)
            for folder in (self.checkpoints, self.workdir):
                with contextlib.suppress(OSError):  # It was never made, or holds something else.
                    folder.rmdir()


def _write(path: Path, text: str) -> None:
    with draft(path) as part:
        part.write_text(text)


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record) + "\n"

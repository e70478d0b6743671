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

from unet_jax.comparison import refresh
from unet_jax.config import Config, dump
from unet_jax.draft import draft
from unet_jax.events import Events
from unet_jax.json_file import read_json, read_json_lines
from unet_jax.keeper import best_record
from unet_jax.launch import Launch, write_launch
from unet_jax.pipeline import Pipeline
from unet_jax.plots import plot_confusion, plot_curves
from unet_jax.scoreboard import shown
from unet_jax.versions import versions
from unet_jax.workdir import AT_FIRST, check_free, check_same, new_folder

PACKAGES = ("unet-jax", "jax", "flax", "optax", "orbax-checkpoint", "torch", "numpy")


class Log(Protocol):
    """Where scalars, pictures and histograms go."""

    def scalars(self, values: Mapping[str, float], step: int) -> None: ...

    def image(self, tag: str, image: Image.Image, step: int) -> None: ...

    def histograms(self, arrays: Mapping[str, np.ndarray], step: int) -> None: ...

    def close(self) -> None: ...


class Run:
    """Writes what a run leaves behind; see `unet_jax.keeper.Keeper`."""

    def __init__(
        self, workdir: Path, config: Config, launch: Launch, *, resume: bool, fresh: bool = False
    ) -> None:
        """Args:
          workdir: Made if it does not exist.
          config: Written to `config.yaml`; the same as before if `resume`.
          launch: Written to `launch.json`.
          resume: Whether the folder holds a run to go on with.
          fresh: Whether the folder must be a new one: if `workdir` is taken, `workdir-2` or so on.

        Raises:
          ValueError: The folder holds a run already, or what looks like a part of one; or none to
            resume, or one with other settings, or a damaged one.
        """
        self._made = fresh or not workdir.exists()
        if fresh:
            workdir = new_folder(workdir)
        self.workdir = workdir
        self.checkpoints = workdir / "checkpoints"
        self._metrics = workdir / "metrics.jsonl"
        self._summary = workdir / "summary.json"
        if resume:
            check_same(workdir, config)
        else:
            check_free(workdir)
        # A process killed while writing leaves half a line; its epoch will come again.
        self.records = read_json_lines(self._metrics) if self._metrics.exists() else []
        workdir.mkdir(parents=True, exist_ok=True)
        _write(workdir / "config.yaml", dump(config))
        write_launch(workdir, launch)
        self._resumed = resume
        self._save = config.save
        self._others: list[Log] = []

    @cached_property
    def _events(self) -> Events:
        return Events(self.workdir / "events")  # Made when there is something to write.

    @property
    def _logs(self) -> list[Log]:
        return [self._events, *self._others]

    @property
    def begun(self) -> bool:
        return self._resumed or "_events" in vars(self)

    def log_to(self, log: Log) -> None:
        """Has another log beside the TensorBoard events, closed with the run."""
        self._others.append(log)

    def rewind(self, epoch: int) -> None:
        self.records = self.records[:epoch]
        _write(self._metrics, "".join(_line(r) for r in self.records))

    def split(self, pipeline: Pipeline) -> None:
        """Writes `split.json`: the names of the samples in each part, and a digest of all; and
        `classes.json`: the classes' names and colours.

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
        if path.exists() and read_json(path) != names:
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
        scalars = {f"validation/{name}": record[name] for name in shown(self._save.best)}
        for log in self._logs:
            log.scalars(scalars, record["step"])
            log.image("predictions", panel, record["step"])
        plot_curves(self.records, self._save.best, self.workdir / "curves.png")
        pictures = self.workdir / "predictions"
        pictures.mkdir(exist_ok=True)
        panel.save(pictures / f"epoch_{record['epoch']:03d}.png")
        with contextlib.suppress(OSError):  # Others may own the folder; at the end it is said.
            refresh(self.workdir, patience=30.0)  # With many runs it takes a second.

    def confusion(self, counts: np.ndarray, classes: Sequence[str]) -> None:
        """Draws the confusion matrix of the epoch recorded last, if that is the best one so far."""
        if best_record(self.records, self._save) is self.records[-1]:
            plot_confusion(counts, classes, self.workdir / "confusion.png")

    def inspect(self, pipeline: Pipeline, epoch: int, batch: int) -> tuple[list[str], Path]:
        """Saves a training batch to be looked at: the names of its samples, and its file."""
        arrays = next(pipeline.train(epoch, batch))._asdict()
        path = self.workdir / f"not_finite_epoch_{epoch + 1}_batch_{batch + 1}.npz"
        given: dict[str, Any] = {n: np.asarray(x) for n, x in arrays.items() if x is not None}
        np.savez(path, **given)
        return pipeline.samples(epoch, batch), path

    @property
    def summarised(self) -> bool:
        return self._summary.exists()

    def summary(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Writes `summary.json`: the best epoch, and `facts` about the whole run."""
        best = best_record(self.records, self._save)
        summary = {
            "best": {name: value for name, value in best.items() if name != "seconds"},
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
            for name in AT_FIRST:  # None of them was there before.
                (self.workdir / name).unlink(missing_ok=True)
            if self._made:
                with contextlib.suppress(OSError):  # Others have put something there.
                    self.workdir.rmdir()


def _write(path: Path, text: str) -> None:
    with draft(path) as part:
        part.write_text(text)


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record) + "\n"

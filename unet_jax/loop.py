"""The training loop, for either framework: feeds batches, validates, logs, saves."""

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from types import FrameType
from typing import Any, Protocol

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from unet_jax.batch import Batch
from unet_jax.cache import Fetch
from unet_jax.metrics import scores
from unet_jax.pipeline import Pipeline
from unet_jax.run import Run
from unet_jax.visualize import prediction_panel

PICTURES = 6


class Learner(Protocol):
    """A network in training. Values it returns may still be under way on the device."""

    framework: str

    @property
    def step(self) -> int: ...

    @property
    def parameters(self) -> int: ...

    @property
    def device(self) -> str: ...

    @property
    def free_memory(self) -> int | None:
        """Bytes free on the accelerator; None if the device is the host."""
        ...

    def hold(self, image: np.ndarray, mask: np.ndarray) -> Fetch:
        """Puts images [N, H, W, 3] and masks [N, H, W] on the device, to be fetched from there."""
        ...

    def train_step(self, batch: Batch) -> Mapping[str, Any]:
        """Takes a step; gives `loss` and `pixels` (sums) and `grad_norm`."""
        ...

    def eval_step(self, batch: Batch) -> tuple[Mapping[str, Any], Any]:
        """Gives `loss`, `pixels` and `confusion` [C, C] (sums), and class ids [B, H, W]."""
        ...

    def save(self, position: Mapping[str, Any], metrics: Mapping[str, float] | None) -> None:
        """Saves the state with `position`; as the best one too if its `dice` is the highest.

        `metrics` is None for a state that has not been validated.
        """
        ...

    def restore(self) -> dict[str, Any] | None:
        """Goes back to the last saved state, and gives its position; None if there is none."""
        ...

    def close(self) -> None:
        """Waits for what is being written."""
        ...


@dataclass(frozen=True)
class Position:
    """Where in the data a run is, and what has been summed over its current epoch.

    Attributes:
      epoch: From 0.
      batch: The epoch's next batch, from 0.
      loss, pixels: Sums over the epoch's batches so far.
      seconds: Spent training and validating, in all.
    """

    epoch: int = 0
    batch: int = 0
    loss: float = 0.0
    pixels: float = 0.0
    seconds: float = 0.0


class Interrupt:
    """Turns the first Ctrl-C into a request to stop; a second one stops at once."""

    def __init__(self, say: Callable[[str], object]) -> None:
        self._say = say

    def __enter__(self) -> "Interrupt":
        self.requested = False
        self._previous = signal.signal(signal.SIGINT, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._say("Stopping after this step; Ctrl-C again stops at once, unsaved.")
        signal.signal(signal.SIGINT, self._previous)

    def __exit__(self, *exception: object) -> None:
        signal.signal(signal.SIGINT, self._previous)


class Trainer:
    """One run of one learner, from where it stands to its last epoch."""

    def __init__(
        self, learner: Learner, pipeline: Pipeline, run: Run, epochs: int, started: float
    ) -> None:
        """Args:
        learner: With fresh weights, or restored by `resume`.
        pipeline: Serves the batches.
        run: The folder to write to.
        epochs: How many in all.
        started: `time.monotonic()` when the command began, for the time to the first step.
        """
        self.learner, self.pipeline, self.run, self.epochs = learner, pipeline, run, epochs
        self.position = Position()
        self.started, self.earlier = started, 0.0
        self.first_step: float | None = None
        self.trained_images, self.trained_seconds, self.waited_seconds = 0, 0.0, 0.0
        self.console = Console()

    def resume(self) -> None:
        """Restores the last checkpoint, and forgets what was recorded since.

        Raises:
          ValueError: There is none, though epochs were finished.
        """
        restored = self.learner.restore()
        if restored is not None:
            self.position = Position(**restored)
            self.earlier = self.position.seconds
        elif len(self.run.records) > 1:  # The first record is written before the first checkpoint.
            raise ValueError(
                f"--resume: {self.run.checkpoints} holds no checkpoint of {self.learner.framework}"
            )
        self.run.rewind(self.position.epoch)

    @property
    def finished(self) -> bool:
        return self.position.epoch >= self.epochs

    def fit(self) -> bool:
        """Trains to the end, or until Ctrl-C; either way the last state is saved.

        Returns:
          Whether the end was reached.
        """
        with Interrupt(self.console.print) as interrupt, self._progress() as bar:
            done = self.position.epoch * self.pipeline.steps + self.position.batch
            total = self.epochs * self.pipeline.steps
            task = bar.add_task("", total=total, completed=done, loss="", speed="")
            while self.position.epoch < self.epochs and not interrupt.requested:
                begun = time.monotonic()
                self._train_epoch(bar, task, interrupt)
                if interrupt.requested:
                    self._spend(begun)
                    self.learner.save(asdict(self.position), None)
                    break
                result = self._validate()
                self._spend(begun)
                self._finish_epoch(result)
        return self.finished

    def _train_epoch(self, bar: Progress, task: Any, interrupt: Interrupt) -> None:
        """Trains from `position` to the end of its epoch, or until interrupted."""
        bar.update(task, description=f"epoch {self.position.epoch + 1}/{self.epochs}")
        begun, images, waited = time.monotonic(), 0, self.waited_seconds
        late: Mapping[str, Any] | None = None  # Read one step late: the device never waits.
        for batch in self._timed(self.pipeline.train(self.position.epoch, self.position.batch)):
            metrics = self.learner.train_step(batch)
            if late is not None:
                self._count(late)
            late = metrics
            if self.first_step is None:
                float(metrics["loss"])
                self.first_step = time.monotonic() - self.started
                # Compilation is not the steps' speed, nor the loader's start.
                begun, self.waited_seconds = time.monotonic(), waited
            else:
                images += len(batch.valid)
            self.position = replace(self.position, batch=self.position.batch + 1)
            speed = images / max(time.monotonic() - begun, 1e-9)
            loss = self.position.loss / max(self.position.pixels, 1)
            bar.update(task, advance=1, loss=f"loss {loss:.4f}", speed=f"{speed:.1f} images/s")
            if interrupt.requested:
                break
        if late is not None:
            self._count(late)
        self.trained_images += images
        self.trained_seconds += time.monotonic() - begun

    def _timed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Passes batches on, and adds up how long they were waited for."""
        while True:
            begun = time.monotonic()
            batch = next(batches, None)
            self.waited_seconds += time.monotonic() - begun
            if batch is None:
                return
            yield batch

    def _count(self, metrics: Mapping[str, Any]) -> None:
        loss, pixels = float(metrics["loss"]), float(metrics["pixels"])
        position = self.position
        self.position = replace(
            position, loss=position.loss + loss, pixels=position.pixels + pixels
        )
        values = {"loss": loss / max(pixels, 1), "grad_norm": float(metrics["grad_norm"])}
        step = position.epoch * self.pipeline.steps + position.batch
        self.run.step(step, values)

    def _validate(self) -> dict[str, Any]:
        """Scores over the whole validation set, from counts."""
        loss = pixels = 0.0
        classes = len(self.pipeline.classes)
        confusion = np.zeros((classes, classes), np.int64)
        for batch in self.pipeline.validation():
            metrics, _ = self.learner.eval_step(batch)
            loss += float(metrics["loss"])
            pixels += float(metrics["pixels"])
            confusion += np.asarray(metrics["confusion"])
        return {"val_loss": loss / max(pixels, 1), **scores(confusion, self.pipeline.classes)}

    def _spend(self, begun: float) -> None:
        seconds = self.position.seconds + time.monotonic() - begun
        self.position = replace(self.position, seconds=seconds)

    def _finish_epoch(self, result: Mapping[str, Any]) -> None:
        """Moves on to the next epoch; saves, records and prints what this one reached."""
        done = self.position
        self.position = Position(epoch=done.epoch + 1, seconds=done.seconds)
        record = {
            "epoch": done.epoch + 1,
            "step": self.learner.step,
            "train_loss": done.loss / max(done.pixels, 1),
            **result,
            "seconds": round(done.seconds, 2),
        }
        self.run.epoch(record, self._panel(record))
        metrics = {name: result[name] for name in ("dice", "iou", "accuracy", "val_loss")}
        self.learner.save(asdict(self.position), metrics)
        self.console.print(
            f"epoch {record['epoch']:>3}/{self.epochs}  loss {record['train_loss']:.4f}  "
            f"val loss {result['val_loss']:.4f}  Dice {result['dice']:.4f}  "
            f"IoU {result['iou']:.4f}  accuracy {result['accuracy']:.4f}"
            + ("  [green]best[/]" if self.run.best() is self.run.records[-1] else ""),
            highlight=False,
            soft_wrap=True,
        )

    def _panel(self, record: Mapping[str, Any]) -> Image.Image:
        rows = []
        for batch in self.pipeline.pictures(PICTURES):
            _, predicted = self.learner.eval_step(batch)
            arrays = (batch.image, batch.mask, np.asarray(predicted))
            rows.append([array[batch.valid] for array in arrays])
        images, truth, predicted = (np.concatenate(column) for column in zip(*rows, strict=True))
        return prediction_panel(
            images,
            truth,
            predicted,
            self.pipeline.palette,
            self.pipeline.classes,
            f"epoch {record['epoch']}    Dice {record['dice']:.4f}    IoU {record['iou']:.4f}",
        )

    def facts(self) -> dict[str, Any]:
        """What `summary.json` says beside the best epoch."""
        speed = self.trained_images / self.trained_seconds if self.trained_images else None
        return {
            "framework": self.learner.framework,
            "device": self.learner.device,
            "parameters": self.learner.parameters,
            "wall_seconds": round(self.earlier + time.monotonic() - self.started, 2),
            "training_seconds": round(self.position.seconds, 2),
            "images_per_second": speed and round(speed, 2),
            "data_wait": speed and round(self.waited_seconds / self.trained_seconds, 4),
            "seconds_to_first_step": self.first_step and round(self.first_step, 2),
        }

    def _progress(self) -> Progress:
        return Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[loss]}"),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=self.console,
            transient=True,
        )

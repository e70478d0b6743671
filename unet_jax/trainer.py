"""The training loop, for either framework: feeds batches, validates, logs, saves."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console

from unet_jax.bar import Bar
from unet_jax.batch import Batch
from unet_jax.config import SaveConfig
from unet_jax.framework import Learner
from unet_jax.interrupt import Interrupt
from unet_jax.keeper import Keeper, best_record
from unet_jax.metrics import boundary_scores, scores
from unet_jax.pipeline import Pipeline
from unet_jax.position import Position
from unet_jax.scoreboard import scored
from unet_jax.visualize import prediction_panel

PICTURES = 6


class TrainingError(Exception):
    """Training cannot go on; the message says why, and what to do."""


class Trainer:
    """One run of one learner, from where it stands to its last epoch."""

    def __init__(
        self,
        learner: Learner,
        pipeline: Pipeline,
        run: Keeper,
        save: SaveConfig,
        *,
        epochs: int,
        max_skipped: int,
        started: float,
        console: Console,
        hosts: int = 1,
    ) -> None:
        """Args:
        learner: With fresh weights, or restored by `resume`.
        pipeline: Serves the batches.
        run: Keeps what is recorded.
        save: When the state is saved.
        epochs: How many in all.
        max_skipped: Steps in a row that may be skipped.
        started: `time.monotonic()` when the command began, for the time to the first step.
        console: To talk to the user.
        hosts: How many train together.
        """
        self.learner, self.pipeline, self.run, self.save = learner, pipeline, run, save
        self.epochs, self.max_skipped = epochs, max_skipped
        self.position = Position()
        self.confusion = np.zeros((0, 0), np.int64)
        self.started, self.earlier = started, 0.0
        self.first_step: float | None = None
        self.trained_images, self.trained_seconds, self.waited_seconds = 0, 0.0, 0.0
        self.console, self.hosts = console, hosts
        self.interrupt = Interrupt(console.print)
        self._agreed = False

    def resume(self) -> None:
        """Restores the last checkpoint, and forgets what was recorded since.

        Raises:
          ValueError: There is none, though epochs were finished; or none that can be used.
        """
        restored = self.learner.restore()
        if restored is not None:
            self.position = Position(**restored)
            self.earlier = self.position.seconds
        # The first record is written before the first checkpoint, which takes its time.
        elif len(self.run.records) > 1 and not any(self.run.checkpoints.glob("*")):
            raise ValueError(f"--resume: {self.run.checkpoints} holds no checkpoint")
        self.run.rewind(self.position.epoch)

    @property
    def finished(self) -> bool:
        return self.position.epoch >= self.epochs

    def fit(self) -> bool:
        """Trains to the end, or until Ctrl-C or SIGTERM; either way the last state is saved.

        Returns:
          Whether the end was reached.

        Raises:
          TrainingError: Too many steps in a row had to be skipped.
          OSError: Something could not be written.
        """
        steps = self.pipeline.steps
        with self.interrupt, Bar(self.console, self.epochs, steps) as bar:
            while not self.finished:
                begun = time.monotonic()
                self._train_epoch(bar)
                result = None if self.stopping else self._validate()
                seconds = self.position.seconds + time.monotonic() - begun
                self.position = replace(self.position, seconds=seconds)
                if result is None:
                    # After an epoch's last step, `--resume` validates, and saves it again as such.
                    self.learner.save(asdict(self.position), None)
                    break
                self._finish_epoch(result)
        return self.finished

    def _train_epoch(self, bar: Bar) -> None:
        """Trains from `position` to the end of its epoch, or until interrupted."""
        begun, images, waited = time.monotonic(), 0, self.waited_seconds
        late: Mapping[str, Any] | None = None  # Read one step late: the device never waits.
        for batch in self._timed(self.pipeline.train(self.position.epoch, self.position.batch)):
            metrics = self.learner.train_step(self._asked(batch))
            if late is not None:
                self._count(late)
            late = metrics
            if self.first_step is None:
                self.learner.read(metrics)
                self.first_step = time.monotonic() - self.started
                # Compilation is not the steps' speed, nor the loader's start.
                begun, self.waited_seconds = time.monotonic(), waited
            else:
                images += self.pipeline.batch_size
            self.position = replace(self.position, batch=self.position.batch + 1)
            spent = max(time.monotonic() - begun, 1e-9)
            bar.show(
                self.position.epoch,
                self.position.batch,
                loss=self.position.loss / max(self.position.taken, 1),
                speed=images / spent,
                wait=(self.waited_seconds - waited) / spent,
                free=self.learner.free_memory,
            )
            if self.stopping:
                break
            if self.position.batch < self.pipeline.steps and self._due():
                self._count(late)
                late = None
                self.learner.save(asdict(self.position), None)
        if late is not None:
            self._count(late)
        self.trained_images += images
        self.trained_seconds += time.monotonic() - begun

    @property
    def stopping(self) -> bool:
        """Whether to stop here. Several hosts have to stop after the same step: when it says so."""
        return self.interrupt.requested if self.hosts == 1 else self._agreed

    def _asked(self, batch: Batch) -> Batch:
        """The batch, which tells other hosts whether this one was asked to stop."""
        if self.hosts == 1:
            return batch
        return batch._replace(stop=np.full(batch.valid.shape, self.interrupt.requested))

    def _due(self) -> bool:
        """Whether the state is to be saved after this step of the run."""
        every, done = self.save.every_steps, self.position
        return every > 0 and (done.epoch * self.pipeline.steps + done.batch) % every == 0

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
        """Logs a step's metrics."""
        values = {name: float(value) for name, value in self.learner.read(metrics).items()}
        in_row = int(values.pop("skipped_in_row"))
        self._agreed |= bool(values.pop("stop", False))
        epoch, batch = self.position.epoch, self.position.batch
        self.run.step(epoch * self.pipeline.steps + batch, values)
        if in_row == 0:
            loss, taken = self.position.loss + values["loss"], self.position.taken + 1
            self.position = replace(self.position, loss=loss, taken=taken)
        elif in_row >= self.max_skipped:
            names, path = self.run.inspect(self.pipeline, epoch, batch - 1)
            raise TrainingError(
                f"loss {values['loss']} in epoch {epoch + 1}, and {in_row} steps in a row that "
                f"were not finite; the last batch, {', '.join(names)}, is saved in {path}. A lower "
                "--learning-rate or another --precision may help"
            )

    def _validate(self) -> dict[str, Any] | None:
        """Scores over the whole validation set, from counts; None if interrupted."""
        classes = len(self.pipeline.classes)
        total = {
            "confusion": np.zeros((classes, classes), np.int64),
            "boundary": np.zeros((classes, 4), np.int64),
        }
        late: Mapping[str, Any] | None = None
        for batch in self.pipeline.validation():
            counts, _ = self.learner.eval_step(self._asked(batch))
            if late is not None:
                self._add(late, total)
            late = counts
            if self.stopping:
                return None
        if late is not None:
            self._add(late, total)
        self.confusion, boundary = total.pop("confusion"), total.pop("boundary")
        return {
            "val_loss": self.learner.total(total),
            **scores(self.confusion, self.pipeline.classes),
            **boundary_scores(boundary, self.pipeline.classes),
        }

    def _add(self, counts: Mapping[str, Any], total: dict[str, Any]) -> None:
        """Adds what was counted in a batch."""
        counts = self.learner.read(counts)
        self._agreed |= bool(counts.get("stop", False))
        total["confusion"] += counts["confusion"]
        total["boundary"] += counts["boundary"]
        for name, value in counts["sums"].items():
            total[name] = total.get(name, 0) + np.asarray(value, np.float64)

    def _finish_epoch(self, result: Mapping[str, Any]) -> None:
        """Moves on to the next epoch; saves, records and prints what this one reached."""
        done = self.position
        self.position = Position(epoch=done.epoch + 1, seconds=done.seconds)
        record = {
            "epoch": done.epoch + 1,
            "step": self.learner.step,
            "train_loss": done.loss / max(done.taken, 1),
            **result,
            "skipped": self.learner.skipped,
            "seconds": round(done.seconds, 2),
        }
        self.run.epoch(record, self._panel(record))
        self.run.confusion(self.confusion, self.pipeline.classes)
        self.run.weights(self.learner.weights(), record["step"])
        metrics = {name: value for name, value in result.items() if isinstance(value, float)}
        self.learner.validated(metrics)
        best = best_record(self.run.records, self.save) is self.run.records[-1]
        regular = self.position.epoch % self.save.every_epochs == 0 or self._due()
        if self.finished or best or regular:
            self.learner.save(asdict(self.position), metrics)
        self.console.print(
            f"epoch {record['epoch']:>3}/{self.epochs}  loss {record['train_loss']:.4f}  "
            + "  ".join(scored(result, self.save.best))
            + ("  [green]best[/]" if best else ""),
            highlight=False,
            soft_wrap=True,
        )

    def _panel(self, record: Mapping[str, Any]) -> Image.Image:
        rows = []
        for batch in self.pipeline.pictures(PICTURES):
            _, predicted = self.learner.eval_step(self._asked(batch))
            arrays = (batch.image, batch.mask, self.learner.read(predicted))
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
        """What `summary.json` says beside the best epoch; speed, waiting and the time to the first
        step are this process's, which may have resumed another's run."""
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
            "skipped_steps": self.learner.skipped,
        }

"""From a command line to a finished run, for either framework."""

import logging
import shlex
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import NoReturn, Protocol

from rich.console import Console, RenderableType

from unet_jax.balance import class_weights
from unet_jax.cache import Place, choose_place
from unet_jax.cli import INTERRUPTED, RunOptions, fail, mistakes
from unet_jax.comparison import refresh
from unet_jax.config import Config
from unet_jax.datasets import DataError, class_ids, open_dataset
from unet_jax.describe import Network, introduce, layer_table
from unet_jax.loop import Learner, Trainer, TrainingError, scored
from unet_jax.onlooker import Onlooker
from unet_jax.pipeline import Pipeline, num_logits
from unet_jax.run import Run
from unet_jax.weights_and_biases import WeightsAndBiases

PLACES = {"device": "device memory", "host": "host memory", "none": "files"}


class MakeLearner(Protocol):
    def __call__(
        self,
        config: Config,
        *,
        num_classes: int,
        classes: int,
        class_weights: tuple[float, ...] | None,
        steps_per_epoch: int,
        folder: Path,
        say: Callable[[str], object],
    ) -> Learner: ...


def train(
    options: RunOptions,
    config: Config,
    *,
    make_learner: MakeLearner,
    describe: Callable[[Config, int], Network],
    rehearse: Callable[[Config, int], RenderableType],
    started: float,
    host: int = 0,
    hosts: int = 1,
) -> int:
    """Prepares the data, trains, and says what came of it.

    Args:
      options: Where the run goes.
      config: What is trained.
      make_learner: Builds the framework's learner.
      describe: Describes the network of (config, channels of logits).
      rehearse: Says what a training step of that network takes.
      started: `time.monotonic()` when the command began.
      host: Which of the hosts that train together this one is; the first speaks and writes.
      hosts: How many there are.

    Returns:
      The exit status: 0 when the run is finished, or SIGTERM ended it; 130 when Ctrl-C did.
    """
    logging.getLogger("absl").setLevel(logging.ERROR)
    console = Console(quiet=host > 0)
    chat = Console(quiet=host > 0 or options.verbose == 0)
    say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    workdir = options.workdir or Path("runs", f"{options.preset}-{time.strftime('%Y%m%d-%H%M%S')}")
    with ExitStack() as open_things:
        # Until there is something to save, and once all is.
        before = signal.signal(signal.SIGTERM, _leave)
        open_things.callback(signal.signal, signal.SIGTERM, before)
        try:
            if options.dry_run:
                with mistakes():
                    classes = class_ids(config.data)
                    config.loss.check(len(classes))
                logits = num_logits(classes)
                console.print(layer_table(describe(config, logits)))
                console.print(rehearse(config, logits))
                return 0
            with mistakes():
                builder = open_dataset(config.data)
                pipeline = Pipeline(
                    builder,
                    config.data,
                    config.augment,
                    config.batch_size,
                    config.train.seed,
                    border_sigma=config.loss.border,
                    host=host,
                    hosts=hosts,
                )
                workdir = workdir.expanduser()
                if host == 0:
                    run = Run(workdir, config, resume=options.resume)
                else:
                    run = Onlooker(workdir, config.save)
                open_things.callback(run.close)
                run.split(pipeline)
                if options.wandb and host == 0:
                    run.log_to(WeightsAndBiases(workdir, config))
                weights = class_weights(config.loss, len(pipeline.classes), pipeline.train_masks())
            learner = make_learner(
                config,
                num_classes=num_logits(pipeline.classes),
                classes=len(pipeline.classes),
                class_weights=weights,
                steps_per_epoch=pipeline.steps,
                folder=run.checkpoints,
                say=say,
            )
            open_things.callback(learner.close)
            trainer = Trainer(
                learner,
                pipeline,
                run,
                config.save,
                epochs=config.train.epochs,
                max_skipped=config.train.max_skipped,
                started=started,
                console=chat,
                hosts=hosts,
            )
            if options.resume:
                with mistakes():
                    trainer.resume()
            if trainer.finished:
                if not run.summarised:  # It was killed in between.
                    run.summary(trainer.facts())
                say(f"All {config.train.epochs} epochs are trained; nothing is left to do.")
                return 0
            if learner.step:
                say(f"Going on after step {learner.step}, in epoch {trainer.position.epoch + 1}.")
            place = settle(pipeline, learner, config.data.cache, hosts)
        except KeyboardInterrupt:
            return INTERRUPTED
        logits = num_logits(pipeline.classes)
        for words in introduce(options.verbose, config, lambda: describe(config, logits)):
            chat.print(words, markup=False, highlight=False, soft_wrap=isinstance(words, str))
        chat.print(
            f"{len(pipeline.split.train)} training and {len(pipeline.split.validation)} validation "
            f"images, {config.data.size[0]}×{config.data.size[1]}; {learner.parameters:,} "
            f"parameters; {learner.device}; data in {PLACES[place]} "
            f"({pipeline.bytes / 1e6:,.0f} MB); writing to {run.workdir}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
        try:
            finished = trainer.fit()
            learner.close()
            summary = run.summary(trainer.facts()) if finished else None
        except (DataError, TrainingError) as error:
            fail(str(error))
        except OSError as error:  # A full disk, most of all.
            fail(f"{error}. When that is put right, go on with: --resume --workdir {run.workdir}")
        except Exception as error:
            if not learner.out_of_memory(error):
                raise
            fail(
                f"the device has too little memory for batches of {config.batch_size}: try a "
                "smaller --batch-size, --accumulate 2 (or more), --remat, or --precision bfloat16"
            )
        if summary is None:
            say(f"Saved after step {learner.step}. Go on with: --resume --workdir {run.workdir}")
            return INTERRUPTED if trainer.interrupt.signal == signal.SIGINT else 0
    best = summary["best"]
    say(
        f"Best: epoch {best['epoch']}, {', '.join(scored(best, config.save.best))}, "
        f"in {summary['wall_seconds']:.0f} s, "
        f"{summary['data_wait'] or 0:.1%} of the steps' time spent waiting for data; pictures in "
        f"{run.workdir / 'predictions'}, curves in {run.workdir / 'curves.png'}"
        + (compared(run.workdir) if host == 0 else "")
        + predicting(learner, run.workdir),
        style="bold green",
    )
    return 0


def _leave(*_: object) -> NoReturn:
    raise SystemExit(0)


def predicting(learner: Learner, workdir: Path) -> str:
    """The command that predicts with the run, where one does."""
    if learner.framework != "jax":
        return ""
    run = shlex.quote(str(workdir))
    return f"\nPredict with it: python scripts/predict.py --run {run} IMAGE --out FOLDER"


def compared(workdir: Path) -> str:
    """Where the run is compared with others, if it is."""
    try:
        page = refresh(workdir)
    except OSError as error:  # The run itself is finished and saved.
        return f"; not compared with other runs: {error}"
    return f", compared with other runs in {page}" if page else ""


def settle(pipeline: Pipeline, learner: Learner, wanted: str, hosts: int) -> Place:
    """Brings the data set to where it is to lie while it is trained on, and says where."""
    # Several hosts would have to agree on the device; on host memory or disk they need not.
    free = learner.free_memory if hosts == 1 else None
    place = choose_place(wanted, pipeline.bytes, free)
    if place != "none":
        held = pipeline.hold()
        if place == "device":
            pipeline.fetch_by(learner.hold(*held.arrays))
    return place

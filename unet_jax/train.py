"""From a command line to a finished run, for either framework."""

import logging
import shlex
import signal
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from unet_jax.balance import class_weights
from unet_jax.bar import Watch, watched
from unet_jax.cache import Place, choose_place
from unet_jax.cli import INTERRUPTED, fail, mistakes
from unet_jax.comparison import refresh
from unet_jax.config import Config
from unet_jax.datasets import DataError, class_ids, open_dataset
from unet_jax.describe import introduce, layer_table
from unet_jax.framework import Framework, Learner
from unet_jax.hosts import Hosts
from unet_jax.keeper import Keeper
from unet_jax.onlooker import Onlooker
from unet_jax.pipeline import Pipeline, num_logits
from unet_jax.position import Position
from unet_jax.run import Run
from unet_jax.scoreboard import scored
from unet_jax.train_options import RunOptions
from unet_jax.trainer import Trainer, TrainingError
from unet_jax.weights_and_biases import WeightsAndBiases

PLACES = {"device": "device memory", "host": "host memory", "none": "files"}


def train(
    options: RunOptions,
    config: Config,
    framework: Framework,
    *,
    started: float,
    hosts: Hosts | None = None,
) -> int:
    """Prepares the data, trains, and says what came of it.

    Args:
      options: Where the run goes.
      config: What is trained.
      framework: By which it is.
      started: `time.monotonic()` when the command began.
      hosts: Those that train together; None: this one alone.

    Returns:
      The exit status: 0 when the run is finished, or SIGTERM ended it; 130 when Ctrl-C did.
    """
    logging.getLogger("absl").setLevel(logging.ERROR)
    hosts = hosts or Hosts()
    console = Console(quiet=hosts.this > 0)
    with ExitStack() as open_things:
        # Until there is something to save, and once all is.
        before = signal.signal(signal.SIGTERM, _leave)
        open_things.callback(signal.signal, signal.SIGTERM, before)
        try:
            if options.dry_run:
                return _rehearse(config, framework, console)
            trainer = _prepare(options, config, framework, started, hosts, console, open_things)
            return _train(trainer, options, config, framework, console)
        except KeyboardInterrupt:
            return INTERRUPTED
        except Exception as error:
            if not framework.out_of_memory(error):
                raise
            fail(
                f"too little memory for batches of {config.batch_size}: try a smaller "
                "--batch-size, --accumulate 2 (or more), --remat, --precision bfloat16, or "
                "--cache none"
            )


def _leave(*_: object) -> NoReturn:
    raise SystemExit(0)


def _rehearse(config: Config, framework: Framework, console: Console) -> int:
    with mistakes():
        classes = class_ids(config.data)
        config.loss.check(len(classes))
    logits = num_logits(classes)
    console.print(layer_table(framework.describe(config, logits)))
    console.print(framework.rehearse(config, logits))
    return 0


def _prepare(
    options: RunOptions,
    config: Config,
    framework: Framework,
    started: float,
    hosts: Hosts,
    console: Console,
    open_things: ExitStack,
) -> Trainer:
    """All that comes before the first step, but for the data's way to where it is to lie."""
    chat = Console(quiet=console.quiet or options.verbose == 0)
    with hosts.together():
        pipeline = _open(config, hosts)
        run = _keep(options, config, pipeline, hosts, open_things)
        with mistakes((DataError, OSError)):
            masks = watched(chat, "Counting pixels", len(pipeline.split.train))
            weights = class_weights(
                config.loss, len(pipeline.classes), masks(pipeline.train_masks())
            )
    learner = framework.make_learner(
        config,
        num_classes=num_logits(pipeline.classes),
        classes=len(pipeline.classes),
        class_weights=weights,
        steps_per_epoch=pipeline.steps,
        folder=run.checkpoints,
        say=partial(console.print, markup=False, highlight=False, soft_wrap=True),
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
        hosts=hosts.count,
    )
    if options.resume:
        with hosts.together(), mistakes():
            trainer.resume()
    return trainer


def _open(config: Config, hosts: Hosts) -> Pipeline:
    with mistakes((DataError, OSError)):
        builder = open_dataset(config.data)
    with mistakes():
        pipeline = Pipeline.of(config, builder, host=hosts.this, hosts=hosts.count)
        config.loss.check(len(pipeline.classes))
    return pipeline


def _keep(
    options: RunOptions, config: Config, pipeline: Pipeline, hosts: Hosts, open_things: ExitStack
) -> Keeper:
    """The run's folder, with all that it holds before the first step."""
    usual = Path("runs", f"{options.preset}-{time.strftime('%Y%m%d-%H%M%S')}")
    workdir = options.workdir or usual
    if hosts.this > 0:
        return Onlooker(workdir, config.save)
    with mistakes():
        run = Run(
            workdir, config, options.launch, resume=options.resume, fresh=options.workdir is None
        )
        open_things.callback(run.close)
        run.split(pipeline)
        if options.wandb:
            run.log_to(WeightsAndBiases(run.workdir, config))
    return run


def _train(
    trainer: Trainer, options: RunOptions, config: Config, framework: Framework, console: Console
) -> int:
    """Trains from where the run stands."""
    say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    learner, pipeline, run = trainer.learner, trainer.pipeline, trainer.run
    if trainer.finished:
        if not run.summarised:  # It was killed in between.
            run.summary(trainer.facts())
        say(f"All {config.train.epochs} epochs are trained; nothing is left to do.")
        return 0
    if trainer.position != Position():  # The step itself would have to be waited for.
        say(f"Going on after step {learner.step}, in epoch {trainer.position.epoch + 1}.")
    watch = watched(trainer.console, "Reading the data", len(pipeline.names))
    place = settle(pipeline, learner, config.data.cache, trainer.hosts, watch)
    _introduce(trainer, options, config, framework, PLACES[place])
    try:
        finished = trainer.fit()
        learner.close()
        summary = run.summary(trainer.facts()) if finished else None
    except KeyboardInterrupt:
        say(
            f"Stopped; not saved after the last checkpoint. Go on with: {resuming(run.workdir)}"
            if run.begun
            else "Stopped; not saved, as no step was finished."
        )
        return INTERRUPTED
    except (DataError, TrainingError) as error:
        fail(str(error))
    except OSError as error:  # A full disk, most of all.
        fail(f"{error}. When that is put right, go on with: {resuming(run.workdir)}")
    if summary is None:
        say(f"Saved after step {learner.step}. Go on with: {resuming(run.workdir)}")
        return INTERRUPTED if trainer.interrupt.signal == signal.SIGINT else 0
    best = summary["best"]
    say(
        f"Best: epoch {best['epoch']}, {', '.join(scored(best, config.save.best))}, "
        f"in {summary['wall_seconds']:.0f} s, "
        f"{summary['data_wait'] or 0:.1%} of the steps' time spent waiting for data; pictures in "
        f"{run.workdir / 'predictions'}, curves in {run.workdir / 'curves.png'}"
        + ("" if console.quiet else compared(run.workdir))
        + predicting(learner, run.workdir),
        style="bold green",
    )
    return 0


def _introduce(
    trainer: Trainer, options: RunOptions, config: Config, framework: Framework, place: str
) -> None:
    """Says what is going to be trained, and on what."""
    learner, pipeline, chat = trainer.learner, trainer.pipeline, trainer.console
    logits = num_logits(pipeline.classes)
    for words in introduce(options.verbose, config, lambda: framework.describe(config, logits)):
        chat.print(words, markup=False, highlight=False, soft_wrap=isinstance(words, str))
    chat.print(
        f"{len(pipeline.split.train)} training and {len(pipeline.split.validation)} validation "
        f"images, {config.data.size[0]}×{config.data.size[1]}; {learner.parameters:,} "
        f"parameters; {learner.device}; data in {place} "
        f"({pipeline.bytes / 1e6:,.0f} MB); writing to {trainer.run.workdir}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def resuming(workdir: Path) -> str:
    """The flags that go on with a run."""
    return f"--resume --workdir {shlex.quote(str(workdir))}"


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


def settle(pipeline: Pipeline, learner: Learner, wanted: str, hosts: int, watch: Watch) -> Place:
    """Brings the data set to where it is to lie while it is trained on, and says where."""
    # Several hosts would have to agree on the device; on host memory or disk they need not.
    free = learner.free_memory if hosts == 1 else None
    place = choose_place(wanted, pipeline.bytes, free)
    if place != "none":
        held = pipeline.hold(watch)
        if place == "device":
            pipeline.fetch_by(learner.hold(*held.arrays))
    return place

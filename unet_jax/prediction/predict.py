"""From a command line to predictions on disk: read ahead, predicted in batches, written behind."""

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from unet_jax.cli import INTERRUPTED, fail, mistakes
from unet_jax.datasets.errors import DataError
from unet_jax.datasets.files import quiet
from unet_jax.datasets.memory import keep_freed_memory
from unet_jax.prediction.ahead import ahead
from unet_jax.prediction.bands import resize_bands
from unet_jax.prediction.coco import coco_file, regions
from unet_jax.prediction.inputs import Input, find_inputs
from unet_jax.prediction.outputs import outputs, target, write_outputs
from unet_jax.prediction.picture import Picture, open_picture
from unet_jax.prediction.predict_config import PredictConfig
from unet_jax.prediction.predict_options import PredictOptions
from unet_jax.prediction.predictor import Prediction, Predictor, load
from unet_jax.prediction.run_length import encode_runs, submission

THREADS = min(8, os.cpu_count() or 1)
BUDGET = 256 << 20
"""Bytes of what is read ahead, and of what is still to be written."""


class Failure(NamedTuple):
    """An image that could not be predicted, and why."""

    input: Input
    reason: str


class Opened(NamedTuple):
    """An image that has been read.

    Attributes:
      image: As the network sees it, uint8 [h, w, 3].
    """

    input: Input
    picture: Picture
    image: np.ndarray


class Seen(NamedTuple):
    """An image that the network has seen.

    Attributes:
      found: Probabilities [h, w, K] at the network's size; of tiles, all that they have become.
    """

    input: Input
    picture: Picture
    found: np.ndarray | Prediction


class Done(NamedTuple):
    """An image whose files are written, and what it adds to those of all images."""

    input: Input
    native: tuple[int, int]
    runs: str
    regions: list[dict[str, Any]]


def predict(options: PredictOptions, config: PredictConfig) -> int:
    """Predicts images, and writes what was asked for.

    Returns:
      The exit status: 0; 1 if some images could not be predicted; 130 when Ctrl-C ended it.
    """
    console = Console()
    say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    try:
        with nullcontext() if options.debug else mistakes():
            inputs = find_inputs(options.inputs, options.out)
            place = options.run or options.weights
            assert place is not None
            predictor = load(
                place, last=options.last, ema=options.ema, batch_size=options.batch_size
            )
            predictor.check(config)
            work = Work(predictor, options, config)
            work.refuse_to_overwrite(inputs)
            say(introduction(predictor))
            started = time.monotonic()
            with quiet():
                failures = work.run(inputs)
    except KeyboardInterrupt:
        say("Stopped. What has been written is whole; --force goes over all images again.")
        return INTERRUPTED
    except jax.errors.JaxRuntimeError as error:
        if options.debug or "RESOURCE_EXHAUSTED" not in str(error):
            raise
        fail("the device has too little memory: try a smaller --batch-size, or --tile")
    seconds, count = time.monotonic() - started, len(inputs) - len(failures)
    places = [str(path) for path in (options.out, options.rle, options.coco) if path is not None]
    say(
        f"{count:,} images in {seconds:.1f} s, {count / seconds:.1f} a second; results in "
        + ", ".join(places),
        style="bold green" if count else None,
    )
    if not failures:
        return 0
    title = f"error: {len(failures):,} of {len(inputs):,} images could not be predicted:"
    problems = [f"{failure.input.path}: {failure.reason}" for failure in failures]
    Console(stderr=True).print(
        str(DataError.listing(title, problems)), markup=False, highlight=False, soft_wrap=True
    )
    return 1


def introduction(predictor: Predictor) -> str:
    """What predicts, in a line."""
    trained = predictor.trained
    weights = sum(leaf.size for leaf in jax.tree.leaves(trained.variables["params"]))
    parts = [
        f"{trained.model.architecture} U-Net of {weights:,} parameters",
        f"trained at {trained.size[0]}×{trained.size[1]}",
        f"{len(trained.classes)} classes",
    ]
    if "run" in trained.facts:
        average = ", average of the weights" if trained.facts["ema"] else ""
        parts.append(f"{trained.facts['state']}, step {trained.facts['step']}{average}")
    return "; ".join(parts)


class Work:
    """What is done with each image."""

    def __init__(
        self, predictor: Predictor, options: PredictOptions, config: PredictConfig
    ) -> None:
        """Raises:
        ValueError: What is to be written does not go with the network's classes.
        """
        self.predictor, self.options, self.config = predictor, options, config
        self.classes = predictor.trained.classes
        if options.rle is not None and len(self.classes) > 2:
            raise ValueError(f"--rle: needs two classes, and there are {len(self.classes)}")
        self.outputs = outputs(options.kinds, len(self.classes))
        self.keep = bool({"probabilities", "probabilities16"} & set(options.kinds))

    def targets(self, input: Input) -> Iterator[Path]:
        """The files that an image's results are written to."""
        for output in self.outputs:
            yield target(self.base(input), output)

    def base(self, input: Input) -> Path:
        assert self.options.out is not None
        return self.options.out.expanduser() / input.name

    def refuse_to_overwrite(self, inputs: Sequence[Input]) -> None:
        """Raises `ValueError` if a result is there already, and may not be written over."""
        whole = [path.expanduser() for path in (self.options.rle, self.options.coco) if path]
        for path in whole:
            if path.is_dir():
                raise ValueError(f"{path} is a folder; a file's name is needed")
        if self.options.out is not None and self.options.out.expanduser().is_file():
            raise ValueError(f"--out: {self.options.out} is a file; a folder is needed")
        if self.options.force:
            return
        existing = [path for path in whole if path.exists()]
        existing += [path for each in inputs for path in self.targets(each) if path.exists()]
        if existing:
            more = f" and {len(existing) - 1:,} more" if len(existing) > 1 else ""
            raise ValueError(f"{existing[0]}{more} would be written over; --force does that")

    def run(self, inputs: Sequence[Input]) -> list[Failure]:
        """Predicts all images that can be, and shows how far it is.

        Returns:
          Those that cannot.

        Raises:
          OSError: A file of all images cannot be written.
        """
        failures = []
        with ExitStack() as open_things:
            table = coco = None
            if self.options.rle is not None:
                table = open_things.enter_context(submission(_made(self.options.rle)))
            if self.options.coco is not None:
                coco = open_things.enter_context(coco_file(_made(self.options.coco), self.classes))
            progress = open_things.enter_context(_progress())
            task = progress.add_task("Predicting", total=len(inputs))
            for result in self.results(inputs):
                progress.advance(task)
                if isinstance(result, Failure):
                    failures.append(result)
                    continue
                if table is not None:
                    table.writerow((result.input.path.name, result.runs))
                if coco is not None:
                    name = result.input.name + result.input.path.suffix
                    coco.add(name, result.native, result.regions)
        return failures

    def results(self, inputs: Sequence[Input]) -> Iterator[Done | Failure]:
        """Predicts images; in their order if all are of one size, or in tiles."""
        keep_freed_memory()
        bounds = {"threads": THREADS, "budget": BUDGET, "most": THREADS + self.options.batch_size}
        opened = ahead(inputs, self.open, _weight, **bounds)
        return ahead(self.see(opened), self.finish, self.weight, **bounds)

    def open(self, input: Input) -> Opened | Failure:
        """Reads an image."""
        try:
            picture = open_picture(input.path, self.config.white)
            return Opened(input, picture, self.predictor.seen(picture, self.config))
        except (OSError, ValueError, MemoryError) as error:
            return self.failure(input, error)

    def see(self, opened: Iterable[Opened | Failure]) -> Iterator[Seen | Failure]:
        """Shows images to the network, those of one size together."""
        waiting: dict[tuple[int, ...], list[Opened]] = {}
        for one in opened:
            if isinstance(one, Failure):
                yield one
            elif self.config.tile is not None:
                bands = self.predictor.bands(one.image, one.picture.native, self.config)
                found = self.predictor.decide(one.picture, bands, self.config, keep=self.keep)
                yield Seen(one.input, one.picture, found)
            else:
                group = waiting.setdefault(one.image.shape, [])
                group.append(one)
                if len(group) == self.options.batch_size:
                    yield from self.batch(waiting.pop(one.image.shape))
                elif sum(map(len, waiting.values())) > 4 * self.options.batch_size:
                    # Of many sizes, each would wait for others of its own until the end.
                    yield from self.batch(waiting.pop(next(iter(waiting))))
        for group in waiting.values():
            yield from self.batch(group)

    def batch(self, group: Sequence[Opened]) -> Iterator[Seen]:
        images = [one.image for one in group]
        # Another number of images would be compiled for anew.
        images += [images[0]] * (self.options.batch_size - len(group))
        found = self.predictor.run(np.stack(images), self.config.flips)
        for one, probabilities in zip(group, found, strict=False):
            yield Seen(one.input, one.picture, probabilities)

    def finish(self, seen: Seen | Failure) -> Done | Failure:
        """Makes classes of probabilities, and writes all that is written of this image."""
        if isinstance(seen, Failure):
            return seen
        input, picture, found = seen
        try:
            if not isinstance(found, Prediction):
                size = (found.shape[0], found.shape[1])
                bands = resize_bands([found], size, picture.native)
                found = self.predictor.decide(picture, bands, self.config, keep=self.keep)
            if self.outputs:
                write_outputs(found, self.base(input), self.outputs)
        except (OSError, ValueError, MemoryError) as error:
            return self.failure(input, error)
        runs = "" if self.options.rle is None else encode_runs(found.mask)
        covered = [] if self.options.coco is None else regions(found.mask, self.classes)
        return Done(input, picture.native, runs, covered)

    def failure(self, input: Input, error: Exception) -> Failure:
        if self.options.debug:
            raise error
        reason = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, OSError) and error.strerror:
            reason = error.strerror
        return Failure(input, reason)

    def weight(self, seen: Seen | Failure) -> int:
        """Bytes that finishing an image takes, roughly."""
        if isinstance(seen, Failure):
            return 0
        numbers = 4 * len(self.classes) if self.keep else 0
        pictures = 12 if "overlay" in self.options.kinds else 0
        return (4 + numbers + pictures) * int(np.prod(seen.picture.native))


def _weight(input: Input) -> int:
    """Bytes that reading an image takes, roughly."""
    try:
        with Image.open(input.path) as image:  # Its header.
            return 8 * image.width * image.height
    except Exception:  # Reading will say what is wrong.
        return 0


def _made(path: Path) -> Path:
    path = path.expanduser()
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _progress() -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=console,
        transient=True,
        disable=not console.is_terminal,  # It would leave an empty line in a log.
    )

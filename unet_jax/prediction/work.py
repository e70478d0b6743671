"""What is done with each image that is predicted: read ahead, shown in batches, written behind."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from unet_jax.heap import keep_freed_memory
from unet_jax.prediction.ahead import ahead
from unet_jax.prediction.bands import resize_bands
from unet_jax.prediction.inputs import Input
from unet_jax.prediction.picture import Picture, open_picture
from unet_jax.prediction.predict_config import PredictConfig
from unet_jax.prediction.predict_options import PredictOptions
from unet_jax.prediction.prediction import Prediction
from unet_jax.prediction.predictor import Predictor
from unet_jax.prediction.results import Done, Results

THREADS = min(8, os.cpu_count() or 1)
BUDGET = 256 << 20
"""Bytes of what is read ahead, of what waits for others of its size, and of what is still to be
written."""
WAITING = 4
"""Batches of images that wait at most: of many sizes, each would wait for others until the end."""
OF_FILES = (OSError, ValueError, MemoryError)
OF_NETWORK = (MemoryError, jax.errors.JaxRuntimeError)
"""What is raised over one image, or its results; the others are done all the same."""


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


class Work:
    """What is done with each image."""

    def __init__(
        self, predictor: Predictor, results: Results, options: PredictOptions, config: PredictConfig
    ) -> None:
        """Args:
        predictor: The network.
        results: What is written.
        options: For `batch_size` and `debug`.
        config: How images meet the network.
        """
        self.predictor, self.written = predictor, results
        self.options, self.config = options, config

    def run(self, inputs: Sequence[Input]) -> list[Failure]:
        """Predicts all images that can be, and shows how far it is.

        Returns:
          Those that cannot.

        Raises:
          OSError: A file of all images cannot be written.
        """
        failures = []
        with self.written.of_all() as add, _progress() as progress:
            task = progress.add_task("Predicting", total=len(inputs))
            for result in self.results(inputs):
                progress.advance(task)
                if isinstance(result, Failure):
                    failures.append(result)
                else:
                    add(result)
        return failures

    def results(self, inputs: Sequence[Input]) -> Iterator[Done | Failure]:
        """Predicts images; in their order if all are of one size, or in tiles."""
        keep_freed_memory()
        size = min(self.options.batch_size, len(inputs))
        bounds = {"threads": THREADS, "budget": BUDGET, "most": THREADS + size}
        opened = ahead(inputs, self.open, _weight, **bounds)
        return ahead(self.see(opened, size), self.finish, self.weight, **bounds)

    def open(self, input: Input) -> Opened | Failure:
        """Reads an image."""
        try:
            picture = open_picture(input.path, self.config.white)
            return Opened(input, picture, self.predictor.seen(picture, self.config))
        except OF_FILES as error:
            return self.failure(input, error)

    def see(self, opened: Iterable[Opened | Failure], size: int) -> Iterator[Seen | Failure]:
        """Shows images to the network, `size` of one height and width together."""
        waiting: dict[tuple[int, ...], list[Opened]] = {}
        for one in opened:
            if isinstance(one, Failure):
                yield one
            elif self.config.tile is not None:
                yield self.tiled(one)
            else:
                group = waiting.setdefault(one.image.shape, [])
                group.append(one)
                if len(group) == size:
                    yield from self.batch(waiting.pop(one.image.shape), size)
                while self.too_many(waiting, size):
                    yield from self.batch(waiting.pop(next(iter(waiting))), size)
        for group in waiting.values():
            yield from self.batch(group, size)

    def too_many(self, waiting: Mapping[tuple[int, ...], Sequence[Opened]], size: int) -> bool:
        images = [one.image for group in waiting.values() for one in group]
        return len(images) > WAITING * size or sum(image.nbytes for image in images) > BUDGET

    def tiled(self, one: Opened) -> Seen | Failure:
        try:
            bands = self.predictor.bands(one.image, one.picture.native, self.config)
            found = self.decide(one.picture, bands)
        except OF_NETWORK as error:
            return self.failure(one.input, error)
        return Seen(one.input, one.picture, found)

    def batch(self, group: Sequence[Opened], size: int) -> Iterator[Seen | Failure]:
        """Shows images of one height and width to the network."""
        images = [one.image for one in group]
        if self.config.size != "native":
            # Another number of images would be compiled for anew; native sizes are in any case.
            images += [images[0]] * (size - len(group))
        try:
            found = self.predictor.run(np.stack(images), self.config.flips)
        except OF_NETWORK as error:
            yield from (self.failure(one.input, error) for one in group)
            return
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
                found = self.decide(picture, bands)
            return self.written.write(input, found)
        except OF_FILES as error:
            return self.failure(input, error)

    def decide(self, picture: Picture, bands: Iterator[np.ndarray]) -> Prediction:
        return self.predictor.decide(picture, bands, self.config, keep=self.written.keep)

    def failure(self, input: Input, error: Exception) -> Failure:
        """Raises the error if it is not the image's, or is to be seen."""
        device = isinstance(error, jax.errors.JaxRuntimeError)
        if self.options.debug or (device and "RESOURCE_EXHAUSTED" not in str(error)):
            raise error
        if device or isinstance(error, MemoryError):
            where = "the device" if device else "the machine"
            reason = f"{where} has too little memory: try a smaller --batch-size, or --tile"
        elif isinstance(error, OSError) and error.strerror:
            reason = error.strerror
        else:
            reason = " ".join(str(error).split()) or type(error).__name__
        return Failure(input, reason)

    def weight(self, seen: Seen | Failure) -> int:
        """Bytes that finishing an image takes, roughly."""
        if isinstance(seen, Failure):
            return 0
        cleaning = 24 if self.config.min_area > 1 else 0  # Numbers of regions, and distances.
        given = seen.found.nbytes if isinstance(seen.found, np.ndarray) else 0
        return given + (self.written.weight + cleaning) * int(np.prod(seen.picture.native))


def _weight(input: Input) -> int:
    """Bytes that reading an image takes, roughly."""
    try:
        with Image.open(input.path) as image:  # Its header.
            return 8 * image.width * image.height
    except Exception:  # Reading will say what is wrong.
        return 0


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

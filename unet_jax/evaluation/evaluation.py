"""What a network reaches on samples: they are read ahead, predicted in batches, counted behind."""

import heapq
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image

from unet_jax.datasets.errors import DataError
from unet_jax.evaluation.samples import Samples
from unet_jax.evaluation.tally import Counted, Tally, count
from unet_jax.prediction.ahead import ahead
from unet_jax.prediction.bands import resize_bands
from unet_jax.prediction.picture import Size
from unet_jax.prediction.predict_config import PredictConfig
from unet_jax.prediction.predictor import Predictor

THREADS = min(8, os.cpu_count() or 1)
BUDGET = 256 << 20
"""Bytes of what is read ahead, and of what is still to be counted."""
WORST = 20
PICTURE_SIDE = 320  # Pixels of the long side of what is kept of the worst samples.


class Worst(NamedTuple):
    """One of the samples with the lowest scores, small enough to be kept.

    Attributes:
      score: As `Tally.add` gives it.
      name: The sample's.
      image: uint8 [h, w, 3].
      truth, predicted: Class ids, uint8 [h, w].
    """

    score: float
    name: str
    image: np.ndarray
    truth: np.ndarray
    predicted: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a network reached.

    Attributes:
      trained: At the training's size.
      native: At each file's own size; None if that is the training's of all networks.
      worst: The worst samples, the worst first.
    """

    trained: Tally
    native: Tally | None
    worst: Sequence[Worst]

    @property
    def tallies(self) -> dict[str, Tally]:
        """By "training" and "native"."""
        both = {"training": self.trained, "native": self.native}
        return {name: tally for name, tally in both.items() if tally is not None}


class Opened(NamedTuple):
    """A sample that has been read.

    Attributes:
      number: Its place among the samples.
      image: As validation in training sees it, [h, w, 3].
      mask: Class ids, uint8 [h, w].
    """

    number: int
    image: np.ndarray
    mask: np.ndarray


class Seen(NamedTuple):
    """A sample that the network has seen.

    Attributes:
      opened: What it was.
      found: Probabilities [h, w, K].
      native: Counts at the file's own size, if the network had to see it for them again.
    """

    opened: Opened
    found: np.ndarray
    native: Counted | None


class Done(NamedTuple):
    """A sample that has been counted."""

    opened: Opened
    trained: Counted
    native: Counted | None


def evaluate_network(
    predictor: Predictor,
    samples: Samples,
    config: PredictConfig,
    advance: Callable[[], object],
    *,
    native: bool,
) -> Evaluation:
    """Evaluates a network.

    Args:
      predictor: The network.
      samples: What it is evaluated on.
      config: `size`, `tile` and `overlap` for the native size, `flips` and `threshold` for both.
      advance: Called when a sample is done.
      native: Whether the files' own size counts, too; it is the training's where they are the same.

    Raises:
      DataError: A file cannot be read; or no pixel counts.
    """
    work, classes = _Work(predictor, samples, config, native), len(samples.classes)
    trained = Tally(len(samples.names), classes)
    at_native = Tally(len(samples.names), classes) if native else None
    worst: list[tuple[float, int, Worst]] = []  # A heap, the best of them on top.
    for opened, counted, again in work.results():
        number = opened.number
        score, shown = trained.add(number, counted), counted
        if at_native is not None and again is not None:
            score, shown = at_native.add(number, again), again
        if not math.isnan(score) and (len(worst) < WORST or score < -worst[0][0]):
            kept = _small(score, samples.names[number], opened, shown.mask)
            heapq.heappush(worst, (-score, number, kept))
            if len(worst) > WORST:
                heapq.heappop(worst)
        advance()
    if not trained.confusion.any():
        raise DataError("there is nothing to score: every pixel is ignored")
    ordered = sorted(worst, key=lambda entry: (-entry[0], entry[1]))
    return Evaluation(trained=trained, native=at_native, worst=[kept for *_, kept in ordered])


def _small(score: float, name: str, opened: Opened, predicted: np.ndarray) -> Worst:
    share = min(1.0, PICTURE_SIDE / max(opened.mask.shape))
    width, height = (max(1, round(share * side)) for side in opened.mask.shape[::-1])
    image = np.clip(np.rint(opened.image), 0, 255).astype(np.uint8)

    def resized(array: np.ndarray, filter: Image.Resampling) -> np.ndarray:
        return np.asarray(Image.fromarray(array).resize((width, height), filter))

    return Worst(
        score,
        name,
        resized(image, Image.Resampling.BILINEAR),
        resized(opened.mask, Image.Resampling.NEAREST),
        resized(predicted, Image.Resampling.NEAREST),
    )


class _Work:
    """What is done with each sample."""

    def __init__(
        self, predictor: Predictor, samples: Samples, config: PredictConfig, native: bool
    ) -> None:
        self.predictor, self.samples, self.config = predictor, samples, config
        self.native = native
        self.classes = len(samples.classes)
        # Then the network has seen, at the training's size, what it would see of the file.
        self.seen_once = config.tile is None and config.size is None and not samples.scaled

    def results(self) -> Iterator[Done]:
        """Counts samples, in order."""
        most = THREADS + self.predictor.batch_size
        bounds = {"threads": THREADS, "budget": BUDGET, "most": most}
        opened = ahead(range(len(self.samples.names)), self.open, self.weight, **bounds)
        return ahead(
            self.see(opened), self.finish, lambda s: self.weight(s.opened.number), **bounds
        )

    def weight(self, index: int) -> int:
        """Bytes that a sample takes, roughly."""
        sizes: list[Size] = [self.samples.config.size]
        if self.native:
            sizes.append(self.samples.native[index])
        return sum((16 + 8 * self.classes) * height * width for height, width in sizes)

    def open(self, index: int) -> Opened:
        return Opened(index, *self.samples.trained(index))

    def see(self, opened: Iterable[Opened]) -> Iterator[Seen]:
        group: list[Opened] = []
        for one in opened:
            group.append(one)
            if len(group) == self.predictor.batch_size:
                yield from self.batch(group)
                group = []
        if group:
            yield from self.batch(group)

    def batch(self, group: Sequence[Opened]) -> Iterator[Seen]:
        images = [one.image for one in group]
        # Another number of images would be compiled for anew.
        images += [images[0]] * (self.predictor.batch_size - len(group))
        found = self.predictor.run(np.stack(images), self.config.flips)
        for one, probabilities in zip(group, found, strict=False):
            again = self.native and not self.seen_once
            yield Seen(one, probabilities, self.see_native(one.number) if again else None)

    def see_native(self, index: int) -> Counted:
        picture = self.samples.picture(index)
        image = self.predictor.seen(picture, self.config)
        bands = self.predictor.bands(image, picture.native, self.config)
        return self.count(bands, self.samples.native_mask(index))

    def finish(self, seen: Seen) -> Done:
        opened, found, native = seen
        trained = self.count([found], opened.mask)
        if native is None and self.native:
            size = found.shape[0], found.shape[1]
            bands = resize_bands([found], size, self.samples.native[opened.number])
            native = self.count(bands, self.samples.native_mask(opened.number))
        return Done(opened, trained, native)

    def count(self, bands: Iterable[np.ndarray], truth: np.ndarray) -> Counted:
        return count(bands, truth, self.classes, self.config.threshold)

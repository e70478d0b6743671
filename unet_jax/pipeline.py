"""From prepared records to batches: the same ones for both frameworks, whatever the threads."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import grain
import numpy as np

from unet_jax.batch import Batch
from unet_jax.config import DataConfig
from unet_jax.datasets import DataError, PairBuilder, class_names

READ = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)  # In batches.
Record = dict[str, np.ndarray]


@dataclass(frozen=True)
class Split:
    """Positions of the training and the validation samples in the prepared set."""

    train: list[int]
    validation: list[int]


def split_groups(groups: Sequence[str], fraction: float, seed: int) -> Split:
    """Holds out a share of the groups, and every sample of each.

    Args:
      groups: Each sample's group.
      fraction: Share of the groups to hold out; at least one stays on either side.
      seed: Draws them.

    Raises:
      DataError: There are fewer than two groups.
    """
    unique = sorted(set(groups))
    if len(unique) < 2:
        raise DataError(f"cannot split {len(unique)} group(s) into training and validation")
    count = min(max(round(fraction * len(unique)), 1), len(unique) - 1)
    chosen = np.random.default_rng(seed).choice(len(unique), size=count, replace=False)
    held_out = {unique[i] for i in chosen}
    train = [n for n, group in enumerate(groups) if group not in held_out]
    return Split(train, [n for n, group in enumerate(groups) if group in held_out])


def num_logits(classes: Sequence[str]) -> int:
    """Channels of the logits: 1 for two classes, else one for each."""
    return 1 if len(classes) == 2 else len(classes)


class Pipeline:
    """Serves a prepared data set in batches.

    Attributes:
      classes, palette: Name and RGB colour of each class id.
      split: Which samples are trained and validated on.
      steps: Training batches an epoch; what is left over waits for the next epoch's shuffle. With
        `overfit`, as many as without, of the few samples over and over.
    """

    def __init__(self, builder: PairBuilder, config: DataConfig, batch_size: int, seed: int):
        """Args:
          builder: The prepared set.
          config: `binary`, `val_fraction`, `split_seed`, `overfit` and `horizontal_flip` are used.
          batch_size: Samples a batch; with `overfit`, at most as many as there are.
          seed: Draws each epoch's order and flips.

        Raises:
          DataError: There are fewer training samples than a batch needs.
        """
        self.classes = class_names(config)
        self.palette = builder.PALETTE[: len(self.classes)]
        self.binary = config.binary
        self.flip = config.horizontal_flip
        self.seed = seed
        self.names = builder.names()
        self.records = builder.records()
        self.split = split_groups(builder.groups(), config.val_fraction, config.split_seed)
        samples = len(self.split.train)
        if config.overfit:
            few = self.split.train[: config.overfit]
            self.split, self.flip = Split(few, few), 0.0
            batch_size = min(batch_size, len(few))
        self.batch_size = batch_size
        self.steps = samples // batch_size
        if not self.steps:
            raise DataError(f"batch_size: {batch_size} is more than the {samples} training images")

    def train(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The epoch's batches from number `start` on; only (seed, epoch) decide what is in them."""
        seed = int(np.random.SeedSequence([self.seed, epoch]).generate_state(1)[0])
        data = grain.MapDataset.source(_Subset(self.records, self.split.train)).seed(seed)
        passes = math.ceil(self.steps * self.batch_size / len(self.split.train))
        data = data.shuffle().repeat(passes).map(self._decode).random_map(self._augment)
        batches = data.batch(self.batch_size)[start : self.steps]
        return _batches(batches, self.batch_size)

    def validation(self) -> Iterator[Batch]:
        """Every validation sample once, in order; the last batch is padded, and says so."""
        return self._in_order(self.split.validation)

    def pictures(self, count: int) -> Iterator[Batch]:
        """The same few validation samples every time, spread over the set."""
        count = min(count, len(self.split.validation))
        places = np.linspace(0, len(self.split.validation) - 1, count).astype(int)
        return self._in_order([self.split.validation[i] for i in places])

    def _in_order(self, indices: list[int]) -> Iterator[Batch]:
        data = grain.MapDataset.source(_Subset(self.records, indices)).map(self._decode)
        return _batches(data.batch(self.batch_size), self.batch_size)

    def _decode(self, record: Record) -> Record:
        mask = record["mask"]
        return record | {"mask": (mask > 0).astype(np.uint8)} if self.binary else record

    def _augment(self, record: Record, rng: np.random.Generator) -> Record:
        if rng.random() < self.flip:
            return {name: array[:, ::-1] for name, array in record.items()}
        return record


class _Subset:
    def __init__(self, records: Sequence[Record], indices: list[int]) -> None:
        self.records, self.indices = records, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: Any) -> Record:
        return self.records[self.indices[index]]


def _batches(data: grain.MapDataset, batch_size: int) -> Iterator[Batch]:
    for record in data.to_iter_dataset(READ):
        short = batch_size - len(record["image"])
        valid = np.arange(batch_size) < batch_size - short
        yield Batch(_pad(record["image"], short), _pad(record["mask"], short), valid)


def _pad(array: np.ndarray, count: int) -> np.ndarray:
    return np.pad(array, [(0, count)] + [(0, 0)] * (array.ndim - 1)) if count else array

"""From prepared records to batches: the same ones for both frameworks, whatever the threads."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from functools import partial
from typing import Self

import grain
import numpy as np
from PIL import Image

from unet_jax.batch import Batch
from unet_jax.border import border_map
from unet_jax.cache import Fetch, Held, Read, Record
from unet_jax.config import AugmentConfig, Config, DataConfig
from unet_jax.datasets import IGNORED, DataError, PairBuilder, merged
from unet_jax.draws import affine, check_reach, draw, geometric, photometric
from unet_jax.side_by_side import side_by_side
from unet_jax.split import Split, split_samples

READ = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)  # In batches.


def num_logits(classes: Sized) -> int:
    """Channels of the logits: 1 for two classes, else one for each."""
    return 1 if len(classes) == 2 else len(classes)


class Pipeline:
    """Serves a prepared data set in batches.

    Attributes:
      classes, palette: Name and RGB colour of each class id.
      names, content: Each sample's name; a digest of all images and masks.
      split: Which samples are trained and validated on.
      batch_size: Samples a batch, on all hosts together.
      steps: Training batches an epoch; what is left over waits for the next epoch's shuffle. With
        `overfit`, as many as without, of the few samples over and over.
    """

    def __init__(
        self,
        builder: PairBuilder,
        data: DataConfig,
        augment: AugmentConfig,
        batch_size: int,
        seed: int,
        *,
        border_sigma: float | None = None,
        host: int = 0,
        hosts: int = 1,
    ):
        """Args:
          builder: The prepared set.
          data: All that does not say where the set comes from.
          augment: How training samples are changed; not at all with `overfit`.
          batch_size: Samples a batch, on all hosts together, with `overfit` no more than that.
          seed: Draws each epoch's order and augmentation.
          border_sigma: How wide borders between objects are, in stored pixels; None: samples have
            no border map.
          host: Which of the hosts this one is, from 0.
          hosts: How many share a batch: each serves its rows of it, the first host the first ones.

        Raises:
          DataError: There are fewer training samples than a batch needs.
          ValueError: `augment` looks farther around a picture than can be told; or the hosts
            cannot have equal shares of a batch.
        """
        facts = builder.facts
        self.classes = merged(facts.classes, data.binary)
        self.palette = facts.palette[: len(self.classes)]
        self.binary, self.seed = data.binary, seed
        self.size, self.stored = data.size, data.prepared_size
        self.names, self.native, self.content = facts.names, facts.native, facts.content
        self.records = builder.records()
        self.split = split_samples(facts.names, facts.groups, facts.splits, data)
        self.augment = augment
        samples = len(self.split.train)
        if data.overfit:
            batch_size = min(batch_size, data.overfit)
            few = self.split.train[: data.overfit]
            self.split, self.augment = Split(few, few), AugmentConfig(horizontal_flip=0)
        for native in {(height, width) for height, width in self.native}:
            check_reach(self.augment, self.stored, native)
        self._shrunk = self.stored != self.size
        self._moved = self._shrunk or geometric(self.augment)
        self._coloured = photometric(self.augment)
        self.border_sigma = border_sigma
        self._stored: Read = self._read
        if border_sigma is not None:
            self._stored = partial(self._read_with_borders, border_sigma)
        self._samples = self._stored
        self._fetch: Fetch | None = None
        self.batch_size = batch_size
        self.steps = samples // batch_size
        if not self.steps:
            raise DataError(f"batch_size: {batch_size} is more than the {samples} training images")
        self._share, left = divmod(batch_size, hosts)
        if left:
            raise ValueError(
                f"batch_size: {batch_size} cannot be divided among {hosts} hosts; choose a "
                f"multiple of {hosts}"
            )
        self._rows = slice(host * self._share, (host + 1) * self._share)

    @classmethod
    def of(cls, config: Config, builder: PairBuilder, host: int = 0, hosts: int = 1) -> Self:
        """What a training with these settings is served; the other arguments are as above."""
        return cls(
            builder,
            config.data,
            config.augment,
            config.batch_size,
            config.train.seed,
            border_sigma=config.loss.border,
            host=host,
            hosts=hosts,
        )

    @property
    def bytes(self) -> int:
        """Size of the whole set in memory."""
        each = 4 if self.border_sigma is None else 5
        return each * math.prod(self.stored) * len(self.names)

    def train_masks(self) -> Iterator[np.ndarray]:
        """The training samples' class ids, uint8 [H, W] of the stored size."""
        return side_by_side(lambda n: self._read(np.array([n]))["mask"][0], self.split.train)

    def samples(self, epoch: int, batch: int) -> list[str]:
        """The names of the samples in a training batch."""
        first = batch * self.batch_size
        return [self.names[n] for n in self._order(epoch)[first : first + self.batch_size]]

    def hold(self, watch: Callable[[Iterable[object]], Iterable[object]] = iter) -> Held:
        """Reads the whole set into memory, and serves it from there; so does every host.

        Args:
          watch: Passes on something for each sample but the first.
        """
        count, first = len(self.names), self._samples(np.arange(1))
        whole = {name: np.empty((count, *x.shape[1:]), x.dtype) for name, x in first.items()}

        def keep(index: int, sample: Record) -> None:
            for name, array in sample.items():
                whole[name][index] = array[0]

        keep(0, first)
        read = side_by_side(lambda n: keep(n, self._samples(np.array([n]))), range(1, count))
        for _ in watch(read):
            pass
        self._samples = held = Held(**whole)
        return held

    def fetch_by(self, fetch: Fetch) -> None:
        """Leaves the reading to `fetch`, which has the whole set on the device."""
        self._fetch = fetch
        self._samples = lambda indices: {"index": indices.astype(np.int32)}

    def train(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """This host's share of the epoch's batches, from number `start` on.

        What is in a batch, (seed, epoch) alone decide: not threads, nor devices, nor hosts.
        """
        order = self._order(epoch).reshape(self.steps, self.batch_size)
        return self._batches(list(order[start:, self._rows]), partial(self._augmented, epoch))

    def _order(self, epoch: int) -> np.ndarray:
        """Which samples an epoch trains on, one after another."""
        # Grain would shuffle, too, but takes a quarter as long over it as to read the samples.
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(epoch,)))
        count = self.steps * self.batch_size
        passes = math.ceil(count / len(self.split.train))
        return np.concatenate([rng.permutation(self.split.train) for _ in range(passes)])[:count]

    def validation(self) -> Iterator[Batch]:
        """This host's share of every validation sample once, in order.

        The last batch is padded, and says so: for some hosts, the whole of it may be.
        """
        whole = _portions(self.split.validation, self.batch_size)
        batches = self._batches([indices[self._rows] for indices in whole], self._samples)
        return map(self._whole, batches) if self._shrunk else batches

    def pictures(self, count: int) -> Iterator[Batch]:
        """The same few validation samples every time, spread over the set; in host memory.

        They have the size of what the network is given, and so of what it predicts; every host
        has all of them.
        """
        count = min(count, len(self.split.validation))
        places = np.linspace(0, len(self.split.validation) - 1, count).astype(int)
        chosen = [self.split.validation[i] for i in places]
        batches = self._batches(_portions(chosen, self._share), self._stored)
        return map(self._seen, batches) if self._shrunk else batches

    def _augmented(self, epoch: int, indices: np.ndarray) -> Record:
        batch = self._samples(indices)
        if self._moved or self._coloured:
            at = {"seed": self.seed, "epoch": epoch, "size": self.size, "stored": self.stored}
            drawn = [
                draw(self.augment, **at, index=n, native=self.native[n]) for n in indices.tolist()
            ]
            batch |= {"geometry": np.stack([d.geometry for d in drawn])} if self._moved else {}
            batch |= {"colour": np.stack([d.colour for d in drawn])} if self._coloured else {}
        return batch

    def _whole(self, batch: Batch) -> Batch:
        """The batch, to be seen as a whole at the size of what the network is given."""
        geometry = affine(self.size, self.size, stored=self.stored)
        return batch._replace(geometry=np.repeat(geometry[None], len(batch.valid), axis=0))

    def _seen(self, batch: Batch) -> Batch:
        """What the device will make of `_whole`, but for the rounding of images."""
        (height, width), (bottom, right) = self.size, self.stored
        # As on the device, and unlike Pillow's `resize`, without antialiasing.
        way = (width, height), Image.Transform.EXTENT, (0, 0, right, bottom)

        def seen(pictures: np.ndarray, filter: Image.Resampling) -> np.ndarray:
            sampled = (Image.fromarray(each).transform(*way, filter) for each in pictures)
            return np.stack([np.asarray(each) for each in sampled])

        image = seen(batch.image, Image.Resampling.BILINEAR)
        mask = seen(batch.mask, Image.Resampling.NEAREST)
        border = batch.border
        if border is not None:
            border = seen(border, Image.Resampling.NEAREST)
        return batch._replace(image=image, mask=mask, border=border)

    def _read(self, indices: np.ndarray) -> Record:
        # One record at a time: the memory that one took is the next one's.
        image = np.empty((len(indices), *self.stored, 3), np.uint8)
        mask = np.empty((len(indices), *self.stored), np.uint8)
        for place, index in enumerate(indices.tolist()):
            record = self.records[index]
            image[place], mask[place] = record["image"], record["mask"]
        if self.binary:
            np.copyto(mask, 1, where=(mask > 0) & (mask != IGNORED))
        return {"image": image, "mask": mask}

    def _read_with_borders(self, sigma: float, indices: np.ndarray) -> Record:
        record = self._read(indices)
        border = np.empty_like(record["mask"])
        for place, mask in enumerate(record["mask"]):
            border[place] = border_map(mask, sigma)
        return record | {"border": border}

    def _batches(self, indices: Sequence[np.ndarray], read: Read) -> Iterator[Batch]:
        for record in grain.MapDataset.source(indices).map(read).to_iter_dataset(READ):
            count = len(next(iter(record.values())))
            valid = np.arange(self._share) < count
            record = {name: _pad(x, self._share - count) for name, x in record.items()}
            if "index" in record:
                assert self._fetch is not None
                record |= zip(Held._fields, self._fetch(record.pop("index")), strict=False)
            yield Batch(valid=valid, **record)


def _portions(indices: Sequence[int], size: int) -> list[np.ndarray]:
    return np.split(np.asarray(indices), range(size, len(indices), size))


def _pad(array: np.ndarray, count: int) -> np.ndarray:
    return np.pad(array, [(0, count)] + [(0, 0)] * (array.ndim - 1)) if count else array

"""How fast images come: our loader by stage, against the usual PyTorch DataLoader."""

import contextlib
import io
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from parity.benchmark.contest import Rate, contest
from unet_jax.augment import inputs_and_targets
from unet_jax.batch import Batch
from unet_jax.config import Config
from unet_jax.datasets import open_dataset
from unet_jax.datasets.files import FileBuilder, load_pair, quiet
from unet_jax.datasets.layout import Layout, Pair
from unet_jax.pipeline import Pipeline
from unet_torch_ref.loader import file_loader

EPOCH = 2000  # Images, at least.
READ, DECODE = "read", "read, decode"
BATCH, HOST = "read, decode, batch", "batch from host memory"
TRANSFER, AUGMENT = "… and to the device", "… and augmented there"
PREPARE, STORE = "prepare: read, check, resize", "… and write, on all cores"
TORCH = "PyTorch DataLoader"


def race(config: Config, *, workers: int, rounds: int, images: int) -> dict[str, Rate]:
    """Images/s of every stage, each with all stages before it, and of PyTorch's loader.

    Args:
      config: Its data set, size, batch size and augmentation.
      workers: Processes of PyTorch's loader.
      rounds: How often each is timed.
      images: How many files a round are prepared, and served by PyTorch's loader; ours serves
        whole epochs.

    Raises:
      DataError: The data cannot be used.
    """
    builder = open_dataset(config.data)
    contenders = _stages(builder, config)
    with tempfile.TemporaryDirectory() as folder:
        if isinstance(builder, FileBuilder):
            layout = builder.layout()
            pairs = layout.pairs[:: max(len(layout.pairs) // images, 1)][:images]
            contenders[PREPARE] = partial(_prepare, layout, pairs, config.data.prepared_size)
            contenders[STORE] = partial(_store, builder, layout, pairs)
            contenders[TORCH] = _torch(_copied(layout, pairs, Path(folder)), config, workers)
        return contest(contenders, rounds)


def _stages(builder: Any, config: Config) -> dict[str, Callable[[], int]]:
    """Each serves one epoch of training batches, or as many samples one by one."""
    records, count = builder.records(), len(builder.facts.names)

    def pipeline() -> Pipeline:
        train = config.train
        made = Pipeline(builder, config.data, config.augment, train.batch_size, train.seed)
        # The start of an epoch would outweigh one of a small set.
        made.steps = max(made.steps, EPOCH // train.batch_size)
        return made

    streamed, held = pipeline(), pipeline()
    held.hold()
    epochs = iter(range(1 << 30))

    def one_by_one(read: Callable[[int], Any]) -> int:
        for index in np.random.default_rng(0).permutation(count):
            read(int(index))
        return count

    def batches(source: Pipeline, use: Callable[[Batch], Any] = lambda batch: None) -> int:
        images = 0
        for batch in source.train(next(epochs)):
            jax.block_until_ready(use(batch))
            images += len(batch.valid)
        return images

    change = partial(
        inputs_and_targets,
        mean_std=(config.data.mean, config.data.std),
        dtype="float32",
        fill=config.augment.fill(len(streamed.classes)),
        size=config.data.size,
    )
    return {
        READ: partial(one_by_one, lambda index: records.source[index]),
        DECODE: partial(one_by_one, lambda index: records[index]),
        BATCH: partial(batches, streamed),
        HOST: partial(batches, held),
        TRANSFER: partial(batches, held, jax.device_put),
        AUGMENT: partial(batches, held, jax.jit(change)),
    }


def _prepare(layout: Layout, pairs: Sequence[Pair], size: tuple[int, int]) -> int:
    """On one core."""
    with quiet():
        for pair in pairs:
            load_pair(layout, pair, size)
    return len(pairs)


def _store(builder: FileBuilder, layout: Layout, pairs: Sequence[Pair]) -> int:
    """As `open_dataset` does, from finding the files on."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        made = type(builder)(replace(builder.config, prepared_dir=Path(folder)))
        made.layout = lambda: replace(layout, pairs=pairs)
        made.prepare()
    return len(pairs)


def _copied(layout: Layout, pairs: Sequence[Pair], folder: Path) -> list[tuple[Path, Path]]:
    """Image and mask as plain files: a worker process cannot share a zip that is open here."""
    copies = []
    for n, pair in enumerate(pairs):
        image, mask = folder / f"{n}_image", folder / f"{n}_mask"
        image.write_bytes(layout.files[pair.image].read())
        mask.write_bytes(layout.files[pair.mask].read())
        copies.append((image, mask))
    return copies


def _torch(files: Sequence[tuple[Path, Path]], config: Config, workers: int) -> Callable[[], int]:
    loader = file_loader(
        files, config.data.size, batch_size=config.train.batch_size, workers=workers
    )
    return lambda: sum(len(image) for image, _ in loader)

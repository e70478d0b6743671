"""What every data set's builder shares: check and resize once, store, read at random."""

import contextlib
import hashlib
import io
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module  # type: ignore[reportAttributeAccessIssue]
from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import track

from unet_jax.config import DataConfig
from unet_jax.datasets.errors import DataError

COMPRESSION = "uncompressed"
"""Twice as fast to read as zstd's quickest level, by docs/data.md's table."""

SHARD = 32 << 20
"""Bytes of samples a file: TFDS has them all in memory until it is written, and memory that is used
again need not be cleared; with four times as many, preparing takes a tenth longer."""


class Sample(NamedTuple):
    """One image with its mask.

    Attributes:
      name: Unique in the data set.
      group: What must not be parted by a split: the car, the scene.
      split: "train", "val" or "test" where the publisher says so, else "".
      native: Height and width of the image before it was resized.
      image: uint8 [H, W, 3].
      mask: uint8 [H, W] of class ids; 255 where the pixel is ignored.
    """

    name: str
    group: str
    split: str
    native: tuple[int, int]
    image: np.ndarray
    mask: np.ndarray


@dataclass(frozen=True)
class Source:
    """What is to be stored.

    Attributes:
      classes: Name of each class id.
      palette: RGB colour of each class id.
      count: Number of samples.
      samples: The samples, resized. Raises DataError at its end, naming every unusable file.
      note: How the masks were understood, for people; "" if there is no doubt.
    """

    classes: Sequence[str]
    palette: Sequence[tuple[int, int, int]]
    count: int
    samples: Iterator[Sample]
    note: str = ""


class Facts(NamedTuple):
    """What is known of a prepared set as a whole; lists have an entry for each sample.

    Attributes:
      names, groups, splits, native: As `Sample` has them.
      classes, palette, note: As `Source` has them.
      content: A digest of all images and masks, the same wherever they were prepared from.
    """

    names: list[str]
    groups: list[str]
    splits: list[str]
    native: list[list[int]]
    classes: list[str]
    palette: list[list[int]]
    note: str
    content: str


class Records(Sequence[dict[str, np.ndarray]]):
    """The stored samples, read at random: `image` uint8 [H, W, 3] and `mask` uint8 [H, W]."""

    def __init__(self, source: Sequence[bytes], size: tuple[int, int]) -> None:
        """Args:
        source: The records as they are stored.
        size: Height and width of each sample.
        """
        self.source, self.size = source, size

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:  # type: ignore[override]
        # Parsing the record would copy it twice: the pixels are the end of it.
        pixels = np.frombuffer(self.source[index], np.uint8)[-_bytes(self.size) :]
        height, width = self.size
        image, mask = np.split(pixels, [3 * height * width])
        return {"image": image.reshape(height, width, 3), "mask": mask.reshape(height, width)}

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return (self[n] for n in range(len(self)))


class _Info(tfds.core.DatasetInfo):
    """Knows what is on this machine."""

    def initialize_from_bucket(self) -> None:
        """Would leave a folder among the temporary files, for what TFDS's server might know."""


class Writer(tfds.core.ExampleWriter):
    """Writes ArrayRecord, each record compressed by itself."""

    def __init__(self, compression: str) -> None:
        """Args:
        compression: As ArrayRecord has it: "uncompressed", "zstd:3", ….
        """
        super().__init__(file_format=tfds.core.FileFormat.ARRAY_RECORD)
        self.options = f"group_size:1,{compression}"

    def write(self, path: Any, examples: Iterable[tuple[Any, bytes]]) -> None:
        writer = array_record_module.ArrayRecordWriter(os.fspath(path), self.options)
        for _, example in examples:
            writer.write(example)
        writer.close()


class PairBuilder(tfds.core.ShardBasedBuilder, skip_registration=True):
    """Stores a data set's samples as ArrayRecord, under their size and the source's fingerprint.

    A subclass defines `VERSION`, `fingerprint` and `source`.
    """

    PART = "pairs"
    NUM_CLASSES: int | None = None  # None where only the files tell.

    def __init__(self, config: DataConfig) -> None:
        """Raises:
        DataError: The data is not where the config says.
        """
        self.config, self.size = config, config.prepared_size
        # The first line changes with what is stored beside the samples.
        content = "\n".join(["3", *self.fingerprint()]).encode("utf-8", "surrogateescape")
        digest = hashlib.sha256(content).hexdigest()[:12]
        folder = config.prepared_dir.expanduser() / f"{self.size[0]}x{self.size[1]}-{digest}"
        super().__init__(data_dir=folder, file_format="array_record")

    def fingerprint(self) -> Iterable[str]:
        """Anything that identifies the content; other content is prepared anew."""
        raise NotImplementedError

    def source(self) -> Source:
        """Finds what is to be stored.

        Raises:
          DataError: Images and masks do not match, or cannot be used.
        """
        raise NotImplementedError

    def prepare(self) -> None:
        """Builds the set unless it has been built; nothing half-written is ever read.

        Another process that prepares the same set is waited for.
        """
        if not self.data_path.exists():
            self._prepare_alone()
        if not self.info.metadata:  # Done by another process, after this builder was made.
            self.info.read_from_directory(self._data_dir)

    def _prepare_alone(self) -> None:
        folder = Path(self._data_dir_root)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"--prepared-dir: {folder} cannot be made ({error})") from None
        with _alone(folder.with_suffix(".lock"), self.config.dataset):
            if self.data_path.exists():  # Done by the one that was waited for.
                return
            for leftover in folder.glob("*/*incomplete*"):  # Of a process that was killed.
                shutil.rmtree(leftover)
            with contextlib.redirect_stdout(io.StringIO()):  # TFDS's, about a download.
                self.download_and_prepare()

    @property
    def facts(self) -> Facts:
        """What `metadata` of the prepared set says."""
        metadata = self.info.metadata
        assert metadata is not None
        return Facts(**{name: metadata[name] for name in Facts._fields})

    def records(self) -> Records:
        """The stored samples."""
        return Records(self.as_data_source(self.PART).data_source, self.size)  # type: ignore[union-attr]

    def _info(self) -> tfds.core.DatasetInfo:
        # Bytes as they are: the fastest to read, by docs/data.md's table. One array of them, the
        # image's and then the mask's, so that a record ends in it.
        pixels = tfds.features.Tensor(shape=(_bytes(self.size),), dtype=np.uint8, encoding="bytes")
        return _Info(
            builder=self,
            features=tfds.features.FeaturesDict({"pixels": pixels}),
            metadata=tfds.core.MetadataDict(),
        )

    def _make_download_manager(self, *args: Any, **options: Any) -> Any:
        """Would look through everything that TFDS can download; nothing is."""
        return SimpleNamespace(downloaded_size=0)

    def _example_writer(self) -> Writer:
        return Writer(COMPRESSION)

    def _shard_iterators_per_split(
        self, dl_manager: Any
    ) -> dict[str, list[Callable[[], Iterator]]]:
        source = self.source()
        examples, each = self._examples(source), max(SHARD // _bytes(self.size), 1)
        shards = [partial(islice, examples, each) for _ in range(math.ceil(source.count / each))]
        # The last one goes on to the end of `_examples`.
        return {self.PART: [*shards[:-1], lambda: examples]}

    def _examples(self, source: Source) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        facts = Facts([], [], [], [], list(source.classes), _lists(source.palette), source.note, "")
        content = hashlib.sha256()  # The fastest: processors have instructions for it.
        title = f"Preparing {self.config.dataset} at {self.size[0]}×{self.size[1]}"
        console = Console(stderr=True)
        if source.note:
            console.print(source.note, markup=False, highlight=False, soft_wrap=True)
        progress = track(source.samples, title, total=source.count, console=console)
        for n, sample in enumerate(progress):
            facts.names.append(sample.name)
            facts.groups.append(sample.group)
            facts.splits.append(sample.split)
            facts.native.append(list(sample.native))
            pixels = np.concatenate([sample.image.ravel(), sample.mask.ravel()])
            content.update(pixels.data)
            yield n, {"pixels": pixels}
        assert self.info.metadata is not None
        self.info.metadata.update(facts._replace(content=content.hexdigest()[:16])._asdict())


def _bytes(size: tuple[int, int]) -> int:
    """Of a sample."""
    return 4 * math.prod(size)


def _lists(palette: Sequence[tuple[int, int, int]]) -> list[list[int]]:
    return [list(colour) for colour in palette]


@contextlib.contextmanager
def _alone(path: Path, name: str) -> Iterator[None]:
    """Lets one process in at a time; a process that dies lets the next one in."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        Console(stderr=True).print(f"Another process is preparing {name}; waiting for it.")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()

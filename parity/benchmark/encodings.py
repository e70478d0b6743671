"""Which encoding to store prepared samples in: bytes on disk against samples read a second."""

import contextlib
import io
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from parity.benchmark.contest import Rate, contest
from unet_jax.config import Config
from unet_jax.datasets import open_dataset
from unet_jax.datasets.builder import Writer

Record = Mapping[str, np.ndarray]


class Encoding(NamedTuple):
    """How samples are stored.

    Attributes:
      feature: The TFDS feature of an array's shape.
      encode: Makes of an array what that feature takes.
    """

    feature: Callable[[tuple[int, ...]], Any]
    encode: Callable[[np.ndarray], Any]


class Way(NamedTuple):
    """How a set is stored: either array's encoding, and what ArrayRecord makes of a record."""

    image: Encoding
    mask: Encoding
    compression: str = "zstd:3"  # ArrayRecord's own choice.


class Result(NamedTuple):
    kilobytes: float
    rate: Rate


class _Encoded(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """The samples of another set, stored otherwise."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, folder: Path, records: Sequence[Record], way: Way):
        self.records, self.ways = records, {"image": way.image, "mask": way.mask}
        self.compression = way.compression
        super().__init__(data_dir=folder, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        first = self.records[0]
        features = {name: way.feature(_shape(first[name])) for name, way in self.ways.items()}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _example_writer(self) -> Writer:
        return Writer(self.compression)

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
        return {"pairs": self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for n in range(len(self.records)):
            record = self.records[n]
            yield n, {name: way.encode(record[name]) for name, way in self.ways.items()}


def _shape(array: np.ndarray) -> tuple[int, ...]:
    return array.shape if array.ndim == 3 else (*array.shape, 1)


def _tensor(encoding: str) -> Encoding:
    return Encoding(
        lambda shape: tfds.features.Tensor(shape=shape, dtype=np.uint8, encoding=encoding),
        lambda array: array.reshape(_shape(array)),
    )


def _image(encoding: str, **options: Any) -> Encoding:
    def encode(array: np.ndarray) -> io.BytesIO:
        buffer = io.BytesIO()
        Image.fromarray(array).save(buffer, encoding, **options)
        buffer.seek(0)
        return buffer

    feature = partial(tfds.features.Image, encoding_format=encoding)
    return Encoding(lambda shape: feature(shape=shape), encode)


RAW, PNG = _tensor("bytes"), _image("png")
WAYS = {
    "raw bytes": Way(RAW, RAW, "uncompressed"),
    "raw bytes, zstd 3": Way(RAW, RAW),
    "raw bytes, zstd -1": Way(RAW, RAW, "zstd:-1"),
    "zlib": Way(_tensor("zlib"), _tensor("zlib")),
    "PNG": Way(PNG, PNG),
    "JPEG 95, masks PNG": Way(_image("jpeg", quality=95), PNG),
    "JPEG 95, masks raw": Way(_image("jpeg", quality=95), RAW),
}


def race(config: Config, *, rounds: int, images: int) -> dict[str, Result]:
    """Stores some samples of a prepared set in each way, and reads them back in random order.

    Args:
      config: The data set and its size.
      rounds: How often each is timed.
      images: How many samples.

    Returns:
      For each way: kB of a sample on disk, and samples read and decoded a second by one thread.
    """
    prepared = open_dataset(config.data).records()
    records = [prepared[n] for n in range(min(images, len(prepared)))]
    tfds.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        sizes, contenders = {}, {}
        for name, way in WAYS.items():
            place = Path(folder, str(len(sizes)))
            builder = _Encoded(place, records, way)
            builder.download_and_prepare()
            stored = (path for path in place.rglob("*array_record*") if path.is_file())
            sizes[name] = sum(path.stat().st_size for path in stored) / len(records) / 1000
            stored_as = builder.as_data_source("pairs")  # type: ignore[reportCallIssue]
            contenders[name] = partial(_read, stored_as)
        rates = contest(contenders, rounds)
    return {name: Result(sizes[name], rate) for name, rate in rates.items()}


def _read(source: Sequence[Record]) -> int:
    for index in np.random.default_rng(0).permutation(len(source)):
        source[int(index)]
    return len(source)

"""What every data set's builder shares: check and resize once, store, read at random."""

import contextlib
import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from rich.console import Console
from rich.progress import track

from unet_jax.config import DataConfig

LISTED = 20


class DataError(ValueError):
    """The data cannot be used; the message says which files, and why."""

    @classmethod
    def listing(cls, title: str, problems: Sequence[str]) -> "DataError":
        """Names the first problems, and counts the rest."""
        lines = [title, *(f"  {problem}" for problem in problems[:LISTED])]
        if len(problems) > LISTED:
            lines.append(f"  … and {len(problems) - LISTED} more")
        return cls("\n".join(lines))


class Sample(NamedTuple):
    """One image with its mask.

    Attributes:
      name: Unique in the data set.
      group: What must not be parted by a split: the car, the scene.
      image: uint8 [H, W, 3].
      mask: uint8 [H, W] of class ids.
    """

    name: str
    group: str
    image: np.ndarray
    mask: np.ndarray


class PairBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Stores a data set's samples as ArrayRecord, under its size and its source's fingerprint.

    A subclass defines `VERSION`, `CLASSES`, `PALETTE`, `from_config` and `samples`.
    """

    SPLIT = "pairs"
    CLASSES: tuple[str, ...]
    PALETTE: tuple[tuple[int, int, int], ...]

    def __init__(
        self, *, prepared_dir: Path, size: tuple[int, int], count: int, source: Iterable[str]
    ) -> None:
        """Args:
        prepared_dir: Folder of all prepared sets.
        size: Height and width in pixels.
        count: How many samples there will be.
        source: Anything that identifies the content; other content is prepared anew.
        """
        self.size = size
        self.count = count
        fingerprint = hashlib.sha256("\n".join(source).encode()).hexdigest()[:12]
        folder = prepared_dir.expanduser() / f"{size[0]}x{size[1]}-{fingerprint}"
        super().__init__(data_dir=folder, file_format="array_record")

    @classmethod
    def from_config(cls, config: DataConfig) -> "PairBuilder":
        """Takes from the config what this data set needs.

        Raises:
          DataError: Its files are not where the config says.
        """
        raise NotImplementedError

    def samples(self) -> Iterator[Sample]:
        """Yields every sample, resized.

        Raises:
          DataError: Names every file that cannot be used.
        """
        raise NotImplementedError

    def prepare(self) -> None:
        """Builds the set unless it has been built; nothing half-written stays."""
        if not self.data_path.exists():
            tfds.disable_progress_bar()  # `_generate_examples` draws its own.
            with contextlib.redirect_stdout(io.StringIO()):  # TFDS's, about a download.
                self.download_and_prepare()

    def names(self) -> list[str]:
        return list(self._metadata("names"))

    def groups(self) -> list[str]:
        return list(self._metadata("groups"))

    def records(self) -> Sequence[dict[str, np.ndarray]]:
        """The stored samples: `image` uint8 [H, W, 3] and `mask` uint8 [H, W]."""
        return self.as_data_source(self.SPLIT)  # type: ignore[return-value]

    def _metadata(self, key: str) -> list[str]:
        metadata = self.info.metadata
        assert metadata is not None
        return metadata[key]

    def _info(self) -> tfds.core.DatasetInfo:
        height, width = self.size

        # Bytes as they are: measured four times faster to read than PNG.
        def raw(*shape: int) -> tfds.features.Tensor:
            return tfds.features.Tensor(shape=shape, dtype=np.uint8, encoding="bytes")

        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {"image": raw(height, width, 3), "mask": raw(height, width)}
            ),
            metadata=tfds.core.MetadataDict(),
            disable_shuffling=True,  # The order of `names`.
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
        return {self.SPLIT: self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        names, groups = [], []
        title = f"Preparing {self.name} at {self.size[0]}×{self.size[1]}"
        console = Console(stderr=True)
        progress = track(self.samples(), title, total=self.count, console=console)
        for n, sample in enumerate(progress):
            names.append(sample.name)
            groups.append(sample.group)
            yield n, {"image": sample.image, "mask": sample.mask}
        assert self.info.metadata is not None
        self.info.metadata.update(names=names, groups=groups)

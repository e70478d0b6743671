"""The samples that a network is evaluated on, at the size of its training and at their own."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from unet_jax.augment import warp, warp_mask
from unet_jax.config import DataConfig
from unet_jax.datasets import IGNORED, DataError, PairBuilder, merged, open_dataset
from unet_jax.datasets.builder import Records
from unet_jax.datasets.encoding import MaskError, first_that_fits
from unet_jax.datasets.files import FileBuilder, opened, read_image
from unet_jax.datasets.layout import Layout, Pair
from unet_jax.draws import affine
from unet_jax.prediction.picture import Picture, Size
from unet_jax.split import split_samples

LISTED = {"train": "train", "val": "validation", "test": "test"}
"""What `split.json` calls each part."""


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Some samples of a prepared set.

    Attributes:
      config: The set, and how it is prepared.
      part: Which part of the set they are: "train", "val" or "test".
      names, groups, native: Of each sample: its name; what must not be parted; the height and width
        of its file.
      classes, palette: Name and RGB colour of each class id.
      places: Of each sample, its place among `records`.
      records: The prepared samples.
      layout, pairs: The files, and each sample's, by its name; None and empty if there are none.
      changed: Whether the set is another than the one trained on, though it has these names.
    """

    config: DataConfig
    part: str
    names: Sequence[str]
    groups: Sequence[str]
    native: Sequence[Size]
    classes: Sequence[str]
    palette: Sequence[Sequence[int]]
    places: Sequence[int]
    records: Records
    layout: Layout | None
    pairs: dict[str, Pair]
    changed: bool = False

    @property
    def scaled(self) -> bool:
        """Whether samples are prepared at another size than the network's."""
        return self.config.prepared_size != self.config.size

    @property
    def has_native(self) -> bool:
        """Whether there are files, of another size than the training's."""
        return self.layout is not None and any(size != self.config.size for size in self.native)

    def trained(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Image [H, W, 3] with values from 0 to 255, and class ids uint8 [H, W], as validation in
        training sees them."""
        record = self.records[self.places[n]]
        image, mask = record["image"], self._merged(record["mask"])
        if not self.scaled:
            return image, mask
        way = affine(self.config.size, self.config.size, stored=self.config.prepared_size)
        seen = _resample(image[None], mask[None], way[None], size=self.config.size)
        return np.asarray(seen[0][0]), np.asarray(seen[1][0])

    def picture(self, n: int) -> Picture:
        """The image's file, opened.

        Raises:
          DataError: It cannot be read.
        """
        layout, path = self._layout, self.pairs[self.names[n]].image
        try:
            content = layout.files[path].read()
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error})") from None

        def read(size: Size | None) -> np.ndarray:
            try:
                return read_image(content, size, layout.white)[0]
            except OSError as error:
                raise DataError(f"{path}: cannot be decoded ({error})") from None

        return Picture(path, self.native[n], read)

    def native_mask(self, n: int) -> np.ndarray:
        """Class ids of the mask's file, uint8 [H, W].

        Raises:
          DataError: It cannot be read, or has changed.
        """
        layout, path, size = self._layout, self.pairs[self.names[n]].mask, self.native[n]
        try:
            mask = opened(layout.files[path].read())
            if mask.size[::-1] != size:
                raise DataError(
                    f"{path}: {mask.height}×{mask.width} (H×W), but its image is "
                    f"{size[0]}×{size[1]}"
                )
            return self._merged(first_that_fits(layout.encodings, mask, size))
        except MaskError as error:
            raise DataError(f"{path}: {error}") from None
        except OSError as error:
            raise DataError(f"{path}: cannot be decoded ({error})") from None

    @property
    def _layout(self) -> Layout:
        assert self.layout is not None
        return self.layout

    def _merged(self, mask: np.ndarray) -> np.ndarray:
        if not self.config.binary:
            return mask
        return np.where((mask > 0) & (mask != IGNORED), 1, mask).astype(np.uint8)


@partial(jax.jit, static_argnames="size")
def _resample(image: Any, mask: Any, way: Any, *, size: Size) -> tuple[jax.Array, jax.Array]:
    """As in training, which leaves the antialiasing to the preparation."""
    return warp(jnp.asarray(image, jnp.float32), way, size), warp_mask(mask, way, 0, size)


def samples_of_run(folder: Path, part: str, config: DataConfig) -> Samples:
    """The samples that a run has listed for this part.

    Args:
      folder: The run's.
      part: "train", "val" or "test".
      config: The run's data settings; where the data lies may be another place.

    Raises:
      ValueError: `split.json` cannot be read, or lists no such samples.
      DataError: The data is not there, or has no such samples any more.
    """
    path = folder / "split.json"
    try:
        listed = json.loads(path.read_text("utf-8"))
        names = [str(name) for name in listed.get(LISTED[part], [])]
        content = str(listed["content"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{path}: missing or damaged; it lists a run's samples") from None
    if not names:
        others = [name for name, key in LISTED.items() if listed.get(key)]
        raise ValueError(f"--split {part}: {path} lists no such samples; it has {_and(others)}")
    builder = open_dataset(config)
    place = {name: n for n, name in enumerate(builder.facts.names)}
    missing = [name for name in names if name not in place]
    if missing:
        title = (
            f"{config.data_dir or config.dataset}: {len(missing):,} of the {len(names):,} samples "
            f"that {path} lists are not there:"
        )
        raise DataError.listing(title, missing)
    changed = builder.facts.content != content
    return _samples(builder, config, part, [place[name] for name in names], changed)


def samples_of_set(part: str, config: DataConfig) -> Samples:
    """The samples of this part, as a training with these settings would divide the set.

    Args:
      part: "train", "val" or "test".
      config: The data's settings.

    Raises:
      ValueError: There are no such samples.
      DataError: The data is not there, or cannot be used.
    """
    builder = open_dataset(config)
    facts = builder.facts
    split = split_samples(facts.names, facts.groups, facts.splits, config)
    places = getattr(split, LISTED[part])
    if not places:
        others = [name for name, key in LISTED.items() if getattr(split, key)]
        raise ValueError(
            f"--split {part}: {config.dataset} has no such samples; it has {_and(others)}"
        )
    return _samples(builder, config, part, places, changed=False)


def _samples(
    builder: PairBuilder, config: DataConfig, part: str, places: Sequence[int], changed: bool
) -> Samples:
    facts = builder.facts
    layout = builder.layout() if isinstance(builder, FileBuilder) else None
    classes = merged(facts.classes, config.binary)
    return Samples(
        config=config,
        part=part,
        names=[facts.names[n] for n in places],
        groups=[facts.groups[n] for n in places],
        native=[(facts.native[n][0], facts.native[n][1]) for n in places],
        classes=classes,
        palette=facts.palette[: len(classes)],
        places=places,
        records=builder.records(),
        layout=layout,
        pairs={} if layout is None else {pair.name: pair for pair in layout.pairs},
        changed=changed,
    )


def with_places(
    config: DataConfig, data_dir: Path | None, prepared_dir: Path | None, size: Size
) -> DataConfig:
    """The settings, for data that lies elsewhere, and a network that was trained at `size`."""
    places = {"data_dir": data_dir, "prepared_dir": prepared_dir}
    given = {name: place for name, place in places.items() if place is not None}
    if size != config.size:  # What is stored may be smaller than that.
        given |= {"size": size, "stored_size": None}
    return dataclasses.replace(config, **given)


def _and(parts: Sequence[str]) -> str:
    return " and ".join(parts) or "none"

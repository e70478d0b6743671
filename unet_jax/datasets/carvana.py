"""Kaggle's Carvana Image Masking Challenge: 318 cars, 16 views each, car against background."""

import io
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePath
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from unet_jax.config import DataConfig
from unet_jax.datasets.archive import Files, find
from unet_jax.datasets.builder import DataError, PairBuilder, Sample

COMPETITION = "carvana-image-masking-challenge"
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
MASK_SUFFIXES = (".gif", ".png")
AHEAD = 64  # Samples in memory at once.


class Pair(NamedTuple):
    name: str
    image: str
    mask: str


class Carvana(PairBuilder):
    """`train/CAR_VIEW.jpg` with `train_masks/CAR_VIEW_mask.gif`, as folders or as zips."""

    VERSION = tfds.core.Version("1.0.0")
    CLASSES = ("background", "car")
    PALETTE = ((24, 28, 36), (255, 176, 32))

    def __init__(self, data_dir: Path | None, prepared_dir: Path, size: tuple[int, int]) -> None:
        self.images, self.masks = _locate(data_dir)
        self.pairs = _match(self.images, self.masks)
        super().__init__(
            prepared_dir=prepared_dir,
            size=size,
            count=len(self.pairs),
            source=[
                f"{name} {stamp}"
                for files in (self.images, self.masks)
                for name, stamp in sorted(files.stamps.items())
            ],
        )

    @classmethod
    def from_config(cls, config: DataConfig) -> "Carvana":
        return cls(config.data_dir, config.prepared_dir, config.size)

    def samples(self) -> Iterator[Sample]:
        problems = []
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for start in range(0, len(self.pairs), AHEAD):
                for result in pool.map(self._load, self.pairs[start : start + AHEAD]):
                    if isinstance(result, Sample):
                        yield result
                    else:
                        problems.append(result)
        if problems:
            raise DataError.listing(f"{len(problems)} Carvana files cannot be used:", problems)

    def _load(self, pair: Pair) -> Sample | str:
        """The resized sample, or what is wrong with it."""
        path = pair.image
        try:
            image = Image.open(io.BytesIO(self.images.read(path))).convert("RGB")
            path = pair.mask
            # Palette images keep their indices: 0 background, 1 car.
            mask = np.asarray(Image.open(io.BytesIO(self.masks.read(path))))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            return f"{path}: cannot be decoded ({error})"
        if mask.shape != (image.height, image.width):
            shape = "×".join(str(n) for n in mask.shape)
            return f"{pair.mask}: {shape} (H×W), but its image is {image.height}×{image.width}"
        values = np.unique(mask)
        if set(values.tolist()) not in ({0}, {1}, {0, 1}, {255}, {0, 255}):
            found = ", ".join(str(v) for v in values[:8]) + (", …" if len(values) > 8 else "")
            return f"{pair.mask}: holds the values {found}; allowed: 0 and 1, or 0 and 255"
        height, width = self.size
        small = image.resize((width, height), Image.Resampling.BILINEAR)
        car = Image.fromarray((mask > 0).astype(np.uint8))
        return Sample(
            name=pair.name,
            group=pair.name.rsplit("_", 1)[0],
            image=np.asarray(small),
            mask=np.asarray(car.resize((width, height), Image.Resampling.NEAREST)),
        )


def _locate(data_dir: Path | None) -> tuple[Files, Files]:
    if data_dir is None:
        raise DataError("--dataset carvana needs --data-dir" + _advice())
    names = ("train", "train_masks")
    found = [find(data_dir.expanduser(), name, COMPETITION) for name in names]
    if found[0] is None or found[1] is None:
        missing = [name for name, files in zip(names, found, strict=True) if files is None]
        wanted = " and ".join(f"{name}/ or {name}.zip" for name in missing)
        state = "" if data_dir.expanduser().is_dir() else ", which is not a folder"
        raise DataError(
            f"no Carvana data: looked for {wanted} (or {COMPETITION}.zip) "
            f"in {data_dir}{state}" + _advice()
        )
    return found[0], found[1]


def _advice() -> str:
    return (
        f"\n  get it: accept the rules at https://www.kaggle.com/c/{COMPETITION}, then"
        f"\n          kaggle competitions download -c {COMPETITION} -p DIR"
        "\n  or use --dataset shapes, which needs no data"
    )


def _match(images: Files, masks: Files) -> list[Pair]:
    """Pairs images with masks by name, in order of name."""
    image_of = {
        PurePath(name).stem: name
        for name in images.stamps
        if PurePath(name).suffix.lower() in IMAGE_SUFFIXES
    }
    mask_of = {
        PurePath(name).stem.removesuffix("_mask"): name
        for name in masks.stamps
        if PurePath(name).suffix.lower() in MASK_SUFFIXES
    }
    problems = [f"{image_of[n]}: has no mask" for n in sorted(image_of.keys() - mask_of.keys())]
    problems += [f"{mask_of[n]}: has no image" for n in sorted(mask_of.keys() - image_of.keys())]
    if problems:
        raise DataError.listing(
            f"{images.place} and {masks.place} do not match, {len(problems)} files:", problems
        )
    if not image_of:
        raise DataError(f"no Carvana data: {images.place} holds no .jpg file" + _advice())
    return [Pair(name, image_of[name], mask_of[name]) for name in sorted(image_of)]

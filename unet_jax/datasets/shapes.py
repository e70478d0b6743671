"""The embedded data set: scenes of textured, lit, overlapping shapes, rendered when first used."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import tensorflow_datasets as tfds

from unet_jax.config import DataConfig
from unet_jax.datasets import scene
from unet_jax.datasets.builder import PairBuilder, Sample


class Shapes(PairBuilder):
    """Scenes 0, 1, 2, … of one seed; each scene is a group of its own."""

    VERSION = tfds.core.Version("1.0.0")
    CLASSES = scene.CLASSES
    PALETTE = scene.PALETTE
    SEED = 0

    def __init__(self, scenes: int, prepared_dir: Path, size: tuple[int, int]) -> None:
        # Another renderer, or another machine's rounding, shows in the first scene.
        probe = hashlib.sha256(scene.render(self.SEED, 0, *size)[0].tobytes()).hexdigest()
        source = [f"scenes {scenes}", f"seed {self.SEED}", probe]
        super().__init__(prepared_dir=prepared_dir, size=size, count=scenes, source=source)

    @classmethod
    def from_config(cls, config: DataConfig) -> "Shapes":
        return cls(config.scenes, config.prepared_dir, config.size)

    def samples(self) -> Iterator[Sample]:
        for index in range(self.count):
            image, mask = scene.render(self.SEED, index, *self.size)
            name = f"scene_{index:05d}"
            yield Sample(name, name, image, mask)

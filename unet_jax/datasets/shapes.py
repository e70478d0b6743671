"""The embedded data set: scenes of textured, lit, overlapping shapes, rendered when first used."""

import hashlib
from collections.abc import Iterable, Iterator

import tensorflow_datasets as tfds

from unet_jax.datasets import scene
from unet_jax.datasets.builder import PairBuilder, Sample, Source
from unet_jax.datasets.renderer import rendered


class Shapes(PairBuilder):
    """Scenes 0, 1, 2, … of one seed; each scene is a group of its own."""

    VERSION = tfds.core.Version("2.0.0")
    NUM_CLASSES = len(scene.CLASSES)
    SEED = 0

    def fingerprint(self) -> Iterable[str]:
        # Another renderer, or another machine's rounding, shows in the first scene.
        probe = scene.render(self.SEED, 0, *self.size)[0].tobytes()
        digest = hashlib.sha256(probe).hexdigest()
        return [f"scenes {self.config.scenes}", f"seed {self.SEED}", digest]

    def source(self) -> Source:
        return Source(scene.CLASSES, scene.PALETTE, self.config.scenes, self._samples())

    def _samples(self) -> Iterator[Sample]:
        scenes = rendered(self.SEED, self.config.scenes, self.size)
        for index, (image, mask) in enumerate(scenes):
            name = f"scene_{index:05d}"
            yield Sample(name, name, "", self.size, image, mask)

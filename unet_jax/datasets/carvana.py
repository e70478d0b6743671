"""Kaggle's Carvana Image Masking Challenge: 318 cars, 16 views each, car against background."""

import tensorflow_datasets as tfds

from unet_jax.datasets.archive import unpack
from unet_jax.datasets.encoding import Encoding
from unet_jax.datasets.errors import DataError
from unet_jax.datasets.layout import Layout, match
from unet_jax.datasets.published import Names, PublishedBuilder

COMPETITION = "carvana-image-masking-challenge"


class Carvana(PublishedBuilder):
    """`train/CAR_VIEW.jpg` with `train_masks/CAR_VIEW_mask.gif`; or `train_images`, `val_images`,
    … with their masks, split as they lie. As folders, as zips, or as the competition's one zip."""

    VERSION = tfds.core.Version("2.0.0")
    TITLE = "Carvana"
    LAYOUTS = (
        Names(("train", "train_masks")),
        Names(
            ("train_images", "train_masks", "val_images", "val_masks"),
            ("test_images", "test_masks"),
        ),
    )
    SOURCE = (
        f"accept the rules at https://www.kaggle.com/c/{COMPETITION}, then"
        "\n          python scripts/prepare_data.py --dataset carvana --download"
    )
    CLASSES = ("background", "car")
    NUM_CLASSES = len(CLASSES)
    PALETTE = ((24, 28, 36), (255, 176, 32))
    # A palette GIF's indices, or black and white; never both in one file.
    ENCODINGS = (Encoding({0: 0, 1: 1}), Encoding({0: 0, 255: 1}))

    def layout(self) -> Layout:
        files = self.files
        for name in [name for name in files if name.endswith(".zip") and "/" not in name]:
            files = unpack(files, name, str(self.config.data_dir))
        if any(path.startswith("train_images/") for path in files):
            pairs = []
            for split in ("train", "val", "test"):
                folders = f"{split}_images", f"{split}_masks"
                pairs += match(files, *folders, split=split, suffix="_mask", groups="_")
        else:
            pairs = match(files, "train", "train_masks", suffix="_mask", groups="_")
        if not pairs:
            place = f"train in {self.config.data_dir}"
            raise DataError(f"no Carvana data: {place} holds no images" + self.advice())
        return Layout(files, pairs, self.ENCODINGS, self.CLASSES, self.PALETTE)

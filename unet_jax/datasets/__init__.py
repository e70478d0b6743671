"""Data sets: pairs of images and masks, checked and resized once, then read at random."""

from collections.abc import Sequence

from unet_jax.batch import IGNORED
from unet_jax.config import DataConfig
from unet_jax.datasets.ade20k import Ade20k
from unet_jax.datasets.builder import PairBuilder
from unet_jax.datasets.camvid import CamVid
from unet_jax.datasets.carvana import Carvana
from unet_jax.datasets.errors import DataError
from unet_jax.datasets.folder import Folder
from unet_jax.datasets.shapes import Shapes
from unet_jax.heap import keep_freed_memory

__all__ = ["IGNORED", "DataError", "PairBuilder", "class_ids", "merged", "open_dataset"]

BUILDERS: dict[str, type[PairBuilder]] = {
    "shapes": Shapes,
    "carvana": Carvana,
    "camvid": CamVid,
    "ade20k": Ade20k,
    "folder": Folder,
}


def class_ids(config: DataConfig) -> range:
    """Every class id; the set is prepared if only its files tell how many there are.

    Raises:
      DataError: They are missing or cannot be used.
    """
    if config.binary:
        return range(2)
    known = BUILDERS[config.dataset].NUM_CLASSES
    try:
        return range(known or len(open_dataset(config).facts.classes))
    except DataError as error:
        reason = f"how many classes {config.dataset} has, only its files tell: {error}"
        raise DataError(reason) from None


def merged(classes: Sequence[str], binary: bool) -> list[str]:
    """The classes that are left when, for `binary`, all but the first become one."""
    return [classes[0], "foreground"] if binary and len(classes) > 2 else list(classes)


def open_dataset(config: DataConfig) -> PairBuilder:
    """Finds the data set's files, and prepares them unless that has been done.

    Raises:
      DataError: Files are missing or cannot be used; the message names each.
    """
    keep_freed_memory()
    builder = BUILDERS[config.dataset](config)
    builder.prepare()
    return builder

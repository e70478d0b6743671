"""Data sets: pairs of images and masks, checked and resized once, then read at random."""

from unet_jax.config import DataConfig
from unet_jax.datasets.builder import DataError, PairBuilder
from unet_jax.datasets.carvana import Carvana
from unet_jax.datasets.shapes import Shapes

__all__ = ["DataError", "PairBuilder", "class_names", "open_dataset"]

BUILDERS: dict[str, type[PairBuilder]] = {"carvana": Carvana, "shapes": Shapes}


def class_names(config: DataConfig) -> tuple[str, ...]:
    """The class of each mask value."""
    names = BUILDERS[config.dataset].CLASSES
    return (names[0], "foreground") if config.binary and len(names) > 2 else names


def open_dataset(config: DataConfig) -> PairBuilder:
    """Finds the data set's files, and prepares them unless that has been done.

    Raises:
      DataError: Files are missing or cannot be used; the message names each.
    """
    builder = BUILDERS[config.dataset].from_config(config)
    builder.prepare()
    return builder

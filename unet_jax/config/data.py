"""Which pictures are trained on."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from unet_jax.config.settings import Channel, Count, settings

PLACES = ("data_dir", "description", "prepared_dir", "cache")
"""Settings that say where the data lies, and change nothing that is learnt."""


@settings
class PrepareConfig:
    """Which pictures, at which size, and how they are split."""

    dataset: Literal["shapes", "carvana", "camvid", "ade20k", "folder"] = "shapes"
    """shapes is rendered here and needs no download; the others are read from --data-dir, folder
    being anyone's images and masks."""

    data_dir: Path | None = None
    """Folder that holds the publisher's files: folders, or the zips as downloaded."""

    mask_suffix: str = ""
    """What ends the name of a mask and not that of its image, as in _mask (folder only)."""

    description: Path | None = None
    """YAML file that says what mask values mean; without one they are looked at (folder only)."""

    prepared_dir: Path = Path("~/.cache/unet-jax")
    """Where the checked, resized copy is stored, once for all runs."""

    size: tuple[Count, Count] = (96, 128)
    """Height and width, in pixels, of what the network is given."""

    stored_size: tuple[Count, Count] | None = None
    """Height and width of the prepared copy, up to twice --size on each side: crops and zooms are
    cut from it, and sharper. None: those of --size."""

    scenes: Count = 500
    """How many scenes of shapes there are, training and validation together."""

    val_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of the groups (cars, scenes) held out for validation, unless the set has its own."""

    test_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of them that training never sees, in validation neither; likewise. 0: none."""

    split_by: Literal["group", "sample"] = "group"
    """Whether whole groups are held out, so that a car or scene is on one side alone, or single
    samples, as some publications do: their scores are those of cars seen before."""

    split_seed: Annotated[int, Field(ge=0)] = 0
    """Draws the groups that are held out."""

    @model_validator(mode="after")
    def _check_prepared(self) -> "PrepareConfig":
        sides = zip(self.prepared_size, self.size, strict=True)
        if not all(side <= stored <= 2 * side for stored, side in sides):
            most = (2 * self.size[0], 2 * self.size[1])
            raise ValueError(
                f"stored_size: {self.stored_size} must be between size {self.size} and twice "
                f"that, {most}, on each side, or None for size itself"
            )
        for name in ("mask_suffix", "description"):
            if getattr(self, name) and self.dataset != "folder":
                raise ValueError(f"{name}: {getattr(self, name)} needs dataset folder")
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError(
                f"val_fraction, test_fraction: {self.val_fraction} and {self.test_fraction} leave "
                "nothing to train on"
            )
        return self

    @property
    def prepared_size(self) -> tuple[int, int]:
        """Height and width of the prepared copy."""
        return self.stored_size or self.size


@settings
class DataConfig(PrepareConfig):
    """Which pictures, at which size, how they are split, and what of them is trained on."""

    cache: Literal["auto", "device", "host", "none"] = "auto"
    """Where the prepared set lies in training: whole on the device, in host memory, or on disk;
    auto: the first of these with room."""

    binary: bool = False
    """Whether all object classes become one: foreground against background."""

    overfit: Annotated[int, Field(ge=0)] = 0
    """Train and validate on this many images alone, over and over; epochs stay as long. 0: off."""

    mean: tuple[Channel, Channel, Channel] = (0.485, 0.456, 0.406)
    """Subtracted from each channel of an image in 0..1."""

    std: tuple[Channel, Channel, Channel] = (0.229, 0.224, 0.225)
    """Divides each channel after that."""

    @model_validator(mode="after")
    def _check(self) -> "DataConfig":
        if min(self.std) <= 0:
            raise ValueError(f"std: {self.std} must be positive")
        return self

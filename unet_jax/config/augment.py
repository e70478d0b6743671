"""How training samples are varied."""

import dataclasses
from typing import Annotated, Literal

from pydantic import Field, model_validator

from unet_jax.batch import IGNORED
from unet_jax.config.settings import Fraction, Positive, Share, settings


@settings
class AugmentConfig:
    """How training samples are varied; each has draws of its own in each epoch."""

    horizontal_flip: Fraction = 0.5
    """Probability that a sample is mirrored, left for right."""

    vertical_flip: Fraction = 0.0
    """Probability that a sample is mirrored, top for bottom."""

    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Largest angle in degrees, either way, as seen at the picture's native proportions."""

    scale: tuple[Positive, Positive] = (1.0, 1.0)
    """Smallest and largest zoom; 2 shows things twice as large."""

    translation: Fraction = 0.0
    """Largest shift, either way, as a share of each side."""

    crop: Fraction = 0.0
    """Probability that a sample is a square cut out of the picture, not the whole of it."""

    crop_ratio: tuple[Share, Share] = (0.5, 1.0)
    """Smallest and largest side of that square, as a share of the picture's native short side."""

    brightness: Fraction = 0.0
    """Largest relative change: the factor is between 1 - this and 1 + this."""

    contrast: Fraction = 0.0
    """Largest relative change of the distance from the mean luminance."""

    saturation: Fraction = 0.0
    """Largest relative change of the distance from grey."""

    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Largest turn of the colour circle, either way, as a share of it."""

    gamma: Annotated[float, Field(ge=0, le=2)] = 0.0
    """Largest logarithm, either way, of the exponent that values in 0..1 are raised to."""

    outside: Literal["auto", "ignore", "background"] = "auto"
    """What the mask says where a sample shows what lies outside of the picture: nothing that
    counts, or class 0. auto: background if there are two classes, else ignore."""

    @model_validator(mode="after")
    def _check(self) -> "AugmentConfig":
        for name in ("scale", "crop_ratio"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name}: {(low, high)} must have the smaller one first")
        usual = next(field for field in dataclasses.fields(self) if field.name == "crop_ratio")
        if self.crop_ratio != usual.default and not self.crop:
            raise ValueError(f"crop_ratio: {self.crop_ratio} needs a crop above 0")
        return self

    def fill(self, classes: int) -> int:
        """What masks of `classes` classes hold outside of the picture: 255 (ignored) or 0."""
        background = self.outside == "background" or (self.outside == "auto" and classes == 2)
        return 0 if background else IGNORED

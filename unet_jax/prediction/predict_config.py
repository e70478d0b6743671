"""How a trained network predicts: checked here, once, for the command line and for Python."""

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator
from tyro.constructors import PrimitiveConstructorSpec

from unet_jax.config.settings import Count, settings

Pixels = tuple[int, int]


def _pair(value: Any) -> Any:
    """Height and width of a text such as 320x480; anything else as it is."""
    if isinstance(value, str) and value != "native":
        sides = re.fullmatch(r"(\d+)[x×](\d+)", value.strip())
        if sides is None:
            raise ValueError(f"{value!r} is not a height and a width in pixels, as in 320x480")
        return int(sides[1]), int(sides[2])
    return value


def _flag(metavar: str) -> PrimitiveConstructorSpec[Any]:
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=lambda args: _pair(args[0]),
        is_instance=lambda value: value is None or isinstance(value, str | tuple),
        str_from_instance=lambda value: ["x".join(map(str, value))] if value else ["none"],
    )


@settings
class PredictConfig:
    """How an image meets the network, and what is made of the probabilities."""

    size: Annotated[
        tuple[Count, Count] | Literal["native"] | None, BeforeValidator(_pair), _flag("HxW|native")
    ] = None
    """Height and width that an image is resized to for the network; native: it keeps its own.
    Default: what the network was trained at, or native with --tile."""

    tile: Annotated[tuple[Count, Count] | None, BeforeValidator(_pair), _flag("HxW")] = None
    """Show the network overlapping tiles of this height and width, one after another, and blend
    what it says of each. Default: the image as a whole."""

    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Least share of a tile that the next one covers, too."""

    flips: Literal["none", "h", "v", "hv"] = "none"
    """Average over the image and its mirror images: h: left for right; v: top for bottom; hv: both,
    and both at once, so four in all."""

    threshold: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Probability above which a pixel is foreground (two classes only; of more, the most probable
    one is taken)."""

    min_area: Annotated[int, Field(ge=0)] = 0
    """Fewest pixels of a region; what is smaller takes the class of the nearest pixel of one that
    is not: specks and holes alike. Regions are pixels of one class that share edges. 0: any."""

    white: Count = 65535
    """The value of grey 16-bit images that is white: 4095 of a 12-bit camera."""

    @model_validator(mode="after")
    def _check(self) -> "PredictConfig":
        if self.overlap != 0.5 and self.tile is None:
            raise ValueError(f"overlap: {self.overlap} needs a tile")
        return self

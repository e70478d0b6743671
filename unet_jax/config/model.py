"""What the network is."""

import dataclasses
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from unet_jax.config.settings import Count, settings


@settings
class ModelConfig:
    """The network."""

    architecture: Literal["residual", "plain"] = "residual"
    """residual: pre-activation residual blocks, a skip from each; plain: double convolutions."""

    channels: Annotated[tuple[Count, ...], Field(min_length=1)] = (64, 128, 256, 512)
    """Width of each stage; every stage halves height and width."""

    blocks_per_stage: Count = 1
    """Residual blocks at each stage's width (residual only)."""

    norm: Literal["batch", "group", "none"] = "group"
    """Kind of the norm layers; the published residual network has group, the plain one batch."""

    groups: Count = 16
    """Groups of a group norm; each stage's width must divide by it."""

    upsample: Literal["transposed", "bilinear"] = "transposed"
    """Transposed convolution, or bilinear interpolation followed by a convolution."""

    skip: bool = True
    """Whether the decoder sees the encoder's tensors (residual only)."""

    size_policy: Literal["pad", "resize"] = "pad"
    """What happens to sizes that do not divide by 2 at every stage."""

    @model_validator(mode="after")
    def _check(self) -> "ModelConfig":
        if self.norm == "group":
            for width in self.channels:
                if width % self.groups:
                    raise ValueError(
                        f"groups: {self.groups} does not divide the width {width} of channels "
                        f"{self.channels}"
                    )
        if self.architecture == "plain":
            for name, only in (("blocks_per_stage", 1), ("skip", True)):
                if getattr(self, name) != only:
                    raise ValueError(
                        f"{name}: {getattr(self, name)} needs architecture residual; "
                        f"plain allows {only} alone"
                    )
        return self

    @property
    def unit(self) -> int:
        """Pixels that each side of an image has at least: every stage halves it."""
        return 2 ** len(self.channels)

    def largest_layer(self, size: tuple[int, int]) -> int:
        """Values of an image of this height and width in pixels in the largest of the stages."""
        pixels = size[0] * size[1]
        return max(width * (pixels // 4**level) for level, width in enumerate(self.channels))

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of the architecture's class, in either framework."""
        fields = dataclasses.asdict(self)
        architecture = fields.pop("architecture")
        if architecture == "plain":
            del fields["blocks_per_stage"], fields["skip"]
        return fields

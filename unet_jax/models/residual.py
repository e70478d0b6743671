"""The residual U-Net: pre-activation residual blocks with a skip from every encoder module.

Images are [B, H, W, C]. Channel counts in the comments are the default's.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from unet_jax.models.layers import (
    Conv,
    Dtype,
    SizePolicy,
    UpConv,
    UpsampleKind,
    check_input,
    each_is_asked_for,
    match_size,
    resize_bilinear,
    round_up,
    unmatch_size,
)
from unet_jax.models.norms import Norm, NormKind
from unet_jax.models.passes import written


class Stage(NamedTuple):
    """One encoder module: a residual block, or a stride-2 convolution if `down`."""

    inputs: int
    outputs: int
    down: bool


def encoder_stages(channels: Sequence[int], blocks_per_stage: int) -> list[Stage]:
    """The encoder's modules in order; the decoder mirrors them in reverse."""
    stages = []
    for level, width in enumerate(channels):
        stages += [Stage(width, width, down=False)] * blocks_per_stage
        stages.append(Stage(width, width, down=True))
        if level + 1 < len(channels):
            stages.append(Stage(width, channels[level + 1], down=False))
    return stages


class ResidualUNet(nn.Module):
    """A U-Net of residual blocks that keeps every encoder tensor as a skip.

    Attributes:
      num_classes: Channels of the logits; 1 for foreground against background.
      channels: Width of each stage; every stage halves height and width.
      blocks_per_stage: Residual blocks at each stage's width, and in the bottleneck.
      norm: Kind of the norm layers.
      groups: Groups of a group norm; each width must divide by it.
      upsample: "transposed" convolution, or "bilinear" interpolation and a convolution.
      skip: Whether the decoder sees the encoder's tensors; False leaves an autoencoder.
      size_policy: How an input whose sides do not divide by 2 ** len(channels) is brought to a
        size that does; the logits come back at the input's size.
      dtype: What convolutions compute in, and pass on; None: what the parameters are of. The
        logits come back in the input's type.
      axis_name: Mapped axis over whose devices batch norms take their statistics together.
      remat: Whether blocks are computed anew in the backward pass, which saves memory.

    References:
      Ronneberger et al., 2015 (U-Net). https://arxiv.org/abs/1505.04597
      He et al., 2016 (pre-activation residual blocks). https://arxiv.org/abs/1603.05027
    """

    num_classes: int = 1
    channels: Sequence[int] = (64, 128, 256, 512)
    blocks_per_stage: int = 1
    norm: NormKind = "group"
    groups: int = 16
    upsample: UpsampleKind = "transposed"
    skip: bool = True
    size_policy: SizePolicy = "pad"
    dtype: Dtype = None
    axis_name: str | None = None
    remat: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Normalised images [B, H, W, C] -> logits [B, H, W, num_classes].

        Raises:
          ValueError: a side is shorter than 2 ** len(channels) pixels.
        """
        size, dtype = check_input(x, len(self.channels)), x.dtype
        conv = partial(Conv, dtype=self.dtype)
        norm = Norm(self.norm, self.groups, self.axis_name)
        block = nn.remat(ResidualBlock, static_argnums=2) if self.remat else ResidualBlock
        # A bias in front of a batch norm has no effect, and a gradient of rounding noise.
        block = partial(block, conv=conv, norm=norm, inner_bias=self.norm != "batch")
        stages = encoder_stages(self.channels, self.blocks_per_stage)

        x = match_size(x, round_up(size, len(self.channels)), self.size_policy)
        x = conv(self.channels[0], name="conv_in")(x)  # [B, H, W, 64]
        skips = [x]
        for n, stage in enumerate(stages):
            if stage.down:
                x = conv(stage.outputs, stride=2, name=f"encoder_{n}")(x)
            else:
                x = block(stage.outputs, name=f"encoder_{n}")(x, train)
            skips.append(x)

        for n in range(self.blocks_per_stage):
            x = block(self.channels[-1], name=f"bottleneck_{n}")(x, train)  # [B, H/16, W/16, 512]

        level = 0
        for n, stage in enumerate(reversed(stages)):
            x = block(stage.inputs, name=f"decoder_{n}")(self.join(x, skips.pop()), train)
            if stage.down:
                x = Upsample(stage.inputs, self.upsample, self.dtype, name=f"upsample_{level}")(x)
                level += 1
        n = len(stages)
        x = block(self.channels[0], name=f"decoder_{n}")(self.join(x, skips.pop()), train)
        x = conv(self.num_classes, name="conv_out")(x)  # [B, H, W, num_classes]
        return unmatch_size(x.astype(dtype), size, self.size_policy)

    def join(self, x: jax.Array, skip: jax.Array) -> jax.Array:
        return written(jnp.concatenate([x, skip], axis=-1)) if self.skip else x


class ResidualBlock(nn.Module):
    """(norm -> ReLU -> 3×3 convolution) twice, plus the input."""

    features: int
    conv: Callable[..., Conv]
    norm: Norm
    inner_bias: bool

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        y = self.norm.rectified(self, x, train, "norm_1")
        conv_1 = self.conv(self.features, use_bias=self.inner_bias, name="conv_1")
        y = self.norm.after(conv_1, self, y, train, "norm_2")
        if x.shape[-1] != self.features:
            x = self.conv(self.features, kernel_size=1, name="shortcut")(x)
        conv_2 = self.conv(self.features, name="conv_2")
        if each_is_asked_for(self):
            return x + conv_2(y)
        return conv_2(y, added=x)


class Upsample(nn.Module):
    """Doubles height and width, learning how."""

    features: int
    kind: UpsampleKind
    dtype: Dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if self.kind == "transposed":
            return UpConv(self.features, self.dtype, name="conv")(x)
        x = resize_bilinear(x, (2 * x.shape[1], 2 * x.shape[2]), align_corners=True)
        return Conv(self.features, dtype=self.dtype, name="conv")(x)

"""The residual U-Net: pre-activation residual blocks with a skip from every encoder module.

Images are [B, C, H, W]. Channel counts in the comments are the default's.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unet_torch_ref.models.layers import (
    NormKind,
    SizePolicy,
    UpsampleKind,
    check_input,
    conv,
    double_size,
    match_size,
    normalize,
    recomputed,
    round_up,
    unmatch_size,
    up_conv,
)


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
    """The twin of `unet_jax.models.residual.ResidualUNet`; see there for the options.

    References:
      Ronneberger et al., 2015 (U-Net). https://arxiv.org/abs/1505.04597
      He et al., 2016 (pre-activation residual blocks). https://arxiv.org/abs/1603.05027
    """

    def __init__(
        self,
        num_classes: int = 1,
        channels: Sequence[int] = (64, 128, 256, 512),
        blocks_per_stage: int = 1,
        norm: NormKind = "group",
        groups: int = 16,
        upsample: UpsampleKind = "transposed",
        skip: bool = True,
        size_policy: SizePolicy = "pad",
        in_channels: int = 3,
        remat: bool = False,
    ) -> None:
        super().__init__()
        self.remat = remat
        self.levels = len(channels)
        self.skip = skip
        self.size_policy: SizePolicy = size_policy
        block = partial(ResidualBlock, norm=norm, groups=groups)
        stages = encoder_stages(channels, blocks_per_stage)
        sources = 2 if skip else 1
        self.down = [stage.down for stage in stages]

        self.conv_in = conv(in_channels, channels[0])
        self.encoder = nn.ModuleList(
            conv(stage.inputs, stage.outputs, stride=2)
            if stage.down
            else block(stage.inputs, stage.outputs)
            for stage in stages
        )
        self.bottleneck = nn.ModuleList(
            block(channels[-1], channels[-1]) for _ in range(blocks_per_stage)
        )
        self.decoder = nn.ModuleList(
            block(stage.outputs * sources, stage.inputs) for stage in reversed(stages)
        )
        self.decoder.append(block(channels[0] * sources, channels[0]))
        self.upsample = nn.ModuleList(Upsample(width, upsample) for width in reversed(channels))
        self.conv_out = conv(channels[0], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images [B, C, H, W] -> logits [B, num_classes, H, W].

        Raises:
          ValueError: a side is shorter than 2 ** len(channels) pixels.
        """
        size = check_input(x, self.levels)

        x = match_size(x, round_up(size, self.levels), self.size_policy)
        x = self.conv_in(x)  # [B, 64, H, W]
        skips = [x]
        for module in self.encoder:
            x = self.run(module, x)
            skips.append(x)

        for block in self.bottleneck:
            x = self.run(block, x)  # [B, 512, H/16, W/16]

        level = 0
        for block, down in zip(self.decoder, [*reversed(self.down), False], strict=True):
            x = self.run(block, self.join(x, skips.pop()))
            if down:
                x = self.upsample[level](x)
                level += 1
        x = self.conv_out(x)  # [B, num_classes, H, W]
        return unmatch_size(x, size, self.size_policy)

    def run(self, module: nn.Module, x: Tensor) -> Tensor:
        return recomputed(module, x) if self.remat else module(x)

    def join(self, x: Tensor, skip: Tensor) -> Tensor:
        return torch.cat([x, skip], dim=1) if self.skip else x


class ResidualBlock(nn.Module):
    """(norm -> ReLU -> 3×3 convolution) twice, plus the input."""

    def __init__(self, inputs: int, features: int, norm: NormKind, groups: int) -> None:
        super().__init__()
        self.norm_1 = normalize(inputs, norm, groups)
        # A bias in front of a batch norm has no effect, and a gradient of rounding noise.
        self.conv_1 = conv(inputs, features, use_bias=norm != "batch")
        self.norm_2 = normalize(features, norm, groups)
        self.conv_2 = conv(features, features)
        self.shortcut = conv(inputs, features, kernel_size=1) if inputs != features else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv_1(F.relu(self.norm_1(x)))
        y = self.conv_2(F.relu(self.norm_2(y)))
        return (x if self.shortcut is None else self.shortcut(x)) + y


class Upsample(nn.Module):
    """Doubles height and width, learning how."""

    def __init__(self, features: int, kind: UpsampleKind) -> None:
        super().__init__()
        self.kind: UpsampleKind = kind
        transposed = kind == "transposed"
        self.conv = up_conv(features, features) if transposed else conv(features, features)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x if self.kind == "transposed" else double_size(x))

"""The plain U-Net: double convolutions, max pooling, one skip a level.

Images are [B, C, H, W]. Channel counts in the comments are the default's.
"""

from collections.abc import Sequence
from functools import partial

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
    up_conv,
)


class PlainUNet(nn.Module):
    """The twin of `unet_jax.models.plain.PlainUNet`; see there for the options.

    References:
      Ronneberger et al., 2015. https://arxiv.org/abs/1505.04597
    """

    def __init__(
        self,
        num_classes: int = 1,
        channels: Sequence[int] = (64, 128, 256, 512),
        norm: NormKind = "batch",
        groups: int = 16,
        upsample: UpsampleKind = "transposed",
        size_policy: SizePolicy = "pad",
        in_channels: int = 3,
        remat: bool = False,
    ) -> None:
        super().__init__()
        self.remat = remat
        self.levels = len(channels)
        self.bilinear = upsample == "bilinear"
        self.size_policy: SizePolicy = size_policy
        block = partial(DoubleConv, norm=norm, groups=groups)

        self.encoder = nn.ModuleList()
        width = in_channels
        for features in channels:
            self.encoder.append(block(width, features))
            width = features
        deepest = channels[-1] * (1 if self.bilinear else 2)
        self.bottleneck = block(channels[-1], deepest)

        self.upsample = nn.ModuleList()
        self.decoder = nn.ModuleList()
        width = deepest
        for level in reversed(range(self.levels)):
            features = channels[level]
            if self.bilinear:
                outputs = channels[max(level - 1, 0)]
            else:
                self.upsample.append(up_conv(width, features))
                outputs = features
            self.decoder.append(block(2 * features, outputs, features))
            width = outputs
        self.conv_out = conv(channels[0], num_classes, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images [B, C, H, W] -> logits [B, num_classes, H, W].

        Raises:
          ValueError: a side is shorter than 2 ** len(channels) pixels.
        """
        check_input(x, self.levels)
        skips = []
        for block in self.encoder:
            x = self.run(block, x)
            skips.append(x)
            x = F.max_pool2d(x, 2)
        x = self.run(self.bottleneck, x)

        for n, block in enumerate(self.decoder):
            x = double_size(x) if self.bilinear else self.upsample[n](x)
            skip = skips.pop()
            x = match_size(x, (skip.shape[2], skip.shape[3]), self.size_policy)
            x = self.run(block, torch.cat([skip, x], dim=1))
        return self.conv_out(x)  # [B, num_classes, H, W]

    def run(self, block: nn.Module, x: Tensor) -> Tensor:
        return recomputed(block, x) if self.remat else block(x)


class DoubleConv(nn.Module):
    """(3×3 convolution -> norm -> ReLU) twice, by way of `hidden` channels."""

    def __init__(
        self,
        inputs: int,
        features: int,
        hidden: int | None = None,
        norm: NormKind = "batch",
        groups: int = 16,
    ) -> None:
        super().__init__()
        hidden = hidden or features
        # A bias in front of a batch norm has no effect, and a gradient of rounding noise.
        use_bias = norm != "batch"
        self.conv_1 = conv(inputs, hidden, use_bias=use_bias)
        self.norm_1 = normalize(hidden, norm, groups)
        self.conv_2 = conv(hidden, features, use_bias=use_bias)
        self.norm_2 = normalize(features, norm, groups)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm_1(self.conv_1(x)))
        return F.relu(self.norm_2(self.conv_2(x)))

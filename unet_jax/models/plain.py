"""The plain U-Net: double convolutions, max pooling, one skip a level.

Images are [B, H, W, C]. Channel counts in the comments are the default's.
"""

from collections.abc import Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from unet_jax.models.layers import (
    Conv,
    NormKind,
    SizePolicy,
    UpConv,
    UpsampleKind,
    check_input,
    match_size,
    normalize,
    resize_bilinear,
)


class PlainUNet(nn.Module):
    """The U-Net of most PyTorch code: same padding, batch norm, one skip a level.

    Attributes:
      num_classes: Channels of the logits; 1 for foreground against background.
      channels: Width of each level above the bottleneck.
      norm: Kind of the norm layers.
      groups: Groups of a group norm; each width must divide by it.
      upsample: "transposed" convolution with a bottleneck of twice the last width, or "bilinear"
        interpolation with narrower blocks.
      size_policy: How an upsampled map is brought to its skip's size when a level's size was odd.

    References:
      Ronneberger et al., 2015. https://arxiv.org/abs/1505.04597
    """

    num_classes: int = 1
    channels: Sequence[int] = (64, 128, 256, 512)
    norm: NormKind = "batch"
    groups: int = 16
    upsample: UpsampleKind = "transposed"
    size_policy: SizePolicy = "pad"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Normalised images [B, H, W, C] -> logits [B, H, W, num_classes].

        Raises:
          ValueError: a side is shorter than 2 ** len(channels) pixels.
        """
        check_input(x, len(self.channels))
        block = partial(DoubleConv, norm=self.norm, groups=self.groups)
        bilinear = self.upsample == "bilinear"

        skips = []
        for n, width in enumerate(self.channels):
            x = block(width, name=f"encoder_{n}")(x, train)
            skips.append(x)
            x = nn.max_pool(x, (2, 2), (2, 2))
        x = block(self.channels[-1] * (1 if bilinear else 2), name="bottleneck")(x, train)

        for n, width in enumerate(reversed(self.channels)):
            if bilinear:
                x = resize_bilinear(x, (2 * x.shape[1], 2 * x.shape[2]), align_corners=True)
                outputs = self.channels[max(len(skips) - 2, 0)]
            else:
                x = UpConv(width, name=f"upsample_{n}")(x)
                outputs = width
            skip = skips.pop()
            x = match_size(x, skip.shape[1:3], self.size_policy)
            x = jnp.concatenate([skip, x], axis=-1)
            x = block(outputs, width, name=f"decoder_{n}")(x, train)
        return Conv(self.num_classes, kernel_size=1, name="conv_out")(x)  # [B, H, W, num_classes]


class DoubleConv(nn.Module):
    """(3×3 convolution -> norm -> ReLU) twice, by way of `hidden` channels."""

    features: int
    hidden: int | None = None
    norm: NormKind = "batch"
    groups: int = 16

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        # A bias in front of a batch norm has no effect, and a gradient of rounding noise.
        use_bias = self.norm != "batch"
        x = Conv(self.hidden or self.features, use_bias=use_bias, name="conv_1")(x)
        x = nn.relu(normalize(x, self.norm, self.groups, train, "norm_1"))
        x = Conv(self.features, use_bias=use_bias, name="conv_2")(x)
        return nn.relu(normalize(x, self.norm, self.groups, train, "norm_2"))

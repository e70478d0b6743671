"""The plain U-Net: double convolutions, max pooling, one skip a level.

Images are [B, H, W, C]. Channel counts in the comments are the default's.
"""

from collections.abc import Callable, Sequence
from functools import partial

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
    match_size,
    resize_bilinear,
)
from unet_jax.models.norms import Norm, NormKind
from unet_jax.models.pooling import max_pool


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
      dtype, axis_name, remat: As `ResidualUNet` has them.

    References:
      Ronneberger et al., 2015. https://arxiv.org/abs/1505.04597
    """

    num_classes: int = 1
    channels: Sequence[int] = (64, 128, 256, 512)
    norm: NormKind = "batch"
    groups: int = 16
    upsample: UpsampleKind = "transposed"
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
        check_input(x, len(self.channels))
        dtype = x.dtype
        conv = partial(Conv, dtype=self.dtype)
        norm = Norm(self.norm, self.groups, self.axis_name)
        block = nn.remat(DoubleConv, static_argnums=2) if self.remat else DoubleConv
        # A bias in front of a batch norm has no effect, and a gradient of rounding noise.
        block = partial(block, conv=conv, norm=norm, use_bias=self.norm != "batch")
        bilinear = self.upsample == "bilinear"

        skips = []
        for n, width in enumerate(self.channels):
            x = block(width, name=f"encoder_{n}")(x, train)
            skips.append(x)
            x = max_pool(x)
        x = block(self.channels[-1] * (1 if bilinear else 2), name="bottleneck")(x, train)

        for n, width in enumerate(reversed(self.channels)):
            if bilinear:
                x = resize_bilinear(x, (2 * x.shape[1], 2 * x.shape[2]), align_corners=True)
                outputs = self.channels[max(len(skips) - 2, 0)]
            else:
                x = UpConv(width, self.dtype, name=f"upsample_{n}")(x)
                outputs = width
            skip = skips.pop()
            x = match_size(x, skip.shape[1:3], self.size_policy)
            x = jnp.concatenate([skip, x], axis=-1)
            x = block(outputs, hidden=width, name=f"decoder_{n}")(x, train)
        x = conv(self.num_classes, kernel_size=1, name="conv_out")(x)  # [B, H, W, num_classes]
        return x.astype(dtype)


class DoubleConv(nn.Module):
    """(3×3 convolution -> norm -> ReLU) twice, by way of `hidden` channels."""

    features: int
    conv: Callable[..., Conv]
    norm: Norm
    use_bias: bool
    hidden: int | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        conv_1 = self.conv(self.hidden or self.features, use_bias=self.use_bias, name="conv_1")
        x = self.norm.after(conv_1, self, x, train, "norm_1")
        conv_2 = self.conv(self.features, use_bias=self.use_bias, name="conv_2")
        return self.norm.after(conv_2, self, x, train, "norm_2")

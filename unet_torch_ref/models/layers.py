"""The layers both networks are made of. Images are [B, C, H, W]."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

NormKind = Literal["batch", "group", "none"]
UpsampleKind = Literal["transposed", "bilinear"]
SizePolicy = Literal["pad", "resize"]


def conv(
    inputs: int, features: int, kernel_size: int = 3, stride: int = 1, use_bias: bool = True
) -> nn.Conv2d:
    """A convolution with a square kernel and padding k // 2."""
    padding = kernel_size // 2
    return nn.Conv2d(inputs, features, kernel_size, stride, padding, bias=use_bias)


def up_conv(inputs: int, features: int) -> nn.ConvTranspose2d:
    """A 2×2 stride-2 transposed convolution: doubles height and width."""
    return nn.ConvTranspose2d(inputs, features, kernel_size=2, stride=2)


def normalize(features: int, kind: NormKind, groups: int) -> nn.Module:
    """The norm layer of this kind; "none" changes nothing."""
    match kind:
        case "batch":
            return nn.BatchNorm2d(features)
        case "group":
            return nn.GroupNorm(groups, features)
        case "none":
            return nn.Identity()


def recomputed(block: nn.Module, x: Tensor) -> Tensor:
    """`block(x)`, computed anew in the backward pass, which saves memory."""
    if not torch.is_grad_enabled():
        return block(x)
    return checkpoint(
        block,
        x,
        use_reentrant=False,
        context_fn=lambda: (nullcontext(), _statistics_kept(block)),
    )


@contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    """The second pass sees the same batch, which must not count twice."""
    norms = [module for module in block.modules() if isinstance(module, nn.BatchNorm2d)]
    usual = [(norm.momentum, int(norm.get_buffer("num_batches_tracked"))) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:  # The pass ends in an exception once nothing more of it is needed.
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, usual, strict=True):
            norm.momentum = momentum
            norm.get_buffer("num_batches_tracked").fill_(batches)


def double_size(x: Tensor) -> Tensor:
    """Bilinear interpolation to twice the height and width, corners aligned."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


def round_up(size: tuple[int, int], levels: int) -> tuple[int, int]:
    """The next height and width that halve `levels` times without a remainder."""
    unit = 2**levels
    return -(-size[0] // unit) * unit, -(-size[1] // unit) * unit


def match_size(x: Tensor, size: tuple[int, int], policy: SizePolicy) -> Tensor:
    """Brings x [B, C, h, w] to `size` ≥ (h, w): zeros around it, or bilinear interpolation.

    Of an odd number of rows or columns to pad, the extra one goes to the bottom or right.
    """
    rows, columns = size[0] - x.shape[2], size[1] - x.shape[3]
    if rows == columns == 0:
        return x
    if policy == "resize":
        return F.interpolate(x, size, mode="bilinear", align_corners=False)
    top, left = rows // 2, columns // 2
    return F.pad(x, (left, columns - left, top, rows - top))


def unmatch_size(x: Tensor, size: tuple[int, int], policy: SizePolicy) -> Tensor:
    """Undoes `match_size`: brings x back to `size` by cropping the padding, or by resizing."""
    rows, columns = x.shape[2] - size[0], x.shape[3] - size[1]
    if rows == columns == 0:
        return x
    if policy == "resize":
        return F.interpolate(x, size, mode="bilinear", align_corners=False)
    top, left = rows // 2, columns // 2
    return x[:, :, top : top + size[0], left : left + size[1]]


def check_input(x: Tensor, levels: int) -> tuple[int, int]:
    """Returns (height, width) of x [B, C, H, W].

    Raises:
      ValueError: x is not four-dimensional, or a side is shorter than 2 ** levels pixels, which
        would leave nothing at the deepest level.
    """
    if x.dim() != 4:
        shape = tuple(x.shape)
        raise ValueError(f"input has shape {shape}; expected [batch, channels, height, width]")
    height, width = x.shape[2:]
    if min(height, width) < 2**levels:
        raise ValueError(
            f"input is {height}×{width} pixels; {levels} downsamplings need at least "
            f"{2**levels}×{2**levels}"
        )
    return height, width

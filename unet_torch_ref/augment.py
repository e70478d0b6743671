"""Augmentation on the device: what the host drew, applied to a batch."""

import torch
import torch.nn.functional as F
from torch import Tensor

from unet_torch_ref.batch import Batch

Normalisation = tuple[tuple[float, ...] | Tensor, tuple[float, ...] | Tensor]
"""Mean and standard deviation of each channel; tensors on the device spare a copy at each batch."""
LUMINANCE = (0.2989, 0.587, 0.114)


def inputs_and_targets(
    batch: Batch,
    mean_std: Normalisation,
    dtype: torch.dtype,
    fill: int,
    size: tuple[int, int] | None = None,
    coordinates: torch.dtype = torch.float64,
) -> tuple[Tensor, Tensor]:
    """What the network is given: the batch with its colours and its geometry changed.

    Args:
      batch: The samples; without `colour` and `geometry`, images are only normalised.
      mean_std: Per-channel mean and standard deviation of images in 0..1.
      dtype: Of the images.
      fill: What the mask holds outside of the picture; there the image has the mean colour.
      size: H and W that `geometry` is for; None: the batch's own.
      coordinates: What pixels' places are computed in. Of float32 they are exact where whole pixels
        move; else they are off by up to a millionth of the picture's longer side.

    Returns:
      Normalised images [B, C, H, W] in channels-last memory, and masks uint8 [B, H, W].
    """
    image = normalise(batch.image, mean_std, dtype, batch.colour)
    if batch.geometry is None:
        return image, batch.mask
    mask = warp_mask(batch.mask, batch.geometry, fill, size, coordinates)
    return warp(image, batch.geometry, size, coordinates), mask


def border_map(
    batch: Batch,
    size: tuple[int, int] | None = None,
    coordinates: torch.dtype = torch.float64,
) -> Tensor | None:
    """The batch's border map [B, H, W] with its geometry changed; 0 outside of the picture."""
    if batch.border is None or batch.geometry is None:
        return batch.border
    return warp_mask(batch.border, batch.geometry, 0, size, coordinates)


def normalise(
    image: Tensor, mean_std: Normalisation, dtype: torch.dtype, factors: Tensor | None = None
) -> Tensor:
    """uint8 [B, H, W, C] -> (image / 255 - mean) / std, [B, C, H, W] in channels-last memory.

    `factors` [B, 5] change the colours before the mean is taken off.
    """
    mean, std = (torch.as_tensor(v, dtype=dtype, device=image.device) for v in mean_std)
    image = image.to(dtype) / 255
    if factors is not None:
        image = colour(image, factors)
    return ((image - mean) / std).permute(0, 3, 1, 2)


def colour(image: Tensor, factors: Tensor) -> Tensor:
    """Changes gamma, brightness, contrast, saturation and hue, in this order.

    Gamma is first, where values are still exact: for exponents below 1 its slope at 0 has no
    bound, and would show the rounding of what came before it. Values are cut to 0..1 after each.

    Args:
      image: [B, H, W, 3] in 0..1.
      factors: [B, 5], as in `Batch.colour`. What is 1 (hue: 0) changes no bit.

    References:
      torchvision.transforms.functional.adjust_gamma, adjust_brightness, adjust_contrast,
      adjust_saturation and adjust_hue (in HSV) do the same.
    """
    columns = factors.to(image.dtype)[:, None, None].split(1, dim=-1)  # [B, 1, 1, 1]
    brightness, contrast, saturation, shift, exponent = columns
    image = torch.where(exponent == 1, image, image**exponent)  # A device's power of 1 may round.
    image = _blend(image, torch.zeros_like(image), brightness)
    image = _blend(image, _luminance(image).mean((1, 2), keepdim=True), contrast)
    image = _blend(image, _luminance(image), saturation)
    return torch.where(shift == 0, image, _turn_hue(image, shift))


def warp(
    image: Tensor,
    geometry: Tensor,
    size: tuple[int, int] | None = None,
    coordinates: torch.dtype = torch.float64,
) -> Tensor:
    """Takes each pixel from where int32 [B, 2, 3] says: bilinear, 0 outside.

    Args:
      image: [B, C, H', W'].
      geometry: As in `Batch.geometry`.
      size: H and W; None: the image's.
      coordinates: As of `inputs_and_targets`.

    Returns:
      [B, C, H, W] in channels-last memory.
    """
    warped = _sample(image.to(coordinates), geometry, size, "bilinear", nudge=0.0)
    return warped.to(image.dtype).contiguous(memory_format=torch.channels_last)


def warp_mask(
    mask: Tensor,
    geometry: Tensor,
    fill: int,
    size: tuple[int, int] | None = None,
    coordinates: torch.dtype = torch.float64,
) -> Tensor:
    """Takes each id from where int32 [B, 2, 3] says: nearest, `fill` outside.

    Half-way between two pixels, the right and the lower one are nearest.

    Args:
      mask: [B, H', W'].
      geometry: As in `Batch.geometry`.
      fill: The id outside.
      size: H and W; None: the mask's.
      coordinates: As of `inputs_and_targets`.

    Returns:
      [B, H, W].
    """
    # `grid_sample` rounds ties to even. A quarter of the coordinates' unit makes them go up (of
    # float64, that is), and can move nothing else. Ids count from 1 here: it gives 0 outside.
    ids = mask[:, None].to(coordinates) + 1
    taken = _sample(ids, geometry, size, "nearest", nudge=0.25 / 65536)[:, 0]
    return torch.where(taken == 0, fill, taken - 1).to(mask.dtype)


def _sample(
    image: Tensor, geometry: Tensor, size: tuple[int, int] | None, mode: str, nudge: float
) -> Tensor:
    """`grid_sample` at coordinates of the image's type, exact through its change of units and back.

    They are so in float64 (they have up to 32 bits; float32 has 24) if the sides are powers of 2:
    the picture is padded to them with the 0 that is outside of it anyway.
    """
    height, width = image.shape[2:]
    right, bottom = (1 << (side - 1).bit_length() for side in (width, height))
    image = F.pad(image, (0, right - width, 0, bottom - height))
    rows, columns = (torch.arange(n, device=image.device) for n in size or (height, width))
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    by_x, by_y, shift = geometry.to(image.dtype)[..., None].unbind(2)  # [B, 2, 1]
    source = (by_x * x.flatten() + by_y * y.flatten() + shift) / 65536 + nudge  # [B, 2, H W]
    across, down = source.unbind(1)
    grid = torch.stack([(2 * across + 1) / right - 1, (2 * down + 1) / bottom - 1], dim=-1)
    grid = grid.unflatten(1, (len(rows), len(columns)))
    return F.grid_sample(image, grid, mode, padding_mode="zeros", align_corners=False)


def _blend(image: Tensor, other: Tensor, share: Tensor) -> Tensor:
    """`share` of the image and the rest of the other; more than 1 leads away from the other."""
    return (share * image + (1 - share) * other).clamp(0, 1)


def _luminance(image: Tensor) -> Tensor:
    channels = zip(LUMINANCE, image.split(1, dim=-1), strict=True)
    return sum((share * channel for share, channel in channels), image.new_zeros(()))


def _turn_hue(image: Tensor, shift: Tensor) -> Tensor:
    """Shifts the hue in HSV by a share of the circle; saturation and value stay.

    Round the circle, in sixths, a channel is at the pixel's highest value for two, falls for one,
    is at its lowest for two, and rises for one; blue is two sixths behind green, as green is
    behind red.
    """
    red, green, blue = image.split(1, dim=-1)
    high, low = image.amax(-1, keepdim=True), image.amin(-1, keepdim=True)
    chroma = high - low
    divisor = torch.where(chroma == 0, 1, chroma)  # Grey has no hue: any will do.
    hue = torch.where(
        high == red,
        (green - blue) / divisor,
        torch.where(high == green, (blue - red) / divisor + 2, (red - green) / divisor + 4),
    )
    behind = torch.arange(5, 0, -2, device=image.device, dtype=image.dtype)
    place = (behind + hue + 6 * shift) % 6
    return (high - chroma * torch.minimum(place, 4 - place).clamp(0, 1)).clamp(0, 1)

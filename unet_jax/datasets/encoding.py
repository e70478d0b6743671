"""What the pixels of mask files mean: indices, grey levels or colours, and the classes behind."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

MOST_COLOURS = 256
Colour = tuple[int, int, int]


class MaskError(ValueError):
    """A mask that cannot be one, or not one of this data set; the message says why."""


@dataclass(frozen=True)
class Encoding:
    """Which class each pixel value stands for.

    Attributes:
      ids: Class id of each value: a palette index, a grey level, or a colour as 0xRRGGBB.
      colour: Whether the values are colours.
    """

    ids: Mapping[int, int]
    colour: bool = False

    def decode(self, mask: Image.Image, size: tuple[int, int]) -> np.ndarray:
        """Class ids, uint8 of `size` (H, W); each pixel is the nearest one of the file.

        Raises:
          MaskError: The file holds another value, anywhere.
        """
        mask = values_image(mask, self.colour)
        unknown = [] if self._covers(mask) else sorted(values_of(mask) - self.ids.keys())
        if unknown:
            raise MaskError(
                f"holds the values {self._list(unknown)}; allowed: {self._list(sorted(self.ids))}"
            )
        values = _as_numbers(mask.resize((size[1], size[0]), Image.Resampling.NEAREST))
        keys = np.array(sorted(self.ids))
        ids = np.array([self.ids[k] for k in keys], np.uint8)
        if self.colour:
            return ids[np.searchsorted(keys, values)]
        table = np.zeros(keys[-1] + 1, np.uint8)
        table[keys] = ids
        return table[values]

    def _covers(self, mask: Image.Image) -> bool:
        """Whether every value up to the mask's highest is known; far quicker than which occur."""
        if mask.mode not in ("L", "P"):
            return False
        return self.ids.keys() >= set(range(int(np.asarray(mask).max()) + 1))

    def _list(self, values: Sequence[int]) -> str:
        shown = [f"#{value:06x}" if self.colour else str(value) for value in values[:8]]
        return ", ".join(shown) + (", …" if len(values) > 8 else "")


def values_image(mask: Image.Image, colour: bool) -> Image.Image:
    """The mask in a mode whose pixels are its values: RGB for colours, else one number a pixel.

    Raises:
      MaskError: It is a JPEG, or its pixels are not numbers of one channel where they have to be.
    """
    if mask.format in ("JPEG", "MPO"):
        raise MaskError("is a JPEG, whose compression changes class values; masks are PNG or GIF")
    if colour and mask.mode in ("1", "L", "LA", "P", "PA", "RGB", "RGBA"):
        return mask.convert("RGB")
    if colour:
        raise MaskError(f"has pixels of Pillow's mode {mask.mode}, where colours are expected")
    if mask.mode in ("1", "L", "P", "I"):
        return mask
    if mask.mode.startswith("I;16"):
        return mask.convert("I")
    if mask.mode in ("LA", "PA"):
        return mask.getchannel(0)
    if mask.mode in ("RGB", "RGBA"):
        red, green, blue = (mask.getchannel(c) for c in "RGB")
        if red.tobytes() == green.tobytes() == blue.tobytes():
            return red
        raise MaskError("is in colour, where one number for each pixel is expected")
    raise MaskError(f"has pixels of Pillow's mode {mask.mode}; masks hold indices or RGB colours")


def values_of(mask: Image.Image) -> set[int]:
    """Every value that occurs in an image from `values_image`.

    Raises:
      MaskError: There are more colours than a mask can have.
    """
    if mask.mode == "1":
        return {value // 255 for value, count in enumerate(mask.histogram()) if count}
    if mask.mode in ("L", "P"):
        return {value for value, count in enumerate(mask.histogram()) if count}
    if mask.mode == "RGB":
        colours = mask.getcolors(MOST_COLOURS)
        if colours is None:
            raise MaskError(
                f"holds more than {MOST_COLOURS} colours: a photograph, or a mask saved with "
                "smoothed edges or as JPEG; a mask has one colour for each class"
            )
        return {number(colour) for _, colour in colours}  # type: ignore[arg-type]
    return set(np.unique(np.asarray(mask)).tolist())


def number(colour: Iterable[int]) -> int:
    """(r, g, b) -> 0xRRGGBB."""
    red, green, blue = colour
    return red << 16 | green << 8 | blue


def colour_of(value: int) -> Colour:
    """0xRRGGBB -> (r, g, b)."""
    return value >> 16, value >> 8 & 255, value & 255


def _as_numbers(mask: Image.Image) -> np.ndarray:
    pixels = np.asarray(mask).astype(np.int64)
    if mask.mode == "RGB":
        return pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]
    return pixels


def first_that_fits(
    encodings: Sequence[Encoding], mask: Image.Image, size: tuple[int, int]
) -> np.ndarray:
    """Decodes by the first encoding that knows every value of the mask.

    Raises:
      MaskError: None does; what the last one says.
    """
    *others, last = encodings
    for encoding in others:
        try:
            return encoding.decode(mask, size)
        except MaskError:
            continue
    return last.decode(mask, size)


def voc_palette(count: int) -> tuple[Colour, ...]:
    """Colours that differ, black first: the PASCAL VOC colour map, by its bits.

    References:
      Everingham et al., 2010. https://doi.org/10.1007/s11263-009-0275-4
    """
    colours = []
    for index in range(count):
        channels = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                channels[channel] |= (index >> (3 * bit + channel) & 1) << (7 - bit)
        colours.append(tuple(channels))
    return tuple(colours)

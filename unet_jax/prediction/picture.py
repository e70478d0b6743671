"""An image that is to be predicted: a file, what Pillow has opened, or an array."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from unet_jax.datasets.files import in_rgb, of_eight_bits, read_image, resized, upright_size

Size = tuple[int, int]
LARGEST = 1_000_000_000
"""Pixels of a picture that is predicted; decoded, three bytes each."""


@dataclass(frozen=True)
class Picture:
    """An image in RGB, upright.

    Attributes:
      name: Of its file; "" if there is none.
      native: Its height and width.
      read: Its pixels, uint8 [H, W, 3], resized to the given size with antialiasing; None: native.
    """

    name: str
    native: Size
    read: Callable[[Size | None], np.ndarray]


def open_picture(image: str | Path | Image.Image | np.ndarray, white: int = 65535) -> Picture:
    """Takes an image as it comes.

    Args:
      image: A file's name; a Pillow image; or uint8 or uint16 [H, W] (grey), [H, W, 3] (RGB) or
        [H, W, 4] (RGB and alpha, which is left out).
      white: The value of 16-bit images that is white; of files, grey ones alone can have another.

    Raises:
      ValueError: It is an array of another form.
      OSError: The file cannot be read, or is not an image.
    """
    if isinstance(image, str | Path):
        path = Path(image).expanduser()
        content = path.read_bytes()
        return Picture(
            path.name, upright_size(content), lambda size: read_image(content, size, white)[0]
        )
    if isinstance(image, Image.Image):
        upright = in_rgb(ImageOps.exif_transpose(image), white)
    else:
        upright = Image.fromarray(_rgb(np.asarray(image), white))
    native = upright.height, upright.width
    return Picture("", native, partial(_read, upright))


@contextmanager
def large_pictures() -> Iterator[None]:
    """Lets Pillow open pictures of up to `LARGEST` pixels; else it refuses six times smaller ones,
    since a small file can be a huge picture. Its limit is the whole process's, so only one thread
    may enter."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = LARGEST // 2  # It refuses what has more than twice that.
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _read(image: Image.Image, size: Size | None) -> np.ndarray:
    return resized(image, size or (image.height, image.width))


def _rgb(pixels: np.ndarray, white: int) -> np.ndarray:
    """uint8 [H, W, 3] of an array."""
    shape, kind = pixels.shape, pixels.dtype
    channels = shape[2:] in ((), (1,), (3,), (4,))
    if len(shape) not in (2, 3) or not channels or not pixels.size or kind not in ("u1", "u2"):
        raise ValueError(
            f"image: an array {kind} {list(shape)}; uint8 or uint16 [H, W], [H, W, 3] or [H, W, 4] "
            "is expected"
        )
    if kind == np.uint16:
        pixels = of_eight_bits(pixels, white)
    colours = pixels.reshape(*shape[:2], -1)[..., :3]
    return np.ascontiguousarray(np.broadcast_to(colours, (*shape[:2], 3)))

"""Builders of data sets that are image and mask files: how a pair is read, checked and resized."""

import contextlib
import io
import math
import struct
import warnings
from collections.abc import Iterable, Iterator

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from unet_jax.config import DataConfig
from unet_jax.datasets.archive import Files
from unet_jax.datasets.builder import PairBuilder, Sample, Source
from unet_jax.datasets.encoding import MaskError, first_that_fits
from unet_jax.datasets.errors import DataError
from unet_jax.datasets.layout import Layout, Pair
from unet_jax.side_by_side import side_by_side


class FileBuilder(PairBuilder):
    """Reads pairs of files; a subclass finds them (`locate`) and understands them (`layout`)."""

    def __init__(self, config: DataConfig) -> None:
        """Raises:
        DataError: The files are not where the config says.
        """
        try:
            self.files = self.locate(config)
        except (OSError, RuntimeError) as error:  # No permission; ~user who is not there.
            raise DataError(f"{config.data_dir} cannot be read ({error})") from None
        super().__init__(config)

    def fingerprint(self) -> Iterable[str]:
        return [f"{path} {self.files[path].stamp}" for path in sorted(self.files)]

    @classmethod
    def locate(cls, config: DataConfig) -> Files:
        """The data set's files, and no others.

        Raises:
          DataError: They are not there; the message says where they were looked for.
        """
        raise NotImplementedError

    def layout(self) -> Layout:
        """Which files are pairs, and what mask values mean.

        Raises:
          DataError: Images and masks do not match.
        """
        raise NotImplementedError

    def source(self) -> Source:
        layout = self.layout()
        if not layout.pairs:
            raise DataError(f"no pairs of images and masks in {self.config.data_dir}")
        return Source(
            classes=layout.classes,
            palette=layout.palette,
            count=len(layout.pairs),
            samples=_samples(layout, self.size, self.config.dataset),
            note=layout.note,
        )


def _samples(layout: Layout, size: tuple[int, int], name: str) -> Iterator[Sample]:
    problems = []
    with quiet():
        for result in side_by_side(lambda pair: load_pair(layout, pair, size), layout.pairs):
            if isinstance(result, Sample):
                yield result
            else:
                problems.append(result)
    if problems:
        raise DataError.listing(f"{len(problems)} files of {name} cannot be used:", problems)


def load_pair(layout: Layout, pair: Pair, size: tuple[int, int]) -> Sample | str:
    """The resized sample, or what is wrong with it."""
    path = pair.image
    try:
        image, native = read_image(layout.files[path].read(), size, layout.white)
        path = pair.mask
        mask = opened(layout.files[path].read())
        if mask.size[::-1] != native:
            theirs = f"{native[0]}×{native[1]}"
            return f"{path}: {mask.height}×{mask.width} (H×W), but {pair.image} is {theirs}"
        ids = first_that_fits(layout.encodings, mask, size)
    except MaskError as error:
        return f"{path}: {error}"
    except OSError as error:
        return f"{path}: cannot be decoded ({error})"
    return Sample(pair.name, pair.group, pair.split, native, image, ids)


@contextlib.contextmanager
def _decoding() -> Iterator[None]:
    """Turns into OSError whatever else a decoder raises over damaged bytes: each has its own."""
    try:
        yield
    except UnidentifiedImageError:
        raise OSError("not an image of any known kind") from None
    except Exception as error:
        message = " ".join(str(error).split())
        raise OSError(message or type(error).__name__) from None


@_decoding()
def read_image(
    content: bytes, size: tuple[int, int] | None, white: int = 65535
) -> tuple[np.ndarray, tuple[int, int]]:
    """Decodes an image, upright and in RGB, and resizes it with antialiasing.

    Args:
      content: The file's.
      size: Height and width to resize to; None: it keeps its own.
      white: The value of a grey 16-bit image that becomes 255.

    Returns:
      uint8 [H, W, 3], and the file's own height and width.

    Raises:
      OSError: It is not an image, or damaged, or larger than any, or several, or `white` cannot
        be followed.
    """
    image = _open(content)
    cut = _will_be_cut(image)
    native = _upright_size(image)
    if size is not None:
        # A JPEG is decoded at the smallest of 1, 1/2, 1/4 and 1/8 of its size that is at least 1.5
        # times what is asked for; the rest of the way is Pillow's antialiased resize.
        height, width = (math.ceil(1.5 * side) for side in size)
        image.draft("RGB", (height, width) if _on_its_side(image) else (width, height))
    image = _upright(image)
    if cut and white != 65535:
        raise OSError("has 16 bits a channel, of which only grey ones can have another white")
    return resized(in_rgb(image, white), size or native), native


@_decoding()
def upright_size(content: bytes) -> tuple[int, int]:
    """Height and width that an image has once it is upright; nothing but its header is decoded.

    Raises:
      OSError: It is not an image, or larger than any.
    """
    return _upright_size(Image.open(io.BytesIO(content)))


def in_rgb(image: Image.Image, white: int = 65535) -> Image.Image:
    """The image in RGB, of 8 bits; of colours with alpha, what is underneath.

    Args:
      image: Of any mode but floating-point numbers.
      white: As in `read_image`.

    Raises:
      OSError: Its pixels are floating-point numbers.
    """
    if image.mode == "F":
        raise OSError("its pixels are floating-point numbers, of which nobody knows the white")
    if image.mode.startswith("I"):
        image = Image.fromarray(of_eight_bits(np.asarray(image), white))
    return image if image.mode == "RGB" else image.convert("RGB")


def of_eight_bits(levels: np.ndarray, white: int = 65535) -> np.ndarray:
    """Levels from 0 to `white` as uint8 from 0 to 255, rounded; what is beyond becomes white."""
    scaled = levels.astype(np.float32)
    scaled *= 255 / white
    return np.clip(np.rint(scaled, out=scaled), 0, 255, out=scaled).astype(np.uint8)


def resized(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """The pixels, uint8 [H, W, 3], of an image in RGB, resized to H and W with antialiasing."""
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.BILINEAR))


def opened(content: bytes) -> Image.Image:
    """Decodes a mask as it is, but upright; its `format` is kept.

    Raises:
      MaskError: It is a WebP that is not lossless, or has colours of 16 bits a channel.
      OSError: It is not an image, or damaged, or larger than any, or several.
    """
    with _decoding():
        mask = _open(content)
        cut = _will_be_cut(mask)
        mask = _upright(mask)
        lossy = mask.format == "WEBP" and not _is_lossless(content)
    if lossy:
        raise MaskError("is a lossy WebP, whose compression changes class values")
    if cut:
        raise MaskError("has colours of 16 bits a channel, of which only the upper 8 can be read")
    return mask


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences Pillow's warnings: of metadata nobody asks for, and of images half as large as it
    refuses. Its filter is the whole process's, so only one thread may enter."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def _open(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content))
    if image.format == "PNG":
        image.verify()  # Decoding does not look at its checksums.
        image = Image.open(io.BytesIO(content))
    count = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)  # MPO: and previews.
    if count > 1:
        raise OSError(f"holds {count} pictures; one is expected")
    image.info.pop("transparency", None)  # Pixels are what they are underneath.
    return image


def _will_be_cut(image: Image.Image) -> bool:
    """Whether Pillow will read 16 bits a channel, and keep the upper 8: all but grey ones. Its
    `tile`, there until it is loaded, says what it will make of the file's pixels."""
    deep = image.format in ("PNG", "TIFF") and ";16" in str(getattr(image, "tile", ""))
    return deep and not image.mode.startswith("I")


def _is_lossless(webp: bytes) -> bool:
    """Whether the pixels are in a chunk `VP8L`.

    References:
      Zern et al., 2024. RFC 9649. https://doi.org/10.17487/RFC9649
    """
    place = 12  # After `RIFF`, size and `WEBP`.
    while place + 8 <= len(webp):
        kind, size = struct.unpack_from("<4sL", webp, place)
        if kind in (b"VP8L", b"VP8 "):
            return kind == b"VP8L"
        place += 8 + size + size % 2
    return False


def _on_its_side(image: Image.Image) -> bool:
    return image.getexif().get(0x0112) in (5, 6, 7, 8)


def _upright_size(image: Image.Image) -> tuple[int, int]:
    width, height = image.size
    return (width, height) if _on_its_side(image) else (height, width)


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    ImageOps.exif_transpose(image, in_place=True)
    return image

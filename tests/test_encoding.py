"""What mask values mean: every way to write a mask down reads back as the same class ids."""

import io

import numpy as np
import pytest
from drawing import GREEN, NATIVE, RED, SIZE, draw, draw_classes, nearest
from PIL import Image

from unet_jax.batch import IGNORED
from unet_jax.datasets.encoding import (
    Encoding,
    MaskError,
    colour_of,
    first_that_fits,
    number,
    voc_palette,
)
from unet_jax.datasets.files import opened

COLOURS = ((0, 0, 0), RED, GREEN, (1, 2, 3), (255, 255, 255))
BY_COLOUR = Encoding({number(colour): n for n, colour in enumerate(COLOURS)}, colour=True)
BY_NUMBER = Encoding({n: n for n in range(5)})
IDS = draw_classes(0, 5)


def stored(mask: Image.Image, kind: str = "PNG", **options: object) -> Image.Image:
    """The mask after a round through a file."""
    buffer = io.BytesIO()
    mask.save(buffer, kind, **options)
    return opened(buffer.getvalue())


def painted(ids: np.ndarray) -> Image.Image:
    return Image.fromarray(np.array(COLOURS, np.uint8)[ids])


def indexed(ids: np.ndarray) -> Image.Image:
    mask = Image.fromarray(ids)
    mask.putpalette([channel for colour in COLOURS for channel in colour])
    return mask


def with_alpha(mask: Image.Image) -> Image.Image:
    mask.putalpha(7)
    return mask


WRITTEN = {
    "grey": (BY_NUMBER, lambda: stored(Image.fromarray(IDS))),
    "grey with alpha": (BY_NUMBER, lambda: stored(with_alpha(Image.fromarray(IDS)))),
    "grey as RGB": (BY_NUMBER, lambda: stored(Image.fromarray(IDS).convert("RGB"))),
    "grey as RGBA": (BY_NUMBER, lambda: stored(Image.fromarray(IDS).convert("RGBA"))),
    "16 bits": (BY_NUMBER, lambda: stored(Image.fromarray(IDS.astype(np.uint16)))),
    "16 bits TIFF": (BY_NUMBER, lambda: stored(Image.fromarray(IDS.astype(np.uint16)), "TIFF")),
    "16 bits, big-endian": (BY_NUMBER, lambda: stored(Image.fromarray(IDS.astype(">u2")), "TIFF")),
    "32 bits": (BY_NUMBER, lambda: stored(Image.fromarray(IDS.astype(np.int32)), "TIFF")),
    "palette PNG": (BY_NUMBER, lambda: stored(indexed(IDS), optimize=False)),
    "palette GIF": (BY_NUMBER, lambda: stored(indexed(IDS), "GIF", optimize=False)),
    "transparent palette": (BY_NUMBER, lambda: stored(indexed(IDS), transparency=bytes(5))),
    "WebP": (BY_COLOUR, lambda: stored(painted(IDS), "WEBP", lossless=True)),
    "WebP with metadata": (
        BY_COLOUR,
        lambda: stored(painted(IDS), "WEBP", lossless=True, exif=Image.Exif().tobytes()),
    ),
    "BMP": (BY_NUMBER, lambda: stored(Image.fromarray(IDS), "BMP")),
    "RGB": (BY_COLOUR, lambda: stored(painted(IDS))),
    "RGBA": (BY_COLOUR, lambda: stored(with_alpha(painted(IDS)))),
    "RGB TIFF": (BY_COLOUR, lambda: stored(painted(IDS), "TIFF")),
    "palette by its colours": (BY_COLOUR, lambda: stored(indexed(IDS), optimize=True)),
    "transparent palette by its colours": (
        BY_COLOUR,
        lambda: stored(indexed(IDS), transparency=bytes(5)),
    ),
}


@pytest.mark.parametrize("size", [NATIVE, SIZE], ids=["native", "smaller"])
@pytest.mark.parametrize("written", WRITTEN)
def test_a_mask_reads_back_as_its_ids(written: str, size: tuple[int, int]):
    encoding, mask = WRITTEN[written]
    ids = encoding.decode(mask(), size)
    assert ids.dtype == np.uint8
    np.testing.assert_array_equal(ids, nearest(IDS, size))


def test_one_bit_masks_hold_0_and_1():
    mask = draw(0)[1]
    ids = Encoding({0: 3, 1: 4}).decode(stored(Image.fromarray(mask > 0)), NATIVE)
    np.testing.assert_array_equal(ids, mask + 3)


def test_values_may_be_ignored():
    ids = Encoding({0: IGNORED, 1: 0, 2: 1, 3: 2, 4: IGNORED}).decode(Image.fromarray(IDS), NATIVE)
    np.testing.assert_array_equal(ids, np.array([255, 0, 1, 2, 255])[IDS])


def test_values_above_255_are_values():
    levels = np.array([0, 700, 65535, 255, 256], np.uint16)
    encoding = Encoding({int(level): n for n, level in enumerate(levels)})
    np.testing.assert_array_equal(encoding.decode(Image.fromarray(levels[IDS]), NATIVE), IDS)


REFUSED = {
    "JPEG": (BY_NUMBER, lambda: stored(Image.fromarray(IDS), "JPEG"), "is a JPEG"),
    "JPEG in colour": (BY_COLOUR, lambda: stored(painted(IDS), "JPEG"), "is a JPEG"),
    "another value": (BY_NUMBER, lambda: Image.fromarray(IDS * 2), "holds the values 6, 8; allow"),
    "another colour": (
        BY_COLOUR,
        lambda: Image.fromarray(np.array(COLOURS, np.uint8)[IDS] // 2),
        "holds the values #000101, #007f00, #7f0000, #7f7f7f; allowed: #000000, #00ff00, #010203,",
    ),
    "a photograph": (BY_COLOUR, lambda: Image.fromarray(draw(0)[0]), "more than 256 colours"),
    "colours for numbers": (BY_NUMBER, lambda: painted(IDS), "is in colour"),
    "16 bits for colours": (BY_COLOUR, lambda: Image.fromarray(IDS.astype("<u2")), "mode I;16"),
    "floating point": (BY_NUMBER, lambda: Image.fromarray(IDS.astype("<f4")), "mode F"),
    "floating point for colours": (BY_COLOUR, lambda: Image.fromarray(IDS.astype("<f4")), "mode F"),
    "CMYK": (BY_COLOUR, lambda: painted(IDS).convert("CMYK"), "mode CMYK"),
    "negative": (BY_NUMBER, lambda: Image.fromarray(IDS - np.int32(3)), "holds the values -3, -2"),
}


@pytest.mark.parametrize("alpha", [False, True], ids=["opaque", "with alpha"])
def test_a_lossy_webp_is_refused(alpha: bool):
    mask = with_alpha(painted(IDS)) if alpha else painted(IDS)
    with pytest.raises(MaskError, match="is a lossy WebP"):
        stored(mask, "WEBP", quality=100)


@pytest.mark.parametrize("case", REFUSED)
def test_a_mask_of_another_kind_is_refused(case: str):
    encoding, mask, reason = REFUSED[case]
    with pytest.raises(MaskError, match=f".*{reason}"):
        encoding.decode(mask(), SIZE)


@pytest.mark.parametrize("value", [5, 9, 255])
def test_a_value_that_resizing_would_drop_is_found(value: int):
    lost = np.zeros(NATIVE, np.uint8)
    lost[0, 0] = value
    assert not nearest(lost, SIZE).any()
    with pytest.raises(MaskError, match=f"holds the values {value};"):
        BY_NUMBER.decode(Image.fromarray(lost), SIZE)


def test_a_long_list_of_values_is_cut():
    with pytest.raises(MaskError, match=r"5, 6, 7, 8, 9, 10, 11, 12, …; allowed: 0, 1, 2, 3, 4$"):
        BY_NUMBER.decode(Image.fromarray(np.arange(256, dtype=np.uint8)[None]), SIZE)


@pytest.mark.parametrize("white", [1, 255])
def test_the_first_encoding_that_fits_is_taken(white: int):
    mask = draw(0)[1]
    encodings = [Encoding({0: 0, 1: 1}), Encoding({0: 0, 255: 1})]
    ids = first_that_fits(encodings, Image.fromarray(mask * np.uint8(white)), NATIVE)
    np.testing.assert_array_equal(ids, mask)


def test_encodings_are_not_mixed_within_a_mask():
    mixed = Image.fromarray(np.array([[0, 1, 255]], np.uint8))
    with pytest.raises(MaskError, match=r"holds the values 1; allowed: 0, 255$"):
        first_that_fits([Encoding({0: 0, 1: 1}), Encoding({0: 0, 255: 1})], mixed, (1, 3))


def test_colours_and_their_numbers():
    assert number((1, 2, 3)) == 0x010203
    assert [colour_of(number(colour)) for colour in COLOURS] == list(COLOURS)


def test_the_voc_palette_is_the_published_one():
    # The first of PASCAL VOC's: background, aeroplane, bicycle, bird, boat.
    assert voc_palette(5) == ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128))
    assert len(set(voc_palette(255))) == 255

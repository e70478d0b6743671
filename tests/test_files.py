"""How image files become pixels: colour modes, depth, orientation, and the JPEG short cut."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from drawing import NATIVE, draw, real
from PIL import Image

from unet_jax.datasets.encoding import MaskError
from unet_jax.datasets.files import opened, quiet, read_image


def encoded(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def picture(mode: str = "RGB") -> Image.Image:
    return Image.fromarray(draw(0)[0]).convert(mode)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_a_lossless_file_gives_its_very_pixels(kind: str):
    image, native = read_image(encoded(picture(), kind), NATIVE)
    assert image.dtype == np.uint8
    assert native == NATIVE
    np.testing.assert_array_equal(image, draw(0)[0])


@pytest.mark.parametrize(("mode", "kind"), [("L", "PNG"), ("1", "PNG"), ("L", "JPEG")])
def test_grey_images_become_rgb(mode: str, kind: str):
    content = encoded(picture(mode), kind)
    grey = np.asarray(Image.open(io.BytesIO(content)).convert("L"))
    image = read_image(content, NATIVE)[0]
    np.testing.assert_array_equal(image, np.stack([grey] * 3, axis=-1))


def test_cmyk_becomes_rgb():
    content = encoded(picture("CMYK"), "JPEG")
    expected = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    np.testing.assert_array_equal(read_image(content, NATIVE)[0], expected)


@pytest.mark.parametrize("alpha", [0, 255], ids=["transparent", "opaque"])
def test_alpha_is_dropped_and_the_colour_under_it_kept(alpha: int):
    transparent = picture()
    transparent.putalpha(alpha)
    np.testing.assert_array_equal(read_image(encoded(transparent), NATIVE)[0], draw(0)[0])


@pytest.mark.parametrize("transparency", [3, bytes(range(200))], ids=["one index", "a table"])
def test_the_transparency_of_a_palette_is_passed_over(transparency: object):
    """Pillow would warn of a table, and warnings are errors here."""
    palette = picture().quantize(200)
    content = encoded(palette, transparency=transparency)
    expected = np.asarray(palette.convert("RGB"))
    np.testing.assert_array_equal(read_image(content, NATIVE)[0], expected)


@pytest.mark.parametrize(
    ("kind", "order"), [("PNG", "<u2"), ("TIFF", "<u2"), ("TIFF", ">u2")],
    ids=["PNG", "TIFF", "big-endian TIFF"],
)  # fmt: skip
@pytest.mark.parametrize("white", [65535, 4095])
def test_sixteen_bits_are_scaled_by_their_white(white: int, kind: str, order: str):
    levels = np.linspace(0, white, NATIVE[0] * NATIVE[1]).astype(order).reshape(NATIVE)
    image = read_image(encoded(Image.fromarray(levels), kind), NATIVE, white)[0]
    # Exact at the ends; in between float32 may round a tie the other way.
    assert image[0, 0].tolist() == [0, 0, 0]
    assert image[-1, -1].tolist() == [255, 255, 255]
    expected = levels.astype(float)[..., None] * 255 / white
    assert np.abs(image - expected).max() <= 0.5 + 1e-4


def test_what_is_brighter_than_white_is_white():
    levels = np.full(NATIVE, 5000, np.uint16)
    assert (read_image(encoded(Image.fromarray(levels)), NATIVE, 4095)[0] == 255).all()


def deep_png(kind: int, *levels: int) -> bytes:
    """A black pixel and another, of 16 bits a channel, which Pillow reads but does not write."""
    pixels = struct.pack(f">{2 * len(levels)}H", *[0] * len(levels), *levels)
    parts = {
        b"IHDR": struct.pack(">2L5B", 2, 1, 16, kind, 0, 0, 0),
        b"IDAT": zlib.compress(b"\0" + pixels),
        b"IEND": b"",
    }
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">L", len(part)) + name + part + struct.pack(">L", zlib.crc32(name + part))
        for name, part in parts.items()
    )


def deep_tiff(*levels: int) -> bytes:
    tags = {256: (3, 1, 2), 257: (3, 1, 1), 258: (3, 3, 122), 259: (3, 1, 1), 262: (3, 1, 2)}
    tags |= {273: (4, 1, 128), 277: (3, 1, 3), 278: (3, 1, 1), 279: (4, 1, 12)}
    listed = b"".join(struct.pack("<2H2L", tag, *rest) for tag, rest in tags.items())
    start = b"II*\0" + struct.pack("<LH", 8, len(tags))
    return start + listed + bytes(4) + struct.pack("<9H", 16, 16, 16, 0, 0, 0, *levels)


LEVELS = (0x12FF, 0x3400, 0x56A9)  # To the nearest, the first would be 0x13.
DEEP = {
    "RGB": deep_png(2, *LEVELS),
    "grey and alpha": deep_png(4, 0x12FF, 0xFFFF),
    "RGBA": deep_png(6, *LEVELS, 0xFFFF),
    "TIFF": deep_tiff(*LEVELS),
}


@pytest.mark.parametrize("kind", DEEP)
def test_of_colours_of_sixteen_bits_the_upper_byte_is_read(kind: str):
    colour = [0x12] * 3 if kind == "grey and alpha" else [0x12, 0x34, 0x56]
    assert read_image(DEEP[kind], (1, 2))[0].tolist() == [[[0, 0, 0], colour]]


@pytest.mark.parametrize("kind", DEEP)
def test_colours_of_sixteen_bits_have_no_other_white(kind: str):
    with pytest.raises(OSError, match="16 bits a channel, of which only grey"):
        read_image(DEEP[kind], (1, 2), 4095)


@pytest.mark.parametrize("kind", DEEP)
def test_masks_with_colours_of_sixteen_bits_are_refused(kind: str):
    with pytest.raises(MaskError, match="has colours of 16 bits a channel, of which only the"):
        opened(DEEP[kind])


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_masks_of_grey_levels_of_sixteen_bits_are_read_whole(kind: str):
    levels = np.array([[0, 0x12FF, 65535]], np.uint16)
    np.testing.assert_array_equal(opened(encoded(Image.fromarray(levels), kind)), levels)


def test_the_white_of_eight_bits_is_255():
    np.testing.assert_array_equal(read_image(encoded(picture()), NATIVE, 4095)[0], draw(0)[0])


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "PNG", "WEBP"])
@pytest.mark.parametrize("read", [opened, lambda content: read_image(content, NATIVE)])
def test_a_file_of_two_pictures_is_refused(read: Callable[[bytes], object], kind: str):
    others = [Image.fromarray(draw(1)[0])]
    content = encoded(picture(), kind, save_all=True, append_images=others, lossless=True)
    with pytest.raises(OSError, match="holds 2 pictures; one is expected"):
        read(content)


def test_of_a_cameras_two_pictures_the_first_is_read():
    """MPO: a JPEG, followed by a preview of it."""
    content = encoded(picture(), "MPO", save_all=True, append_images=[picture("L").convert("RGB")])
    assert Image.open(io.BytesIO(content)).format == "MPO"
    expected = np.asarray(Image.open(io.BytesIO(content)))
    np.testing.assert_array_equal(read_image(content, NATIVE)[0], expected)


def test_no_bit_of_a_png_flips_unseen():
    """Pillow alone looks at no checksum; in the last bytes of the pixels that would show."""
    size = (12, 18)
    content = encoded(Image.fromarray(draw(0, size)[0]))
    refused = 0
    with quiet():
        for bit in range(8 * len(content)):
            flipped = bytearray(content)
            flipped[bit // 8] ^= 1 << bit % 8
            try:
                image, _ = read_image(bytes(flipped), size)
            except OSError:
                refused += 1
            else:
                np.testing.assert_array_equal(image, draw(0, size)[0])
    assert refused > 7 * len(content)


def test_floating_point_pixels_are_refused():
    content = encoded(Image.fromarray(np.ones(NATIVE, np.float32)), "TIFF")
    with pytest.raises(OSError, match="floating-point"):
        read_image(content, NATIVE)


# What each orientation does to a picture so that it is seen upright (TIFF 6.0, tag 274).
TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


def oriented(orientation: int, kind: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(picture(), kind, exif=exif)


@pytest.mark.parametrize("orientation", TURNS)
def test_exif_turns_an_image(orientation: int):
    expected = TURNS[orientation](draw(0)[0])
    image, native = read_image(oriented(orientation, "PNG"), expected.shape[:2])
    assert native == expected.shape[:2]
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize("orientation", TURNS)
def test_exif_turns_a_mask(orientation: int):
    mask = opened(oriented(orientation, "PNG"))
    np.testing.assert_array_equal(np.asarray(mask), TURNS[orientation](draw(0)[0]))


@pytest.mark.parametrize("orientation", [0, 9, 255])
def test_an_orientation_that_there_is_not_changes_nothing(orientation: int):
    image, native = read_image(oriented(orientation, "PNG"), NATIVE)
    assert native == NATIVE
    np.testing.assert_array_equal(image, draw(0)[0])


@pytest.mark.parametrize("orientation", [1, 6, 8])
def test_a_reduced_jpeg_is_turned_and_its_native_size_kept(orientation: int):
    y, x = np.indices((160, 240))
    exif = Image.Exif()
    exif[0x0112] = orientation
    ramp = np.stack([y, x, 0 * x], axis=-1).astype(np.uint8)
    content = encoded(Image.fromarray(ramp), "JPEG", quality=95, exif=exif)
    expected = TURNS[orientation](ramp)
    size = (expected.shape[0] // 8, expected.shape[1] // 8)
    image, native = read_image(content, size)
    assert native == expected.shape[:2]
    blocks = expected.reshape(size[0], 8, size[1], 8, 3).mean(axis=(1, 3))
    # A pixel of a ramp is the mean of its block, away from the borders; JPEG itself is off by 2.
    assert np.abs(image - blocks)[1:-1, 1:-1].max() <= 4


def test_a_jpeg_on_its_side_is_reduced_by_the_sides_that_are_seen():
    """Seen upright, it is 240 high and 160 wide; of that width a half would be too little."""
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = noise()[:160, :240].astype(np.uint8)
    content = encoded(Image.fromarray(stored), "JPEG", exif=exif)
    whole = Image.open(io.BytesIO(content)).transpose(Image.Transpose.ROTATE_270)
    expected = whole.resize((60, 20), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(read_image(content, (20, 60))[0], np.asarray(expected))


def shortcut_error(content: bytes, size: tuple[int, int]) -> np.ndarray:
    """How many levels each pixel is away from that of a full decode, resized in the same way."""
    whole = Image.open(io.BytesIO(content)).convert("RGB")
    expected = np.asarray(whole.resize((size[1], size[0]), Image.Resampling.BILINEAR)).astype(int)
    return np.abs(read_image(content, size)[0] - expected)


def waves() -> np.ndarray:
    y, x = np.indices((640, 960))
    phases = (x / 960 + y / 640, x / 480 + y / 1280, x / 1920 + y / 213)
    return np.stack([127 + 120 * np.sin(2 * np.pi * phase) for phase in phases], axis=-1)


def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (640, 960, 3))


# The largest errors measured over these sizes were: waves 0.3 on average and 2 at worst; noise,
# which no photograph is as rough as, 4.2 and 26.
@pytest.mark.parametrize("size", [(64, 96), (80, 120), (150, 200), (213, 320)], ids=str)
@pytest.mark.parametrize(
    ("draw", "mean", "worst"), [(waves, 0.5, 3), (noise, 6, 36)], ids=["waves", "noise"]
)
def test_a_reduced_jpeg_is_close_to_a_full_one(draw, mean, worst, size: tuple[int, int]):
    content = encoded(Image.fromarray(draw().astype(np.uint8)), "JPEG", quality=90)
    error = shortcut_error(content, size)
    assert error.any(), "nothing was reduced"
    assert error.mean() <= mean
    assert error.max() <= worst


def test_a_jpeg_of_less_than_three_times_the_size_is_decoded_in_full():
    content = encoded(Image.fromarray(noise().astype(np.uint8)), "JPEG")
    assert not shortcut_error(content, (214, 320)).any()


# On 24 of these photographs, the worst average was 0.69 levels at (128, 192), where 99 % of the
# pixels were within 12; single pixels on the cars' edges were up to 31 away.
@pytest.mark.parametrize("size", [(64, 96), (128, 192), (320, 480)], ids=str)
def test_reduced_photographs_are_close_to_full_ones(size: tuple[int, int]):
    for path in sorted(Path(real("carvana"), "train").iterdir())[::71]:
        error = shortcut_error(path.read_bytes(), size)
        assert error.mean() <= 1
        assert np.quantile(error, 0.99) <= 16

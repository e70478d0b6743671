"""Hundreds of malformed inputs, each refused by name; and whatever is well-formed comes back whole.

Inputs are drawn by Hypothesis, the same ones in every run. An input counts as refused when opening
the set raises `DataError` and the message has the file's name; any other exception, a warning, or
pixels that are not the file's, is a failure. `REFUSED` says how many different inputs of each kind
must have been refused, and that these are 500 altogether. A hang is a failure, too: no test takes
6 seconds, so a minute's limit is one.
"""

import io
import itertools
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from drawing import contents, draw, draw_classes, masks, open_set, save_image
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from unet_jax.datasets import DataError

REFUSED = {
    "truncated images": 110,
    "truncated masks": 75,
    "PNGs with a flipped bit": 100,
    "other images with a flipped bit": 10,
    "other masks with a flipped bit": 25,
    "noise": 50,
    "texts": 25,
    "masks of another size": 35,
    "masks with other values": 35,
    "masks as JPEG": 35,
    "masks of too many colours": 25,
    "truncated zips": 45,
    "zips with a flipped bit": 70,
    "lines of class_dict.csv": 50,
    "lines of train.txt": 50,
    "descriptions": 50,
    "lines of objectInfo150.txt": 50,
}
SIZE = (12, 18)
pytestmark = pytest.mark.timeout(60)


def test_five_hundred_inputs_are_refused():
    assert sum(REFUSED.values()) >= 500


def every(strategy: st.SearchStrategy, examples: int, check: Callable[[Any], object]) -> set:
    """Checks as many inputs, the same ones every time; returns what the check says of them."""
    said = set()

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(strategy)
    def run(drawn: Any) -> None:
        said.add(check(drawn))

    run()
    return said - {None}


class Case:
    """A data set one of whose files is broken in many ways."""

    def __init__(self, place: Path, dataset: str, **config: object) -> None:
        self.data, self.dataset, self.config = place / "data", dataset, config
        self.prepared = (place / str(n) for n in itertools.count())  # No run sees another's.

    def open(self) -> list:
        return contents(open_set(self.dataset, self.data, next(self.prepared), SIZE, **self.config))

    def outcome(self) -> list | str:
        """What is stored; or, if the set is refused, what is said of it."""
        try:
            return self.open()
        except DataError as error:
            return str(error)

    def refuses(self, name: str) -> bool:
        """Whether the set is refused; then the file must be named."""
        outcome = self.outcome()
        if isinstance(outcome, str):
            assert name in outcome
        return isinstance(outcome, str)

    def breaks(self, path: Path, content: bytes) -> bytes | None:
        """The content, if it is refused in place of the file's own, under its name."""
        good = path.read_bytes()
        path.write_bytes(content)
        try:
            return content if self.refuses(path.name) else None
        finally:
            path.write_bytes(good)


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def indexed(ids: np.ndarray) -> Image.Image:
    mask = Image.fromarray(ids)
    mask.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    return mask


IMAGE = Image.fromarray(draw(0, SIZE)[0])
IDS = draw_classes(0, 3, SIZE)
MASK = indexed(IDS)
KINDS = {"png": "PNG", "jpg": "JPEG", "bmp": "BMP", "tif": "TIFF", "gif": "GIF", "ppm": "PPM"}
KINDS |= {"webp": "WEBP"}
IMAGES = {suffix: encoded(IMAGE, kind) for suffix, kind in KINDS.items()}
MASKS = {suffix: encoded(MASK, KINDS[suffix], optimize=False) for suffix in ("png", "gif", "tif")}
MASKS["bmp"] = encoded(Image.fromarray(IDS), "BMP")


@pytest.fixture
def folder(tmp_path: Path) -> Case:
    """Two pairs, `a` and `b`; masks hold 0, 1 and 2."""
    description = tmp_path / "description.yaml"
    description.write_text(yaml.safe_dump({"classes": ["x", "y", "z"]}))
    case = Case(tmp_path, "folder", description=description)
    for name in "ab":
        save_image(draw(0, SIZE)[0], case.data / "images" / f"{name}.png")
        save_image(IDS, case.data / "masks" / f"{name}.png")
    return case


def replace(case: Case, folder: str, suffix: str, content: bytes) -> Path:
    """Puts another file in the place of `b`."""
    for path in (case.data / folder).glob("b.*"):
        path.unlink()
    path = case.data / folder / f"b.{suffix}"
    path.write_bytes(content)
    return path


places = st.integers(0, 2**31)


def spoil(
    case: Case,
    folder: str,
    originals: dict[str, bytes],
    change: Callable[[bytes, int], bytes],
    examples: int,
    *,
    whole: bool,
) -> set:
    """Changes the file `b` of either folder, in every format.

    Args:
      case: The set.
      folder: `images` or `masks`.
      originals: The file by its suffix.
      change: Makes bad bytes of good ones and a number.
      examples: How many times, over all formats.
      whole: Whether a file that is still accepted must be the good one, pixel for pixel.

    Returns:
      Suffix and content of all that were refused.
    """
    good = (case.data / folder / "b.png").read_bytes()
    expected = {}
    for suffix, original in originals.items():
        replace(case, folder, suffix, original)
        expected[suffix] = case.open()

    def check(drawn: tuple[str, int]) -> tuple[str, bytes] | None:
        suffix, place = drawn
        content = change(originals[suffix], place)
        path = replace(case, folder, suffix, content)
        outcome = case.outcome()
        if isinstance(outcome, str):
            assert f"{folder}/{path.name}" in outcome
            return suffix, content
        assert not whole or outcome == expected[suffix]
        ids = {value for sample in outcome for value in sample[3]}
        assert ids <= {0, 1, 2}
        return None

    refused = every(st.tuples(st.sampled_from(sorted(originals)), places), examples, check)
    replace(case, folder, "png", good)
    return refused


def cut(content: bytes, place: int) -> bytes:
    return content[: place % len(content)]


def flip(content: bytes, place: int) -> bytes:
    """Another value of one bit."""
    flipped = bytearray(content)
    flipped[place // 8 % len(content)] ^= 1 << place % 8
    return bytes(flipped)


def test_truncated_images(folder: Case):
    refused = spoil(folder, "images", IMAGES, cut, 120, whole=True)
    assert len(refused) >= REFUSED["truncated images"]


def test_truncated_masks(folder: Case):
    refused = spoil(folder, "masks", MASKS, cut, 90, whole=True)
    assert len(refused) >= REFUSED["truncated masks"]


def test_pngs_with_a_flipped_bit(folder: Case):
    """Every part of a PNG has a checksum, so that none is read as something else."""
    refused = spoil(folder, "masks", {"png": MASKS["png"]}, flip, 60, whole=True)
    refused |= spoil(folder, "images", {"png": IMAGES["png"]}, flip, 60, whole=True)
    assert len(refused) >= REFUSED["PNGs with a flipped bit"]


def test_other_images_with_a_flipped_bit(folder: Case):
    """Without checksums most of these are good files of another picture."""
    others = {suffix: IMAGES[suffix] for suffix in IMAGES if suffix != "png"}
    refused = spoil(folder, "images", others, flip, 60, whole=False)
    assert len(refused) >= REFUSED["other images with a flipped bit"]


def test_other_masks_with_a_flipped_bit(folder: Case):
    others = {suffix: MASKS[suffix] for suffix in MASKS if suffix != "png"}
    refused = spoil(folder, "masks", others, flip, 80, whole=False)
    assert len(refused) >= REFUSED["other masks with a flipped bit"]


ANYWHERE = st.sampled_from(["images", "masks"])
SIGNATURES = st.sampled_from([b"", *(content[:26] for content in IMAGES.values())])


def test_noise(folder: Case):
    """Bytes that no image begins with, or begins with only."""

    def check(drawn: tuple[str, bytes, bytes]) -> bytes | None:
        place, start, rest = drawn
        return folder.breaks(folder.data / place / "b.png", start + rest)

    drawn = st.tuples(ANYWHERE, SIGNATURES, st.binary(max_size=60))
    assert len(every(drawn, 60, check)) >= REFUSED["noise"]


def test_texts(folder: Case):
    def check(drawn: tuple[str, str]) -> bytes | None:
        place, text = drawn
        return folder.breaks(folder.data / place / "b.png", text.encode())

    assert len(every(st.tuples(ANYWHERE, st.text()), 30, check)) >= REFUSED["texts"]


def test_masks_of_another_size(folder: Case):
    def check(size: tuple[int, int]) -> tuple[int, int] | None:
        path = folder.data / "masks" / "b.png"
        refused = folder.breaks(path, encoded(Image.fromarray(np.zeros(size, "u1")), "PNG"))
        assert (refused is None) == (size == SIZE)
        return size if refused else None

    sides = st.integers(1, 40)
    assert len(every(st.tuples(sides, sides), 40, check)) >= REFUSED["masks of another size"]


def test_masks_with_other_values(folder: Case):
    """One pixel of one other value is enough, in any encoding of numbers."""

    def check(drawn: tuple[str, int, int]) -> tuple[str, int, int] | None:
        kind, value, place = drawn
        if kind in ("u1", "palette", "RGB"):
            value %= 256
        ids = IDS.astype("u1" if kind in ("palette", "RGB") else kind)
        ids.flat[place % ids.size] = value
        mask = Image.fromarray(ids)
        if kind == "palette":
            mask.putpalette(bytes(768))
        elif kind == "RGB":
            mask = mask.convert("RGB")
        path = folder.data / "masks" / "b.png"
        refused = folder.breaks(path, encoded(mask, "TIFF" if kind == "i4" else "PNG"))
        assert (refused is None) == (0 <= value <= 2)
        return drawn if refused else None

    kinds = st.sampled_from(["u1", "u2", "i4", "palette", "RGB"])
    drawn = st.tuples(kinds, st.integers(0, 65535), places)
    assert len(every(drawn, 50, check)) >= REFUSED["masks with other values"]


def test_masks_as_jpeg(folder: Case):
    """Under any name, of any quality, in grey or in colour."""

    def check(drawn: tuple[str, int, str]) -> tuple[str, int, str]:
        suffix, quality, mode = drawn
        content = encoded(Image.fromarray(IDS * 100).convert(mode), "JPEG", quality=quality)
        replace(folder, "masks", suffix, content)
        with pytest.raises(DataError, match=rf"masks/b\.{suffix}: is a JPEG"):
            folder.open()
        return drawn

    suffixes = st.sampled_from(["jpg", "jpeg", "png", "gif"])
    drawn = st.tuples(suffixes, st.integers(1, 100), st.sampled_from(["L", "RGB", "CMYK"]))
    assert len(every(drawn, 40, check)) >= REFUSED["masks as JPEG"]


def test_masks_of_too_many_colours(folder: Case):
    """Nobody said what these mean, and no look at them can tell."""
    folder.config = {}

    def check(drawn: tuple[int, str]) -> tuple[int, str] | None:
        count, mode = drawn
        rng = np.random.default_rng(count)
        colours = rng.choice(256**3, count, replace=False)
        colours = np.stack([colours >> 16, colours >> 8 & 255, colours & 255], -1).astype("u1")
        size = (18, 24)  # Room for all of them.
        ids = draw_classes(count, count, (3 * 18, 3 * 24)).astype(int)[::3, ::3]
        if count > 256:
            ids = np.arange(432).reshape(size) % count
        for name in "ab":
            save_image(draw(0, size)[0], folder.data / "images" / f"{name}.png")
            mask = Image.fromarray(colours[ids]).convert(mode)
            (folder.data / "masks" / f"{name}.png").write_bytes(encoded(mask, "PNG"))
        return drawn if folder.refuses("masks/b.png") else None

    drawn = st.tuples(st.integers(65, 400), st.sampled_from(["RGB", "RGBA"]))
    assert len(every(drawn, 30, check)) >= REFUSED["masks of too many colours"]


@pytest.fixture
def packed(tmp_path: Path) -> Case:
    """Two pairs of Carvana's, in two zips that need no unpacking to be read."""
    case = Case(tmp_path, "carvana")
    case.data.mkdir()
    for folder, suffix in (("train", ""), ("train_masks", "_mask")):
        with zipfile.ZipFile(case.data / f"{folder}.zip", "w", zipfile.ZIP_DEFLATED) as file:
            for seed, car in enumerate("ab"):
                drawn = Image.fromarray(draw(seed, SIZE)[1 if suffix else 0])
                file.writestr(f"{car}_01{suffix}.png", encoded(drawn, "PNG"))
    return case


def spoil_zip(case: Case, change: Callable[[bytes, int], bytes], examples: int) -> set:
    expected = case.open()

    def check(drawn: tuple[str, int]) -> bytes | None:
        name, place = drawn
        path = case.data / name
        good = path.read_bytes()
        path.write_bytes(change(good, place))
        try:
            outcome = case.outcome()
            if not isinstance(outcome, str):
                assert outcome == expected
                return None
            # The zip, or a file in it, or what it stands for, of which nothing is found any more.
            assert re.search(rf"\b{path.stem}\b", outcome)
            return path.read_bytes()
        finally:
            path.write_bytes(good)

    return every(
        st.tuples(st.sampled_from(["train.zip", "train_masks.zip"]), places), examples, check
    )


def test_truncated_zips(packed: Case):
    assert len(spoil_zip(packed, cut, 50)) >= REFUSED["truncated zips"]


def test_zips_with_a_flipped_bit(packed: Case):
    """What is read is right, or is refused; many fields of a zip are of no consequence."""
    assert len(spoil_zip(packed, flip, 100)) >= REFUSED["zips with a flipped bit"]


def spoil_line(case: Case, path: Path, line: st.SearchStrategy[str], examples: int) -> set:
    """Adds a line to a good file; whatever it says, the result is a set or a refusal."""
    good = path.read_bytes()
    return every(line, examples, lambda text: case.breaks(path, good + text.encode()))


# What a person or a program might leave in a text file.
SCRAPS = st.text(st.sampled_from("0179 \t,/.x\"'-:[]{}#\n\0é"), min_size=1, max_size=12)


def published(place: Path, dataset: str, pairs: dict[str, str], mask: np.ndarray = IDS) -> Case:
    """A set of these pairs of an image's and a mask's path."""
    case = Case(place, dataset)
    for image_path, mask_path in pairs.items():
        save_image(draw(0, SIZE)[0], case.data / image_path)
        save_image(mask, case.data / mask_path)
    return case


def test_lines_of_class_dict(tmp_path: Path):
    pairs = {"train/a.png": "train_labels/a_L.png", "val/a.png": "val_labels/a_L.png"}
    colours = np.array([(0, 0, 0), (1, 1, 1), (2, 2, 2)], "u1")
    case = published(tmp_path, "camvid", pairs, colours[IDS])
    path = case.data / "class_dict.csv"
    path.write_text("name,r,g,b\nVoid,0,0,0\nCar,1, 1,1\nBus,2,2,2\n")
    refused = spoil_line(case, path, SCRAPS, 60)
    assert len(refused) >= REFUSED["lines of class_dict.csv"]


def test_lines_of_list_files(tmp_path: Path):
    pairs = {"train/a.png": "trainannot/a.png", "val/a.png": "valannot/a.png"}
    case = published(tmp_path, "camvid", pairs)
    path = case.data / "train.txt"
    path.write_text("/x/train/a.png /x/trainannot/a.png\n")
    refused = spoil_line(case, path, SCRAPS, 60)
    assert len(refused) >= REFUSED["lines of train.txt"]


def test_lines_of_object_info(tmp_path: Path):
    paths = [f"{{}}/{split}/a.png" for split in ("training", "validation")]
    pairs = {path.format("images"): path.format("annotations") for path in paths}
    case = published(tmp_path, "ade20k", pairs)
    path = case.data / "objectInfo150.txt"
    path.write_text("\n".join(["head", *(f"{n}\t0\t0\t0\tc{n}" for n in range(1, 151)), ""]))
    refused = spoil_line(case, path, SCRAPS, 60)
    assert len(refused) >= REFUSED["lines of objectInfo150.txt"]


def test_descriptions(folder: Case):
    path = folder.config["description"]
    assert isinstance(path, Path)
    refused = spoil_line(folder, path, SCRAPS, 60)
    assert len(refused) >= REFUSED["descriptions"]


def grey(ids: np.ndarray, values: np.ndarray) -> Iterator[tuple[str, bytes, dict]]:
    picture, told = Image.fromarray(values.astype("u1")[ids]), {"values": values.tolist()}
    yield "png", encoded(picture, "PNG"), told
    yield "bmp", encoded(picture, "BMP"), told
    yield "tif", encoded(picture, "TIFF"), told
    yield "png", encoded(picture.convert("RGB"), "PNG"), told
    deep = Image.fromarray((values.astype("u2") * 257)[ids])
    told = {"values": (values * 257).tolist()}
    yield "png", encoded(deep, "PNG"), told
    yield "tif", encoded(deep, "TIFF"), told


def coloured(ids: np.ndarray, values: np.ndarray) -> Iterator[tuple[str, bytes, dict]]:
    colours = np.stack([values, 255 - values, values ^ 85], -1).astype("u1")
    told = {"colours": colours.tolist()}
    yield "png", encoded(Image.fromarray(colours[ids]), "PNG"), told
    yield "webp", encoded(Image.fromarray(colours[ids]), "WEBP", lossless=True, exact=True), told
    picture = Image.fromarray(ids)
    picture.putpalette(colours.tobytes())
    told_indices = {"values": list(range(len(values)))}
    for kind in ("PNG", "GIF"):
        yield kind.lower(), encoded(picture, kind, optimize=False), told_indices
        yield kind.lower(), encoded(picture, kind, optimize=True), told


@st.composite
def drawings(draw_: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
    """An image, ids, what stands for each of them, and whether the first is ignored."""
    size = draw_(st.tuples(st.integers(1, 24), st.integers(1, 24)))
    values = draw_(st.lists(st.integers(0, 255), min_size=3, max_size=40, unique=True))
    rng = np.random.default_rng(draw_(st.integers(0, 99)))
    ids = rng.integers(0, len(values), size).astype("u1")
    image = rng.integers(0, 256, (*size, 3)).astype("u1")
    return image, ids, np.array(values), draw_(st.booleans())


@pytest.mark.parametrize("write", [grey, coloured])
def test_every_encoding_comes_back_as_the_same_ids(write: Callable, tmp_path: Path):
    case = Case(tmp_path, "folder", description=tmp_path / "description.yaml")

    def check(drawn: tuple[np.ndarray, np.ndarray, np.ndarray, bool]) -> None:
        image, ids, values, ignored = drawn
        for suffix, content, told in write(ids, values):
            shutil.rmtree(case.data, ignore_errors=True)
            save_image(image, case.data / "images" / "a.png")
            (case.data / "masks").mkdir()
            (case.data / "masks" / f"a.{suffix}").write_bytes(content)
            ((field, keys),) = told.items()
            fields = {field: keys[ignored:], "ignore": keys[:ignored]}
            fields["classes"] = [f"class {n}" for n in range(len(keys) - ignored)]
            (tmp_path / "description.yaml").write_text(yaml.safe_dump(fields))
            size = ids.shape
            builder = open_set("folder", case.data, next(case.prepared), size, **case.config)
            expected = np.where(ids == 0, 255, ids.astype(int) - 1) if ignored else ids
            np.testing.assert_array_equal(masks(builder)["a"], expected)
            np.testing.assert_array_equal(builder.records()[0]["image"], image)
            assert builder.facts.native == [list(size)]

    every(drawings(), 12, check)


def test_colours_that_nobody_named_come_back_as_classes_in_their_order(tmp_path: Path):
    case = Case(tmp_path, "folder")

    def check(drawn: tuple[int, int]) -> None:
        count, seed = drawn
        rng = np.random.default_rng(seed)
        numbers = np.sort(rng.choice(np.arange(1, 256**3, 17), count, replace=False))
        colours = np.stack([numbers >> 16, numbers >> 8 & 255, numbers & 255], -1).astype("u1")
        ids = draw_classes(seed, count, (24, 36))
        save_image(draw(seed, (24, 36))[0], case.data / "images" / "a.png")
        save_image(colours[ids], case.data / "masks" / "a.png")
        builder = open_set("folder", case.data, next(case.prepared), (24, 36))
        assert builder.facts.palette == colours.tolist()
        np.testing.assert_array_equal(masks(builder)["a"], ids)

    every(st.tuples(st.integers(2, 64), st.integers(0, 99)), 20, check)

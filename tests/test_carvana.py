"""Carvana as Kaggle ships it: every layout reads the same, and every bad file is named."""

import io
import os
import shutil
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unet_jax.config import DataConfig
from unet_jax.datasets import DataError, PairBuilder, open_dataset
from unet_jax.datasets.carvana import COMPETITION

CARS, VIEWS = ("00087a6bd4dc", "0cdf5b5d0ce1", "ff_9d5c1b2a77"), ("01", "05", "16")
# Height and width. No target pixel's centre falls on the border of two source pixels.
NATIVE, SIZE = (40, 60), (16, 32)
REAL = Path(__file__).parents[2] / "shared" / "data" / "carvana"


def draw(seed: int, size: tuple[int, int] = NATIVE) -> tuple[np.ndarray, np.ndarray]:
    """An image with coarse and fine texture, and a ragged mask of 0 and 1."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 200, (*(-(-n // 8) for n in size), 3)).repeat(8, 0).repeat(8, 1)
    image = coarse[: size[0], : size[1]] + rng.integers(0, 56, (*size, 3))
    y, x = np.indices(size)
    mask = np.hypot(y - size[0] / 2, x - size[1] / 2) < rng.uniform(9, 16) + 2 * np.sin(x)
    return image.astype(np.uint8), mask.astype(np.uint8)


def save_mask(mask: np.ndarray, path: Path) -> None:
    """A palette GIF; its pixels are indices, which Pillow would otherwise renumber."""
    picture = Image.fromarray(mask)
    picture.putpalette([0, 0, 0, 255, 255, 255])
    picture.save(path, optimize=False)
    assert np.array_equal(np.asarray(Image.open(path)), mask)


def write(folder: Path, cars: Sequence[str] = CARS, views: Sequence[str] = VIEWS) -> Path:
    """`train/CAR_VIEW.jpg` and `train_masks/CAR_VIEW_mask.gif`, as in the competition."""
    (folder / "train").mkdir(parents=True)
    (folder / "train_masks").mkdir()
    for seed, name in enumerate(f"{car}_{view}" for car in cars for view in views):
        image, mask = draw(seed)
        Image.fromarray(image).save(folder / "train" / f"{name}.jpg", quality=90)
        save_mask(mask, folder / "train_masks" / f"{name}_mask.gif")
    return folder


def zipped(folder: Path, top: str = "", junk: bool = False) -> bytes:
    """The folder's files as a zip, under `top`, with what macOS adds."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        names = sorted(path.name for path in folder.iterdir())
        for name in names:
            archive.write(folder / name, top + name)
        if junk:
            archive.writestr(f"{top}.DS_Store", b"\0\0\0\1Bud1")
            for name in names:
                archive.writestr(f"{top}._{name}", b"\0\5\26\7")
                archive.writestr(f"__MACOSX/{top}._{name}", b"\0\5\26\7")
                archive.writestr(f"__MACOSX/{top}{name}", b"junk under a good name")
    return buffer.getvalue()


def as_zips(source: Path, target: Path, *, top: bool = False, junk: bool = False) -> None:
    target.mkdir()
    for name in ("train", "train_masks"):
        prefix = f"{name}/" if top else ""
        (target / f"{name}.zip").write_bytes(zipped(source / name, prefix, junk))


def as_nested_zip(source: Path, target: Path) -> None:
    target.mkdir()
    with zipfile.ZipFile(target / f"{COMPETITION}.zip", "w", zipfile.ZIP_DEFLATED) as outer:
        outer.writestr("metadata.csv.zip", b"not looked at")
        for name in ("train", "train_masks"):
            outer.writestr(f"{name}.zip", zipped(source / name, f"{name}/"))


def as_mixture(source: Path, target: Path) -> None:
    as_zips(source, target)
    (target / "train.zip").unlink()
    shutil.copytree(source / "train", target / "train")


def open_set(data_dir: Path | None, prepared_dir: Path, size: tuple[int, int] = SIZE):
    config = DataConfig(dataset="carvana", data_dir=data_dir, prepared_dir=prepared_dir, size=size)
    return open_dataset(config)


def refused(data_dir: Path | None, prepared_dir: Path) -> str:
    """The message under which the set is refused."""
    with pytest.raises(DataError) as caught:
        open_set(data_dir, prepared_dir)
    return str(caught.value)


def contents(builder: PairBuilder) -> list[tuple[str, str, bytes, bytes]]:
    """Name, group, image and mask of every stored sample."""
    stored = builder.records()
    assert len(stored) == len(builder.names()) == len(builder.groups())
    return [
        (name, group, record["image"].tobytes(), record["mask"].tobytes())
        for name, group, record in zip(builder.names(), builder.groups(), stored, strict=True)
    ]


def files(folder: Path) -> dict[str, int]:
    """Every file under the folder, with the time of its last change."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in found}


@pytest.fixture(scope="session")
def kaggle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read-only: tests that change files take a copy."""
    return write(tmp_path_factory.mktemp("carvana") / "kaggle")


@pytest.fixture(scope="session")
def prepared(kaggle: Path, tmp_path_factory: pytest.TempPathFactory) -> PairBuilder:
    return open_set(kaggle, tmp_path_factory.mktemp("prepared"))


@pytest.fixture
def copy(kaggle: Path, tmp_path: Path) -> Path:
    return shutil.copytree(kaggle, tmp_path / "copy")


@pytest.fixture
def one_car(tmp_path: Path) -> Path:
    return write(tmp_path / "one_car", cars=("car",), views=("01", "02"))


def test_records_are_the_files_resized(kaggle: Path, prepared: PairBuilder):
    names = [f"{car}_{view}" for car in CARS for view in VIEWS]
    assert prepared.names() == names
    for name, record in zip(names, prepared.records(), strict=True):
        image = Image.open(kaggle / "train" / f"{name}.jpg")
        small = image.resize((SIZE[1], SIZE[0]), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(record["image"], np.asarray(small))
        mask = np.asarray(Image.open(kaggle / "train_masks" / f"{name}_mask.gif"))
        # The nearest source pixel is the one that holds the target pixel's centre.
        rows, columns = (
            ((np.arange(new) + 0.5) * old / new).astype(int)
            for new, old in zip(SIZE, NATIVE, strict=True)
        )
        np.testing.assert_array_equal(record["mask"], mask[np.ix_(rows, columns)])
        assert record["image"].dtype == record["mask"].dtype == np.uint8
        assert set(np.unique(record["mask"])) == {0, 1}


def test_groups_are_cars(prepared: PairBuilder):
    assert prepared.groups() == [car for car in CARS for _ in VIEWS]


@pytest.mark.parametrize(
    "layout",
    [
        pytest.param(lambda s, t: shutil.copytree(s, t), id="folders"),
        pytest.param(lambda s, t: as_zips(s, t), id="zips"),
        pytest.param(lambda s, t: as_zips(s, t, top=True), id="zips with a top folder"),
        pytest.param(lambda s, t: as_zips(s, t, top=True, junk=True), id="zips made on macOS"),
        pytest.param(lambda s, t: as_nested_zip(s, t), id="competition zip"),
        pytest.param(lambda s, t: as_mixture(s, t), id="one folder and one zip"),
    ],
)
def test_every_layout_reads_the_same(
    layout: Callable[[Path, Path], None], kaggle: Path, prepared: PairBuilder, tmp_path: Path
):
    layout(kaggle, tmp_path / "data")
    assert contents(open_set(tmp_path / "data", tmp_path / "prepared")) == contents(prepared)


def test_files_that_macos_leaves_in_folders_are_passed_over(copy: Path, tmp_path: Path):
    (copy / "train" / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (copy / "train" / "._ff_01.jpg").write_bytes(b"\0\5\26\7")
    (copy / "train" / "notes.txt").write_text("not an image")
    assert len(open_set(copy, tmp_path / "prepared").names()) == len(CARS) * len(VIEWS)


@pytest.mark.parametrize("spelling", ["0 and 255", "1-bit PNG", "all car", "all 255", "no car"])
def test_masks_may_be_spelt(spelling: str, one_car: Path, tmp_path: Path):
    folder = one_car / "train_masks"
    for path in sorted(folder.iterdir()):
        mask = np.asarray(Image.open(path))
        path.unlink()
        if spelling == "0 and 255":
            Image.fromarray(mask * np.uint8(255)).save(path.with_suffix(".png"))
        elif spelling == "1-bit PNG":
            Image.fromarray(mask > 0).save(path.with_suffix(".png"))
        else:
            value = {"all car": 1, "all 255": 255, "no car": 0}[spelling]
            save_mask(np.full_like(mask, value), path)
    stored = [record["mask"] for record in open_set(one_car, tmp_path / "p", NATIVE).records()]
    drawn = [draw(seed)[1] for seed in range(2)]
    for mask, original in zip(stored, drawn, strict=True):
        if spelling.startswith(("all", "no")):
            original = np.full(NATIVE, spelling != "no car")
        np.testing.assert_array_equal(mask, original)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_images_become_rgb(mode: str, one_car: Path, tmp_path: Path):
    path = one_car / "train" / "car_01.jpg"
    Image.open(path).convert(mode).save(path)
    stored = open_set(one_car, tmp_path / "prepared", NATIVE).records()[0]["image"]
    np.testing.assert_array_equal(stored, np.asarray(Image.open(path).convert("RGB")))


@pytest.mark.parametrize("layout", ["folders", "zips"])
def test_a_second_open_writes_nothing(layout: str, kaggle: Path, tmp_path: Path):
    data = kaggle
    if layout == "zips":
        as_zips(kaggle, data := tmp_path / "zips")
    first = contents(open_set(data, tmp_path / "prepared"))
    written = files(tmp_path / "prepared")
    assert written
    assert contents(open_set(data, tmp_path / "prepared")) == first
    assert files(tmp_path / "prepared") == written


def pad(path: Path) -> None:
    """One length for all files, so that no length gives a change away."""
    content = path.read_bytes()
    assert len(content) <= 16384
    path.write_bytes(content.ljust(16384, b"\0"))


def repaint(path: Path) -> None:
    """Other pixels, and a time of change that even a coarse clock tells from the first."""
    picture = Image.open(path)
    flipped = picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    before = path.stat().st_mtime_ns
    flipped.save(path)
    pad(path)
    os.utime(path, ns=(before + 10**9, before + 10**9))


@pytest.mark.parametrize("changed", ["train", "train_masks"])
@pytest.mark.parametrize("layout", ["folders", "zips", "image and mask of one name"])
def test_a_changed_source_is_prepared_anew(
    layout: str, changed: str, one_car: Path, tmp_path: Path
):
    data = one_car
    if layout == "image and mask of one name":
        for path in [*one_car.glob("train/*"), *one_car.glob("train_masks/*")]:
            Image.open(path).save(path.with_name(path.stem.removesuffix("_mask") + ".png"))
            path.unlink()
    for path in [*one_car.glob("train/*"), *one_car.glob("train_masks/*")]:
        pad(path)
    if layout == "zips":
        as_zips(one_car, data := tmp_path / "zips")
    before = contents(open_set(data, tmp_path / "prepared"))
    repaint(sorted((one_car / changed).iterdir())[0])
    if layout == "zips":
        shutil.rmtree(data)
        as_zips(one_car, data)
    after = contents(open_set(data, tmp_path / "prepared"))
    column = 2 if changed == "train" else 3
    assert after[0][column] != before[0][column]
    assert after[1] == before[1]


def test_another_size_is_prepared_beside(kaggle: Path, prepared: PairBuilder):
    folder = Path(prepared.data_path).parents[2]
    written = files(folder)
    other = open_set(kaggle, folder, (8, 12))
    assert other.records()[0]["image"].shape == (8, 12, 3)
    assert {name: files(folder)[name] for name in written} == written
    assert prepared.records()[0]["image"].shape == (*SIZE, 3)


ADVICE = (f"kaggle competitions download -c {COMPETITION}", "--dataset shapes")


def test_no_data_dir(tmp_path: Path):
    message = refused(None, tmp_path / "prepared")
    assert all(part in message for part in ("--data-dir", *ADVICE))


@pytest.mark.parametrize("kind", ["missing", "a file", "empty"])
def test_a_folder_without_data(kind: str, tmp_path: Path):
    place = tmp_path / "data"
    if kind == "a file":
        place.write_text("")
    elif kind == "empty":
        place.mkdir()
    message = refused(place, tmp_path / "prepared")
    for part in (str(place), "train/", "train.zip", "train_masks/", f"{COMPETITION}.zip", *ADVICE):
        assert part in message
    assert ("which is not a folder" in message) == (kind != "empty")


def test_only_what_is_missing_is_asked_for(copy: Path, tmp_path: Path):
    shutil.rmtree(copy / "train_masks")
    message = refused(copy, tmp_path / "prepared")
    assert "train_masks/ or train_masks.zip" in message
    assert "train/" not in message


def test_a_train_folder_without_images(copy: Path, tmp_path: Path):
    for path in [*copy.glob("train/*"), *copy.glob("train_masks/*")]:
        path.unlink()
    message = refused(copy, tmp_path / "prepared")
    assert str(copy / "train") in message
    assert all(part in message for part in ADVICE)


@pytest.mark.parametrize("layout", ["folders", "zips"])
@pytest.mark.parametrize(
    ("lost", "complaint"),
    [
        ("train_masks/car_02_mask.gif", "car_02.jpg: has no mask"),
        ("train/car_01.jpg", "car_01_mask.gif: has no image"),
    ],
    ids=["image without mask", "mask without image"],
)
def test_unpaired(lost: str, complaint: str, layout: str, one_car: Path, tmp_path: Path):
    (one_car / lost).unlink()
    data = one_car
    if layout == "zips":
        as_zips(one_car, data := tmp_path / "zips")
    message = refused(data, tmp_path / "prepared")
    assert complaint in message
    assert "1 files" in message


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def shrink(path: Path) -> None:
    save_mask(draw(0, (NATIVE[0], NATIVE[1] - 2))[1], path)


def third_class(path: Path) -> None:
    save_mask(draw(0)[1] + 6 * (draw(1)[1] & draw(0)[1]) * np.eye(*NATIVE, dtype=np.uint8), path)


def many_values(path: Path) -> None:
    Image.fromarray(np.arange(40 * 60, dtype=np.uint8).reshape(NATIVE)).save(path)


def in_colour(path: Path) -> None:
    Image.fromarray(draw(0)[0]).save(path, format="png")


@pytest.mark.parametrize("layout", ["folders", "zips"])
@pytest.mark.parametrize(
    ("bad", "spoil", "reason"),
    [
        pytest.param("train/car_02.jpg", truncate, "cannot be decoded", id="truncated JPEG"),
        pytest.param(
            "train/car_02.jpg", lambda p: p.write_text("hello"), "cannot be decoded", id="text"
        ),
        pytest.param(
            "train/car_02.jpg", lambda p: p.write_bytes(b""), "cannot be decoded", id="empty"
        ),
        pytest.param(
            "train_masks/car_02_mask.gif", truncate, "cannot be decoded", id="truncated GIF"
        ),
        pytest.param("train_masks/car_02_mask.gif", shrink, "40×58 (H×W), but", id="other size"),
        pytest.param("train_masks/car_02_mask.gif", in_colour, "40×60×3", id="mask in colour"),
        pytest.param("train_masks/car_02_mask.gif", third_class, "0, 1, 7;", id="values 0 1 7"),
        pytest.param(
            "train_masks/car_02_mask.gif", many_values, "0, 1, 2, 3, 4, 5, 6, 7, …", id="values 0…"
        ),
    ],
)
def test_a_bad_file_is_named_and_leaves_nothing(
    bad: str,
    spoil: Callable[[Path], None],
    reason: str,
    layout: str,
    one_car: Path,
    tmp_path: Path,
):
    good = (one_car / bad).read_bytes()
    spoil(one_car / bad)
    data = one_car
    if layout == "zips":
        as_zips(one_car, data := tmp_path / "zips", top=True)
    message = refused(data, tmp_path / "prepared")
    assert message.startswith("1 Carvana files cannot be used:\n")
    assert f"  {Path(bad).name}: " in message
    assert reason in message
    assert files(tmp_path / "prepared") == {}
    (one_car / bad).write_bytes(good)
    if layout == "zips":
        shutil.rmtree(data)
        as_zips(one_car, data, top=True)
    assert len(open_set(data, tmp_path / "prepared").records()) == 2


def test_every_bad_file_is_named_at_once(one_car: Path, tmp_path: Path):
    truncate(one_car / "train" / "car_01.jpg")
    shrink(one_car / "train_masks" / "car_02_mask.gif")
    message = refused(one_car, tmp_path / "prepared")
    assert "2 Carvana files" in message
    assert "  car_01.jpg: " in message
    assert "  car_02_mask.gif: " in message


@pytest.mark.parametrize("fault", ["undecodable", "unpaired"])
@pytest.mark.parametrize("count", [20, 23])
def test_a_long_list_ends_in_a_count(fault: str, count: int, tmp_path: Path):
    views = [f"{n:02}" for n in range(1, count + 1)]
    data = write(tmp_path / "data", cars=("car",), views=views)
    for path in (data / "train").iterdir():
        path.unlink() if fault == "unpaired" else path.write_text("hello")
    message = refused(data, tmp_path / "prepared")
    title, *lines = message.splitlines()
    assert f"{count} " in title
    assert [line.split(":")[0].removesuffix("_mask.gif") for line in lines[:20]] == [
        f"  car_{view}{'.jpg' if fault == 'undecodable' else ''}" for view in views[:20]
    ]
    assert lines[20:] == (["  … and 3 more"] if count == 23 else [])


@pytest.mark.parametrize("bad", ["train.zip", "train_masks.zip", f"{COMPETITION}.zip"])
def test_a_zip_that_is_none(bad: str, kaggle: Path, tmp_path: Path):
    as_zips(kaggle, tmp_path / "data")
    if bad.startswith(COMPETITION):
        (tmp_path / "data" / "train_masks.zip").unlink()
    (tmp_path / "data" / bad).write_text("<html>Please log in</html>")
    message = refused(tmp_path / "data", tmp_path / "prepared")
    assert str(tmp_path / "data" / bad) in message
    assert "download it again" in message


def test_a_zip_inside_the_competition_zip_that_is_none(kaggle: Path, tmp_path: Path):
    with zipfile.ZipFile(tmp_path / f"{COMPETITION}.zip", "w") as outer:
        outer.writestr("train.zip", zipped(kaggle / "train"))
        outer.writestr("train_masks.zip", b"cut off")
    message = refused(tmp_path, tmp_path / "prepared")
    assert f"{COMPETITION}.zip/train_masks.zip" in message


def test_a_competition_zip_without_the_masks(kaggle: Path, tmp_path: Path):
    with zipfile.ZipFile(tmp_path / f"{COMPETITION}.zip", "w") as outer:
        outer.writestr("train.zip", zipped(kaggle / "train"))
    message = refused(tmp_path, tmp_path / "prepared")
    assert "train_masks/ or train_masks.zip" in message


@pytest.mark.parametrize("damage", ["checksum", "compressed stream"])
def test_a_damaged_zip_member_is_named(damage: str, one_car: Path, tmp_path: Path):
    """The directory at the end of the zip is whole, so only reading the file finds it."""
    as_zips(one_car, tmp_path / "data")
    path = tmp_path / "data" / "train.zip"
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("car_02.jpg")
    content = bytearray(path.read_bytes())
    start = info.header_offset + 30 + len(info.filename)
    if damage == "checksum":
        content[start + info.compress_size // 2] ^= 1
    else:
        content[start] |= 0b111  # Block type 3, which DEFLATE reserves.
    path.write_bytes(content)
    message = refused(tmp_path / "data", tmp_path / "prepared")
    assert "  car_02.jpg: cannot be decoded" in message


def test_the_published_files(tmp_path: Path):
    if not (REAL / "train").is_dir():
        pytest.skip(f"needs the Carvana sample: no {REAL}/train")
    builder = open_set(REAL, tmp_path, (32, 48))
    assert len(builder.records()) == len(set(builder.names())) == 284
    assert len(set(builder.groups())) == 26
    views = np.unique(builder.groups(), return_counts=True)[1]
    assert sorted(views) == [4] * 11 + [16] * 15
    masks = np.stack([record["mask"] for record in builder.records()])
    # Cars fill a fifth of these pictures; the wrong palette index would give four fifths.
    assert 0.15 < masks.mean() < 0.3
    # Seen from any side, a car neither vanishes nor fills its picture.
    share = masks.mean(axis=(1, 2))
    assert share.min() > 0.05
    assert share.max() < 0.5

"""Data sets for the tests, drawn and written in their publishers' layouts."""

import io
import os
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from unet_jax.config import DataConfig
from unet_jax.datasets import DataError, PairBuilder, open_dataset
from unet_jax.draws import ONE_PIXEL, Draw

# Height and width. No target pixel's centre falls on the border of two source pixels.
NATIVE, SIZE = (40, 60), (16, 32)
REAL = Path(os.environ.get("UNET_JAX_DATA") or Path(__file__).parents[2] / "shared" / "data")
RED, GREEN, BLACK, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 0), (255, 255, 255)
Save = Callable[[np.ndarray, Path], None]


def real(name: str) -> Path:
    """The folder of a published set; a test that asks for one that is not there is skipped."""
    if not (REAL / name).is_dir():
        pytest.skip(f"needs the published files: no {REAL / name}; UNET_JAX_DATA says where")
    return REAL / name


def draw(seed: int, size: tuple[int, int] = NATIVE) -> tuple[np.ndarray, np.ndarray]:
    """An image with coarse and fine texture, and a ragged mask of 0 and 1."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 200, (*(-(-n // 8) for n in size), 3)).repeat(8, 0).repeat(8, 1)
    image = coarse[: size[0], : size[1]] + rng.integers(0, 56, (*size, 3))
    y, x = np.indices(size)
    mask = np.hypot(y - size[0] / 2, x - size[1] / 2) < rng.uniform(9, 16) + 2 * np.sin(x)
    return image.astype(np.uint8), mask.astype(np.uint8)


def identity() -> Draw:
    """The draw that changes nothing."""
    return Draw(ONE_PIXEL * np.eye(2, 3, dtype=np.int32), np.array([1, 1, 1, 0, 1], np.float32))


def draw_classes(seed: int, count: int, size: tuple[int, int] = NATIVE) -> np.ndarray:
    """Class ids in blocks of 3 by 3, uint8; every one of them occurs."""
    blocks = [-(-n // 3) for n in size]
    ids = np.arange(blocks[0] * blocks[1]) % count
    np.random.default_rng(seed).shuffle(ids)
    ids = ids.reshape(blocks).repeat(3, 0).repeat(3, 1)
    return ids[: size[0], : size[1]].astype(np.uint8)


def nearest(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Each pixel is the source pixel that holds its centre."""
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(int)
        for new, old in zip(size, array.shape[:2], strict=True)
    )
    return array[np.ix_(rows, columns)]


def save_image(image: np.ndarray, path: Path, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **options)


def save_indexed(mask: np.ndarray, path: Path, palette: Sequence[tuple[int, int, int]]) -> None:
    """A palette image; its pixels are indices, which Pillow would otherwise renumber."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(mask)
    picture.putpalette([channel for colour in palette for channel in colour])
    picture.save(path, optimize=False)
    assert np.array_equal(np.asarray(Image.open(path)), mask)


def save_mask(mask: np.ndarray, path: Path) -> None:
    """A GIF of black and white, as Carvana's."""
    save_indexed(mask, path, [BLACK, WHITE])


def write_kaggle(folder: Path, cars: Sequence[str], views: Sequence[str]) -> Path:
    """`train/CAR_VIEW.jpg` and `train_masks/CAR_VIEW_mask.gif`, as in Carvana's competition."""
    for seed, name in enumerate(f"{car}_{view}" for car in cars for view in views):
        image, mask = draw(seed)
        save_image(image, folder / "train" / f"{name}.jpg", quality=90)
        save_mask(mask, folder / "train_masks" / f"{name}_mask.gif")
    return folder


SPLITS = {"train": ["a", "b", "c"], "val": ["d", "e"]}


def write_segnet(folder: Path, splits: dict[str, list[str]] = SPLITS) -> Path:
    """Masks of 0 to 11, and lists of paths on their author's machine."""
    for split, names in splits.items():
        lines = []
        for name in names:
            save_image(draw(ord(name))[0], folder / split / f"{name}.png")
            save_image(draw_classes(ord(name), 12), folder / f"{split}annot" / f"{name}.png")
            lines.append(
                f"/SegNet/CamVid/{split}/{name}.png /SegNet/CamVid/{split}annot/{name}.png"
            )
        (folder / f"{split}.txt").write_text("\n".join(lines) + "\n")
    return folder


ADE20K_CLASSES = 150
ADE20K_LINES = ["Idx\tRatio\tTrain\tVal\tName"]
ADE20K_LINES += [
    f"{n}\t0.1\t{9 * n}\t{n}\tclass {n}, other {n}" for n in range(1, ADE20K_CLASSES + 1)
]
ADE20K_SIZES = {"b": (30, 44), "c": (52, 36)}
"""Of those pictures that do not have the usual one."""


def ade20k_labels(name: str) -> np.ndarray:
    """Values from 0 to 150, all of which occur."""
    return draw_classes(ord(name), ADE20K_CLASSES + 1, ADE20K_SIZES.get(name, NATIVE))


def write_ade20k(folder: Path, training: str = "ab", validation: str = "c") -> Path:
    """Images, annotations, and the list of classes; a letter names a pair."""
    for split, names in (("training", training), ("validation", validation)):
        for name in names:
            image = draw(ord(name), ADE20K_SIZES.get(name, NATIVE))[0]
            save_image(image, folder / "images" / split / f"{name}.jpg", quality=95)
            save_image(ade20k_labels(name), folder / "annotations" / split / f"{name}.png")
    (folder / "objectInfo150.txt").write_text("\n".join(ADE20K_LINES))
    return folder


NAMES = ("a", "b", "c")
IDS = {name: draw_classes(ord(name), 3) for name in NAMES}


def write_folder(
    folder: Path,
    images: str = "images/{}.png",
    masks: str = "masks/{}.png",
    *,
    names: Sequence[str] = NAMES,
    save: Save = save_image,
) -> Path:
    """Pairs under the given paths; a mask's ids are 0, 1 and 2, written by `save`."""
    for name in names:
        save_image(draw(ord(name))[0], folder / images.format(name))
        (folder / masks.format(name)).parent.mkdir(parents=True, exist_ok=True)
        save(draw_classes(ord(name), 3), folder / masks.format(name))
    return folder


def levels(*values: int, dtype: str = "u1") -> Save:
    return lambda ids, path: save_image(np.array(values, dtype)[ids], path)


def bits(ids: np.ndarray, path: Path) -> None:
    save_image(ids > 0, path)


def palette(*colours: tuple[int, int, int]) -> Save:
    return lambda ids, path: save_indexed(ids, path, colours)


def painted(*colours: tuple[int, int, int]) -> Save:
    return lambda ids, path: save_image(np.array(colours, np.uint8)[ids], path)


def zipped(folder: Path, top: str = "", junk: bool = False) -> bytes:
    """All of the folder's files as a zip, under `top`, with what macOS adds."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        names = sorted(
            path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
        )
        for name in names:
            archive.write(folder / name, top + name)
        if junk:
            archive.writestr(f"{top}.DS_Store", b"\0\0\0\1Bud1")
            for name in names:
                archive.writestr(f"{top}._{name}", b"\0\5\26\7")
                archive.writestr(f"__MACOSX/{top}._{name}", b"\0\5\26\7")
                archive.writestr(f"__MACOSX/{top}{name}", b"junk under a good name")
    return buffer.getvalue()


def as_zips(source: Path, target: Path, *, top: bool = False, junk: bool = False) -> Path:
    """A zip for each of Carvana's two folders."""
    target.mkdir()
    for name in ("train", "train_masks"):
        prefix = f"{name}/" if top else ""
        (target / f"{name}.zip").write_bytes(zipped(source / name, prefix, junk))
    return target


def open_set(
    dataset: str,
    data_dir: Path | None,
    prepared_dir: Path,
    size: tuple[int, int] = SIZE,
    **settings: Any,
) -> PairBuilder:
    places = {"data_dir": data_dir, "prepared_dir": prepared_dir}
    return open_dataset(DataConfig(dataset=dataset, size=size, **places, **settings))  # type: ignore[arg-type]


def refused(dataset: str, data_dir: Path | None, prepared_dir: Path, **settings: Any) -> str:
    """The message under which the set is refused."""
    with pytest.raises(DataError) as caught:
        open_set(dataset, data_dir, prepared_dir, **settings)
    return str(caught.value)


def open_folder(data: Path, tmp_path: Path, **settings: Any) -> PairBuilder:
    return open_set("folder", data, tmp_path / "prepared", NATIVE, **settings)


def refused_folder(data: Path | None, tmp_path: Path, **settings: Any) -> str:
    return refused("folder", data, tmp_path / "prepared", **settings)


def masks(builder: PairBuilder) -> dict[str, np.ndarray]:
    """Every stored mask, by the sample's name."""
    return {
        name: record["mask"]
        for name, record in zip(builder.facts.names, builder.records(), strict=True)
    }


def contents(builder: PairBuilder) -> list[tuple[str, str, bytes, bytes]]:
    """Name, group, image and mask of every stored sample."""
    facts, stored = builder.facts, builder.records()
    return [
        (name, group, record["image"].tobytes(), record["mask"].tobytes())
        for name, group, record in zip(facts.names, facts.groups, stored, strict=True)
    ]


def files(folder: Path) -> dict[str, int]:
    """Every file under the folder but the locks, with the time of its last change."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in found}

"""CamVid, road scenes from a car: 11 classes as SegNet published it, or 32 as Kaggle has it."""

import csv
import io
import re
from collections.abc import Iterator
from pathlib import PurePosixPath

import tensorflow_datasets as tfds

from unet_jax.batch import IGNORED
from unet_jax.datasets.archive import Files, read_text
from unet_jax.datasets.encoding import Encoding, colour_of, number
from unet_jax.datasets.errors import DataError
from unet_jax.datasets.layout import Layout, Pair, match
from unet_jax.datasets.published import Names, PublishedBuilder

SPLITS = ("train", "val", "test")


class CamVid(PublishedBuilder):
    """Masks of 0 to 10, with 11 for void (SegNet); or of colours named in `class_dict.csv`.

    References:
      Brostow et al., 2009. https://doi.org/10.1016/j.patrec.2008.04.005
      Badrinarayanan et al., 2017 (SegNet). https://arxiv.org/abs/1511.00561
    """

    VERSION = tfds.core.Version("1.0.0")
    TITLE = "CamVid"
    LAYOUTS = (
        Names(
            ("train", "trainannot", "val", "valannot"),
            ("test", "testannot", "train.txt", "val.txt", "test.txt"),
        ),
        Names(
            ("train", "train_labels", "val", "val_labels", "class_dict.csv"),
            ("test", "test_labels"),
        ),
    )
    SOURCE = "python scripts/prepare_data.py --dataset camvid --download"
    NAMES = (
        *("sky", "building", "pole", "road", "pavement", "tree"),
        *("sign", "fence", "car", "pedestrian", "bicyclist"),
    )
    PALETTE = (
        *((128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222)),
        *((128, 128, 0), (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192)),
    )

    def layout(self) -> Layout:
        return _kaggle(self.files) if "class_dict.csv" in self.files else self._segnet()

    def _segnet(self) -> Layout:
        encoding = Encoding({**{i: i for i in range(len(self.NAMES))}, 11: IGNORED})
        pairs = []
        seen: set[str] = set()
        for split in SPLITS:
            if f"{split}.txt" in self.files:
                pairs += _listed(self.files, split, seen)
            else:
                pairs += match(self.files, split, f"{split}annot", split=split)
        return Layout(self.files, pairs, [encoding], self.NAMES, self.PALETTE)


def _listed(files: Files, split: str, seen: set[str]) -> list[Pair]:
    """The pairs of a list file, none of a test set whose masks are not there.

    Its paths are its author's: their last two parts are ours.

    Args:
      files: All files.
      split: The list's.
      seen: Paths that other lists have; those of this one are added.

    Raises:
      DataError: A line is not a pair of files that are there, or has one that came before.
    """
    pairs, problems = [], []
    lines = read_text(files, f"{split}.txt").splitlines()
    listed = [["/".join(PurePosixPath(p).parts[-2:]) for p in line.split()] for line in lines]
    if split == "test" and not any(path in files for paths in listed for path in paths[1:]):
        return []  # Its masks are kept back.
    for number_, (line, paths) in enumerate(zip(lines, listed, strict=True), 1):
        missing = [path for path in paths if path not in files]
        if not paths:
            continue
        if len(paths) != 2:
            problems.append(f"{split}.txt, line {number_}: {line!r} is not an image and a mask")
        elif missing:
            problems.append(f"{split}.txt, line {number_}: there is no {' and no '.join(missing)}")
        elif seen.intersection(paths):
            problems.append(f"{split}.txt, line {number_}: {line!r} has been listed before")
        else:
            seen.update(paths)
            name = f"{split}/{PurePosixPath(paths[0]).stem}"
            pairs.append(Pair(name, name, split, *paths))
    if problems:
        raise DataError.listing(f"{split}.txt cannot be followed:", problems)
    return pairs


def _kaggle(files: Files) -> Layout:
    classes, colours, ids = [], [], {}
    for line, (name, value) in _class_dict(files):
        if value in ids:
            raise DataError(f"class_dict.csv, line {line}: {name} has another class's colour")
        if name in classes:
            raise DataError(f"class_dict.csv, line {line}: {name} has a colour already")
        ids[value] = IGNORED if name.lower() == "void" else len(classes)
        if name.lower() != "void":
            classes.append(name)
            colours.append(colour_of(value))
    if not 2 <= len(classes) <= IGNORED:
        raise DataError(f"class_dict.csv: names {len(classes)} classes; 2 to {IGNORED} can be")
    pairs = [
        pair
        for split in SPLITS
        for pair in match(files, split, f"{split}_labels", split=split, suffix="_L")
    ]
    return Layout(files, pairs, [Encoding(ids, colour=True)], classes, colours)


def _class_dict(files: Files) -> Iterator[tuple[int, tuple[str, int]]]:
    """Number of the line, name and colour of each class."""
    try:
        rows = list(csv.reader(io.StringIO(read_text(files, "class_dict.csv"))))
    except csv.Error as error:
        raise DataError(f"class_dict.csv: cannot be read ({error})") from None
    for line, row in enumerate(rows, 1):
        cells = [cell.strip() for cell in row]
        if not any(cells) or cells == ["name", "r", "g", "b"]:
            continue
        name, *channels = cells
        if not name or len(channels) != 3 or not all(map(_is_byte, channels)):
            raise DataError(
                f"class_dict.csv, line {line}: {','.join(row)!r} is not a name and three numbers "
                "from 0 to 255"
            )
        yield line, (name, number(map(int, channels)))


def _is_byte(text: str) -> bool:
    return re.fullmatch("[0-9]{1,3}", text) is not None and int(text) <= 255

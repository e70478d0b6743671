"""Anyone's folders of images and masks: where they lie and what masks mean is found out."""

import re
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import PurePosixPath

import tensorflow_datasets as tfds

from unet_jax.config import DataConfig
from unet_jax.datasets.archive import Files, broken, open_files
from unet_jax.datasets.description import read_description
from unet_jax.datasets.encoding import MaskError
from unet_jax.datasets.errors import DataError
from unet_jax.datasets.files import FileBuilder, opened, quiet
from unet_jax.datasets.guess import Guess, Survey, guess, survey
from unet_jax.datasets.layout import IMAGE_SUFFIXES, Layout, Pair, match
from unet_jax.side_by_side import side_by_side

IMAGES = ("images", "image", "imgs", "img")
MASKS = ("masks", "mask", "labels", "label", "annotations", "annotation", "annot", "gt")
SPLITS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
SPLITS |= {"val": "val", "valid": "val", "validation": "val"}


class Folder(FileBuilder):
    """`images` beside `masks`, alone, or once for each of `train`, `val`, `test`: `train/images`,
    `images/train` or `train_images`. Or images beside their masks, told apart by `mask_suffix`."""

    VERSION = tfds.core.Version("1.1.0")

    @classmethod
    def locate(cls, config: DataConfig) -> Files:
        if config.data_dir is None:
            raise DataError("--dataset folder needs --data-dir: where the images and masks are")
        files = open_files(config.data_dir.expanduser())
        return {path: entry for path, entry in files.items() if _is_picture(path) or entry.problem}

    def fingerprint(self) -> Iterable[str]:
        described = self.config.description and read_description(self.config.description)
        return [*super().fingerprint(), self.config.mask_suffix, repr(described)]

    def layout(self) -> Layout:
        pairs = self._pairs()
        if self.config.description is None:
            found = _look(self.files, [pair.mask for pair in pairs])
            description, palette, reason = found
            note = f"{reason} If they mean something else, say so with --description FILE.yaml."
        else:
            description, note = read_description(self.config.description), ""
            palette = description.palette()
        return Layout(
            files=self.files,
            pairs=pairs,
            encodings=[description.encoding()],
            classes=description.classes,
            palette=palette,
            white=description.white,
            note=note,
        )

    def _pairs(self) -> list[Pair]:
        """Raises:
        DataError: No folders of images and masks are found, or they do not match; or a zip that
          cannot be read has the name of one that is not there.
        """
        suffix, problems = self.config.mask_suffix, broken(self.files)
        pictures = {path: entry for path, entry in self.files.items() if not entry.problem}
        _check_zips(problems, _folders(pictures))
        files = _without_kept_back(pictures, suffix)
        folders = _folders(files)
        pairs, alone = [], []
        for split in ("", "train", "val", "test"):
            if ("mask", split) in folders and ("image", split) in folders:
                images, masks = (_only(folders[role, split], role) for role in ("image", "mask"))
                pairs += match(files, images, masks, split=split, suffix=suffix)
            elif suffix and ("image", split) in folders:
                for folder in sorted(folders["image", split]):
                    pairs += match(files, folder, folder, split=split, suffix=suffix)
            elif split in ("train", "val"):
                for role, other in (("image", "masks"), ("mask", "images")):
                    if (role, split) in folders:
                        alone.append(f"{_only(folders[role, split], role)}: has no {other}")
        if not pairs:
            raise DataError(
                f"no pairs in {self.config.data_dir}: looked for images in folders named "
                f"{', '.join(IMAGES)}, and masks in {', '.join(MASKS)}, also below or above train, "
                "val, test; for masks beside their images give --mask-suffix, as in _mask"
                + "".join(f"\n  {problem}" for problem in problems.values())
            )
        if alone:
            raise DataError.listing("folders of images and masks do not match:", alone)
        places = (found for (role, split), found in folders.items() if role == "image" and split)
        _check_apart(pairs, sorted(set().union(*places)))
        return pairs


def _folders(files: Iterable[str]) -> dict[tuple[str, str], set[str]]:
    """The folders of images and of masks, of each split, by what they are and the split."""
    folders: dict[tuple[str, str], set[str]] = {}
    for path in files:
        role, split, folder = _role(PurePosixPath(path).parent)
        folders.setdefault((role, split), set()).add(folder)
    return folders


def _check_zips(problems: Mapping[str, str], folders: Container[tuple[str, str]]) -> None:
    """Raises:
    DataError: A zip that cannot be read has the name of images or masks that are not there.
    """
    for name, problem in problems.items():
        role, split, named = _role(PurePosixPath(name))
        if named and (role, split) not in folders:
            raise DataError(problem)  # Without it the set would be another.


def _without_kept_back(files: Files, suffix: str) -> Files:
    """Leaves out the images of a test set that has no masks: often they are kept back."""
    roles = {path: _role(PurePosixPath(path).parent) for path in files}
    test = {path: role for path, (role, split, _) in roles.items() if split == "test"}
    beside = suffix and any(PurePosixPath(path).stem.endswith(suffix) for path in test)
    if beside or "mask" in test.values():
        return files
    return {path: entry for path, entry in files.items() if path not in test}


def _check_apart(pairs: Sequence[Pair], places: Sequence[str]) -> None:
    """Raises:
    DataError: A file is in two pairs, or some pairs of training images have a split, some none.
    """
    counts = Counter(path for pair in pairs for path in (pair.image, pair.mask))
    twice = sorted(path for path, count in counts.items() if count > 1)
    loose = [pair.image for pair in pairs if not pair.split and counts[pair.image] == 1]
    if loose and (twice or any(pair.split in ("train", "val") for pair in pairs)):
        raise DataError(
            f"{loose[0]} lies outside of {', '.join(places)}: move it into one of them, with all "
            "that lie there, or out of --data-dir"
        )
    if twice:
        raise DataError.listing(f"files would be in two pairs, of {', '.join(places)}:", twice)


def _is_picture(path: str) -> bool:
    return PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES


def _role(place: PurePosixPath) -> tuple[str, str, str]:
    """What a folder's files are ("image" or "mask"), for which split, and below which folder."""
    parts = place.parts
    words = [re.split(r"[^a-z]+", part.lower()) for part in parts]
    splits = [next((SPLITS[word] for word in each if word in SPLITS), "") for each in words]
    for depth, each in enumerate(words):
        named = [not set(each).isdisjoint(names) for names in (MASKS, IMAGES)]
        role = "mask" if named[0] else "image" if named[1] else ""
        if role:
            below = "" if splits[depth] else "".join(splits[depth + 1 : depth + 2])
            last = depth + 1 if not below else depth + 2
            split = splits[depth] or below or "".join(splits[max(depth - 1, 0) : depth])
            return role, split, "/".join(parts[:last])
    # Neither said: images, as in `train` beside `train_masks`.
    depth = next((depth for depth, split in enumerate(splits) if split), None)
    if depth is None:
        return "image", "", ""
    return "image", splits[depth], "/".join(parts[: depth + 1])


def _only(folders: Iterable[str], role: str) -> str:
    folder, *others = sorted(folders)
    if others:
        places = " and ".join(each or "the top" for each in (folder, others[0]))
        raise DataError(f"both {places} could be the folder of the {role}s")
    return folder


def _look(files: Files, masks: Sequence[str]) -> Guess:
    """Looks at every mask.

    Raises:
      DataError: Names those that cannot be masks; or there are too many values.
    """

    def look(path: str) -> Survey | str:
        try:
            return survey(opened(files[path].read()))
        except MaskError as error:
            return f"{path}: {error}"
        except OSError as error:
            return f"{path}: cannot be decoded ({error})"

    with quiet():
        found = dict(zip(masks, side_by_side(look, masks), strict=True))
    problems = [result for result in found.values() if isinstance(result, str)]
    if problems:
        raise DataError.listing(f"{len(problems)} masks cannot be used:", problems)
    return guess({path: seen for path, seen in found.items() if isinstance(seen, Survey)})

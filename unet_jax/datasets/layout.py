"""Which image goes with which mask, as a publisher laid the files out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import NamedTuple

from unet_jax.datasets.archive import Files
from unet_jax.datasets.encoding import Colour, Encoding
from unet_jax.datasets.errors import DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")


class Pair(NamedTuple):
    """An image and its mask.

    Attributes:
      name: Unique in the data set.
      group: What must not be parted by a split: the car, or the sample itself.
      split: "train", "val" or "test" where the publisher says so, else "".
      image, mask: Paths in the layout's files.
    """

    name: str
    group: str
    split: str
    image: str
    mask: str


@dataclass(frozen=True)
class Layout:
    """A data set's files, understood.

    Attributes:
      files: By path.
      pairs: In the order in which they are stored.
      encodings: What mask values mean; a mask follows one of them throughout.
      classes: Name of each class id.
      palette: RGB colour of each class id.
      white: The value of a grey 16-bit image's white.
      note: How the masks were understood, for people; "" if there is no doubt.
    """

    files: Files
    pairs: Sequence[Pair]
    encodings: Sequence[Encoding]
    classes: Sequence[str]
    palette: Sequence[Colour]
    white: int = 65535
    note: str = ""


def match(
    files: Files,
    images: str,
    masks: str,
    *,
    split: str = "",
    suffix: str = "",
    groups: str | None = None,
) -> list[Pair]:
    """Pairs the images below one folder with the masks below another by their paths' stems.

    Args:
      files: All files.
      images: The images' folder; "" for the top.
      masks: The masks' folder.
      split: What the publisher uses these for.
      suffix: May end the stem of a mask, and not that of its image: `_mask`. In one and the same
        folder it tells masks from images.
      groups: Separates a stem's group from the rest; None: each pair is its own group.

    Returns:
      The pairs, in order of name; none of a test set whose masks are not there.

    Raises:
      DataError: An image has no mask or two, or a mask no image; every such file is named.
    """
    image_of = _by_stem(files, images, masks)
    mask_of = _by_stem(files, masks, images)
    if images == masks:
        image_of = {stem: p for stem, p in image_of.items() if not stem.endswith(suffix)}
        mask_of = {stem: p for stem, p in mask_of.items() if stem.endswith(suffix)}
    if split == "test" and not mask_of:
        return []
    mask_of = _without(suffix, mask_of)
    problems = [
        f"{path}: has the same name as {paths[0]}"
        for found in (image_of, mask_of)
        for paths in found.values()
        for path in paths[1:]
    ]
    problems += [f"{image_of[n][0]}: has no mask" for n in sorted(image_of.keys() - mask_of.keys())]
    problems += [f"{mask_of[n][0]}: has no image" for n in sorted(mask_of.keys() - image_of.keys())]
    if problems:
        title = f"{images or 'images'} and {masks or 'masks'} do not match, {len(problems)} files:"
        raise DataError.listing(title, problems)
    pairs = []
    for stem in sorted(image_of):
        name = f"{split}/{stem}" if split else stem
        group = name if groups is None else stem.rsplit(groups, 1)[0]
        pairs.append(Pair(name, group, split, image_of[stem][0], mask_of[stem][0]))
    return pairs


def _by_stem(files: Files, folder: str, other: str) -> dict[str, list[str]]:
    """The pictures below a folder, but for those of the other one, which may lie in it."""
    found: dict[str, list[str]] = {}
    top, apart = (f"{each}/" if each else "" for each in (folder, other))
    inside = apart.startswith(top) and apart != top
    for path in sorted(path for path in files if path.startswith(top)):
        if inside and path.startswith(apart):
            continue
        below = PurePosixPath(path)
        if below.suffix.lower() in IMAGE_SUFFIXES:
            found.setdefault(str(below.relative_to(folder).with_suffix("")), []).append(path)
    return found


def _without(suffix: str, found: Mapping[str, list[str]]) -> dict[str, list[str]]:
    merged: dict[str, list[str]] = {}
    for stem, paths in found.items():
        merged.setdefault(stem.removesuffix(suffix), []).extend(paths)
    return merged

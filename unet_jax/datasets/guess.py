"""Finds out from the masks themselves what their values mean."""

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from PIL import Image

from unet_jax.datasets.description import Description
from unet_jax.datasets.encoding import (
    Colour,
    MaskError,
    colour_of,
    number,
    values_image,
    values_of,
    voc_palette,
)
from unet_jax.datasets.errors import DataError

MOST_LEVELS = 32
MOST_INDICES = 200
MOST_CLASSES = 255
MOST_IN_ONE = 64
"""Different values in one mask. Few pictures show so many classes; smoothed edges soon do."""


class Survey(NamedTuple):
    """What occurs in one mask.

    Attributes:
      numbers: Its indices or grey levels; None if it is in colour.
      colours: Its colours, 0xRRGGBB; a grey level is one too.
      palette: The colour of each index, in a file that has a palette.
    """

    numbers: frozenset[int] | None
    colours: frozenset[int]
    palette: Mapping[int, int]


class Guess(NamedTuple):
    """What masks mean, by the look of them.

    Attributes:
      description: As if a person had given it.
      palette: RGB colour of each class.
      reason: What was seen, for people.
    """

    description: Description
    palette: tuple[Colour, ...]
    reason: str


def survey(mask: Image.Image) -> Survey:
    """Looks at every pixel.

    Raises:
      MaskError: It cannot be a mask.
    """
    try:
        numbers = values_of(values_image(mask, colour=False))
    except MaskError:
        in_colour = values_image(mask, colour=True)
        return Survey(None, frozenset(values_of(in_colour)), {})
    if mask.mode.startswith("I"):
        return Survey(frozenset(numbers), frozenset(), {})
    in_colour = values_image(mask, colour=True)
    entries = mask.getpalette("RGB") if mask.mode == "P" else None
    palette = {n: number(entries[3 * n : 3 * n + 3]) for n in numbers} if entries else {}
    return Survey(frozenset(numbers), frozenset(values_of(in_colour)), palette)


def guess(found: Mapping[str, Survey]) -> Guess:
    """Chooses between indices, black and white, grey levels and colours, for all masks together.

    Args:
      found: What occurs in each mask, by its path.

    Raises:
      DataError: There are more values than classes can be, or one alone, or ones that are none;
        or masks of 0 and 1 are among masks of 0 and 255.
    """
    surveys = found.values()
    palette: dict[int, int] = {}
    agreed = all(
        palette.setdefault(index, colour) == colour
        for each in surveys
        for index, colour in each.palette.items()
    )
    if not agreed or any(each.numbers is None for each in surveys):
        return _colours({path: each.colours for path, each in found.items()})
    numbers = _union(each.numbers or () for each in surveys)
    if numbers <= {0, 1} or numbers <= {0, 255}:
        white = max(numbers, default=1) or 1
        description = Description(classes=("background", "foreground"), values=(0, white))
        return Guess(description, ((0, 0, 0), (255, 255, 255)), f"Masks hold 0 and {white}.")
    held = {path: each.numbers or frozenset() for path, each in found.items()}
    if numbers == {0, 1, 255} and not any({1, 255} <= each for each in held.values()):
        raise _two_kinds(held)
    indices = numbers - {255}
    crowded = any(len(each.numbers or ()) > MOST_IN_ONE for each in surveys)
    if not crowded and 0 <= min(indices) <= max(indices) < min(MOST_INDICES, 2 * len(indices)):
        return _indices(indices, 255 in numbers, palette)
    return _levels(held)


def _indices(indices: Collection[int], void: bool, palette: Mapping[int, int]) -> Guess:
    count = max(indices) + 1
    names = ("background", *(f"class {n}" for n in range(1, count)))
    description = Description(classes=names, ignore=(255,) if void else ())
    usual = voc_palette(count)
    colours = tuple(colour_of(palette[n]) if n in palette else usual[n] for n in range(count))
    ignored = ", and 255, which is ignored" if void else ""
    return Guess(description, colours, f"Masks hold class ids from 0 to {count - 1}{ignored}.")


def _levels(found: Mapping[str, Collection[int]]) -> Guess:
    levels = sorted(_union(found.values()))
    if len(levels) > MOST_LEVELS:
        raise _too_many("grey levels", found)
    if levels[0] < 0 or levels[-1] > 65535:
        wrong = [f"{p}: {min(held)} to {max(held)}" for p, held in sorted(found.items())]
        raise DataError.listing("masks hold values that are not from 0 to 65535:", wrong)
    if len(levels) == 1:
        raise _only_one(f"the grey level {levels[0]}", found)
    names = tuple(f"level {level}" for level in levels)
    description = Description(classes=names, values=tuple(levels))
    listed = ", ".join(str(level) for level in levels)
    return Guess(description, voc_palette(len(names)), f"Masks hold the grey levels {listed}.")


def _colours(found: Mapping[str, Collection[int]]) -> Guess:
    values = sorted(_union(found.values()))
    if len(values) > MOST_CLASSES or max(map(len, found.values())) > MOST_IN_ONE:
        raise _too_many("colours", found)
    names = tuple(f"#{value:06x}" for value in values)  # Black comes first.
    if len(values) == 1:
        raise _only_one(f"the colour {names[0]}", found)
    colours = tuple(colour_of(value) for value in values)
    description = Description(classes=names, colours=colours)
    return Guess(description, colours, f"Masks hold {len(names)} colours: {', '.join(names)}.")


def _too_many(kind: str, found: Mapping[str, Collection[int]]) -> DataError:
    counts = sorted((-len(held), path) for path, held in found.items())
    return DataError.listing(
        f"masks hold {len(_union(found.values()))} {kind}, too many to be classes: were they saved "
        "with smoothed edges, or once as JPEG? If they are meant, name them in --description.",
        [f"{path}: {-count} {kind}" for count, path in counts],
    )


def _two_kinds(found: Mapping[str, Collection[int]]) -> DataError:
    examples = [min(path for path, held in found.items() if value in held) for value in (1, 255)]
    return DataError.listing(
        "some masks hold 0 and 1, others 0 and 255: is 255 the foreground, or is it to be ignored? "
        "Write all masks alike, or say what 1 and 255 mean in --description.",
        [f"{path}: {' and '.join(map(str, sorted(found[path])))}" for path in examples],
    )


def _only_one(kind: str, found: Mapping[str, Collection[int]]) -> DataError:
    return DataError.listing(
        f"masks hold {kind} and nothing else, which makes one class; name what it is, and what "
        "else there could be, in --description.",
        sorted(found),
    )


def _union(sets: Iterable[Iterable[int]]) -> set[int]:
    return {value for found in sets for value in found}

"""The images that a command line names: files, folders and globs."""

import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from unet_jax.datasets.errors import DataError
from unet_jax.datasets.layout import IMAGE_SUFFIXES


class Input(NamedTuple):
    """An image that is to be predicted.

    Attributes:
      path: Its file.
      name: What its results are called, without an ending: a path with forward slashes.
      file: The same with the file's own suffix.
    """

    path: Path
    name: str
    file: str


def find_inputs(places: Sequence[str], out: Path | None) -> list[Input]:
    """Lists the images, each once.

    Names are paths from the deepest folder that holds all of `places`: of one folder, they are the
    paths below it. Images whose names would be the same keep their suffixes.

    Args:
      places: Files, which are taken whatever their suffix; folders, for the images anywhere below
        them; and globs, in which `**` stands for any folders.
      out: Where results go, if they do: a folder below one of `places` is passed over.

    Raises:
      DataError: A place does not exist or holds no image; or it is `out` itself.
    """
    away = out and out.expanduser().resolve()
    found: dict[Path, None] = {}
    bases = []
    for place in places:
        path = Path(place).expanduser()
        if path.is_dir():
            if path.resolve() == away:
                raise DataError(
                    f"{place}: results would go among the images; choose another folder for them"
                )
            paths, base = list(_images(path, away)), path
        elif path.is_file():
            paths, base = [path], path.parent
        elif glob.has_magic(str(path)):
            paths, base = _matches(path, away)
        else:
            raise DataError(f"{place}: there is no such file or folder")
        if not paths:
            raise DataError(f"{place}: no images there ({' '.join(IMAGE_SUFFIXES)})")
        found |= dict.fromkeys(Path(os.path.abspath(path)) for path in paths)
        bases.append(os.path.abspath(base))
    top = os.path.commonpath(bases)
    files = [path.relative_to(top).as_posix() for path in found]
    names = _without_suffixes(files)
    return [Input(*each) for each in zip(found, names, files, strict=True)]


def _without_suffixes(files: Sequence[str]) -> list[str]:
    """Of each file a name that no other has; with its suffix only where that needs it."""
    names = [PurePosixPath(file).with_suffix("").as_posix() for file in files]
    # A name with its suffix may be another's without: `1.jpg` and `1.jpg.png`.
    while len({*names}) < len(names):
        count = Counter(names)
        names = [
            name if count[name] == 1 else file for name, file in zip(names, files, strict=True)
        ]
    return names


def _images(folder: Path, away: Path | None) -> Iterator[Path]:
    """The images below, hidden ones and those in `away` left out, in order of their names. Links
    are followed, but no folder is entered twice: a link may lead to where it lies."""
    entered = {away, folder.resolve()}
    for root, folders, names in os.walk(folder, followlinks=True):
        inside = {Path(root, f).resolve(): f for f in sorted(folders, reverse=True) if f[0] != "."}
        folders[:] = sorted(f for real, f in inside.items() if real not in entered)
        entered |= inside.keys()
        for name in sorted(names):
            if not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES:
                yield Path(root, name)


def _matches(pattern: Path, away: Path | None) -> tuple[list[Path], Path]:
    """The files that match, and the images below the folders that do; and the folder above all."""
    parts = pattern.parts
    fixed = next(n for n, part in enumerate(parts) if glob.has_magic(part))
    base, paths = Path(*parts[:fixed]), []
    if "**" in parts:  # Which glob follows through links that lead back, again and again.
        found = _images(base, away)
        return [p for p in found if _match(p.relative_to(base).parts, parts[fixed:])], base
    below = away is not None and base.resolve() in away.parents
    for path in map(Path, sorted(glob.glob(str(pattern)))):
        if below and away in (path.resolve(), *path.resolve().parents):
            continue
        if path.is_dir():
            paths += _images(path, away)
        elif path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
            paths.append(path)
    return paths, base


def _match(names: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether the parts of a path follow those of a pattern, in which `**` is any of them."""
    if not names or not pattern:
        return not names and all(part == "**" for part in pattern)
    if pattern[0] == "**":
        return _match(names, pattern[1:]) or _match(names[1:], pattern)
    return fnmatch(names[0], pattern[0]) and _match(names[1:], pattern[1:])

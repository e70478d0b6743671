"""The images that a command line names: files, folders and globs."""

import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from unet_jax.datasets.errors import DataError
from unet_jax.datasets.layout import IMAGE_SUFFIXES


class Input(NamedTuple):
    """An image that is to be predicted.

    Attributes:
      path: Its file.
      name: What its results are called, without an ending: a path with forward slashes.
    """

    path: Path
    name: str


def find_inputs(places: Sequence[str], out: Path | None) -> list[Input]:
    """Lists the images, each once.

    Names are paths from the deepest folder that holds all of `places`: of one folder, they are the
    paths below it. Images of the same name but another suffix keep theirs.

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
    names = [path.relative_to(top).with_suffix("").as_posix() for path in found]
    count = Counter(names)
    return [
        Input(path, name if count[name] == 1 else path.relative_to(top).as_posix())
        for path, name in zip(found, names, strict=True)
    ]


def _images(folder: Path, away: Path | None) -> Iterator[Path]:
    """The images below, hidden ones and those in `away` left out, in order of their names."""
    for root, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(
            f for f in folders if not f.startswith(".") and Path(root, f).resolve() != away
        )
        for name in sorted(names):
            if not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES:
                yield Path(root, name)


def _matches(pattern: Path, away: Path | None) -> tuple[list[Path], Path]:
    """The files that match, and the images below the folders that do; and the folder above all."""
    parts = pattern.parts
    fixed = next(n for n, part in enumerate(parts) if glob.has_magic(part))
    base, paths = Path(*parts[:fixed]), []
    below = away is not None and base.resolve() in away.parents
    for path in map(Path, sorted(glob.glob(str(pattern), recursive=True))):
        if below and away in (path.resolve(), *path.resolve().parents):
            continue
        if path.is_dir() and "**" not in parts:
            paths += _images(path, away)
        elif path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
            paths.append(path)
    return paths, base

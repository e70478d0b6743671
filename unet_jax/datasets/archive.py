"""The publisher's files, read where they lie: in folders, in zips, and in zips inside zips."""

import lzma
import os
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from unet_jax.datasets.errors import DataError

LARGEST = 1 << 30
"""Bytes of one file. No image has as many; what a decompression bomb unpacks to has more."""
RATIO = 100
"""A zip inside a zip shrinks by less; a bomb that is one, by more."""
BROKEN = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, RuntimeError, ValueError, MemoryError),
)
"""What zipfile raises, beside OSError, for zips that are damaged, encrypted or of a later kind."""


class Entry(NamedTuple):
    """One file.

    Attributes:
      stamp: What changes when its content does.
      open: Opens it for reading forwards. May be called from several threads.
      problem: Why the zip that it is could not be opened as one; "" of other files.
    """

    stamp: str
    open: Callable[[], IO[bytes]]
    problem: str = ""

    def read(self) -> bytes:
        """Its content.

        Raises:
          OSError: It is damaged, encrypted, or larger than `LARGEST`.
        """
        try:
            with self.open() as file:
                content = file.read(LARGEST + 1)
        except BROKEN as error:
            raise OSError(str(error)) from None  # As a damaged disk would.
        if len(content) > LARGEST:
            raise OSError(f"unpacks to more than {LARGEST:,} bytes")
        return content


Files = dict[str, Entry]
"""By path, with forward slashes, from the folder or zip that was opened."""


def open_files(place: Path) -> Files:
    """Lists a zip; or a folder, all below it, and what its zips hold, as if unpacked into it.

    Zips in the folder that cannot be read, or have unsafe members, stay what they are: files, with
    their `problem`. They may have nothing to do with what is looked for.

    Raises:
      DataError: There is no such place; or it is a zip that cannot be read or has unsafe members.
    """
    if place.is_file():
        return _zip(str(place), place.open("rb"))
    if not place.is_dir():
        raise DataError(f"{place} is neither a folder nor a zip")
    files: Files = {}
    for path in _walk(place):
        status = path.stat()
        stamp = f"{status.st_size} {status.st_mtime_ns}"
        files[path.relative_to(place).as_posix()] = Entry(stamp, partial(path.open, "rb"))
    for name in [n for n in files if n.endswith(".zip") and "/" not in n]:
        try:
            unpacked = _zip(str(place / name), (place / name).open("rb"))
        except (DataError, OSError) as error:
            files[name] = files[name]._replace(problem=str(error))
            continue
        del files[name]
        files = _under(name.removesuffix(".zip"), unpacked) | files  # What is unpacked wins.
    return files


def unpack(files: Files, name: str, place: str) -> Files:
    """Replaces the zip `name`, itself inside a zip, by what it holds. What is unpacked wins.

    Raises:
      DataError: It cannot be read, or has unsafe members; the message names it after `place`.
    """
    # A compressed member can only be read forwards; a copy can be read anywhere.
    copy = tempfile.TemporaryFile()  # noqa: SIM115 (open as long as its members are wanted)
    try:
        with files[name].open() as stream:
            shutil.copyfileobj(stream, copy)
    except (*BROKEN, OSError) as error:
        raise DataError(f"{place}/{name}: {error}; download it again") from None
    others = {path: entry for path, entry in files.items() if path != name}
    return _under(name.removesuffix(".zip"), _zip(f"{place}/{name}", copy)) | others


def broken(files: Files) -> dict[str, str]:
    """What is wrong with each zip that could not be opened, by its path without `.zip`."""
    return {p.removesuffix(".zip"): entry.problem for p, entry in files.items() if entry.problem}


def read_text(files: Files, path: str) -> str:
    """The text of one file.

    Raises:
      DataError: It cannot be read, or is no UTF-8.
    """
    try:
        return files[path].read().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None


def _walk(folder: Path) -> Iterator[Path]:
    """Every file below, hidden ones left out; links are followed, but never in a circle."""

    def fail(error: OSError) -> None:
        raise error  # `os.walk` would leave the folder out.

    seen = set()
    for root, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f != "__MACOSX")
        real = os.path.realpath(root)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        for name in sorted(names):
            path = Path(root, name)
            if not name.startswith(".") and path.is_file():
                yield path


def _under(folder: str, files: Files) -> Files:
    """Puts the files into `folder`, unless that is where they say they are."""
    if all(path.startswith(f"{folder}/") for path in files):
        return files
    return {f"{folder}/{path}": entry for path, entry in files.items()}


def _zip(place: str, file: IO[bytes]) -> Files:
    try:
        archive = zipfile.ZipFile(file)
    except (*BROKEN, OSError) as error:
        raise DataError(f"{place}: {error}; download it again") from None
    files: Files = {}
    problems = []
    for info in archive.infolist():
        name = info.filename.replace("\\", "/")
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or ":" in "".join(path.parts[:1]):
            problems.append(f"{info.filename}: points outside of the zip")
        elif info.file_size > max(LARGEST, RATIO * info.compress_size):
            problems.append(f"{info.filename}: unpacks to {info.file_size:,} bytes")
        elif str(path) in files:
            problems.append(f"{info.filename}: is in it twice")
        elif path.name and not (
            name.endswith("/") or "__MACOSX" in path.parts or path.name.startswith(".")
        ):
            stamp = f"{info.file_size} {info.CRC}"
            files[str(path)] = Entry(stamp, partial(archive.open, info))
    if problems:
        raise DataError.listing(f"{place} is not safe to read:", problems)
    return files


def find_root(files: Files, names: Sequence[str]) -> str | None:
    """The shallowest folder that holds every one of `names` as a folder, a file or a zip.

    Returns:
      The folder, with a slash at its end; "" for the top; None if there is none.
    """
    first, *others = names
    roots = set()
    for path in files:
        parts = path.split("/")
        for depth, part in enumerate(parts):
            if part in (first, f"{first}.zip"):
                roots.add("".join(f"{parent}/" for parent in parts[:depth]))
    for root in sorted(roots, key=lambda root: (root.count("/"), root)):
        children = {path[len(root) :].split("/")[0] for path in files if path.startswith(root)}
        if all(name in children or f"{name}.zip" in children for name in others):
            return root
    return None


def cut(files: Files, root: str, names: Sequence[str]) -> Files:
    """What lies in `root` under one of `names`, as a folder, a file or a zip; paths from there."""
    wanted = {*names, *(f"{name}.zip" for name in names)}
    return {
        path[len(root) :]: entry
        for path, entry in files.items()
        if path.startswith(root) and path[len(root) :].split("/")[0] in wanted
    }

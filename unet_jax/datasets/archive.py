"""The publisher's files, read where they lie: from a folder, a zip, or a zip inside a zip."""

import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from unet_jax.datasets.builder import DataError


@dataclass(frozen=True)
class Files:
    """One folder's worth of files.

    Attributes:
      place: Where they are, for messages.
      stamps: Each file's name, and what changes when its content does.
      read: Returns the bytes of the file of that name, or raises OSError. May be called from
        several threads.
    """

    place: str
    stamps: dict[str, str]
    read: Callable[[str], bytes]


def find(data_dir: Path, name: str, bundle: str) -> Files | None:
    """Looks for the folder `name`, for `name`.zip, and for `name`.zip inside `bundle`.zip.

    Raises:
      DataError: A zip that was found cannot be read.
    """
    if (data_dir / name).is_dir():
        return _folder(data_dir / name)
    if (data_dir / f"{name}.zip").is_file():
        return _open_zip(data_dir / f"{name}.zip")
    if (data_dir / f"{bundle}.zip").is_file():
        return _open_nested_zip(data_dir / f"{bundle}.zip", f"{name}.zip")
    return None


def _folder(folder: Path) -> Files:
    stamps = {}
    for path in folder.iterdir():
        if path.is_file() and not path.name.startswith("."):
            status = path.stat()
            stamps[path.name] = f"{status.st_size} {status.st_mtime_ns}"
    return Files(str(folder), stamps, lambda name: (folder / name).read_bytes())


def _open_zip(path: Path) -> Files:
    try:
        return _zip(str(path), zipfile.ZipFile(path))
    except zipfile.BadZipFile as error:
        raise DataError(f"{path}: {error}; download it again") from None


def _open_nested_zip(path: Path, member: str) -> Files | None:
    place = f"{path}/{member}"
    try:
        with zipfile.ZipFile(path) as outer:
            if member not in outer.namelist():
                return None
            # A compressed member can only be read forwards; a copy can be read anywhere.
            copy = tempfile.TemporaryFile()  # noqa: SIM115 (open as long as the ZipFile is)
            with outer.open(member) as stream:
                shutil.copyfileobj(stream, copy)
        return _zip(place, zipfile.ZipFile(copy))
    except zipfile.BadZipFile as error:
        raise DataError(f"{place}: {error}; download it again") from None


def _zip(place: str, archive: zipfile.ZipFile) -> Files:
    """Members are named by their last part, so that a top-level folder makes no difference."""
    members = {}
    for info in archive.infolist():
        name = Path(info.filename).name
        if not info.is_dir() and not name.startswith(".") and "__MACOSX" not in info.filename:
            members[name] = info
    stamps = {name: f"{info.file_size} {info.CRC}" for name, info in members.items()}

    def read(name: str) -> bytes:
        try:
            return archive.read(members[name])
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise OSError(str(error)) from None  # As a damaged disk would.

    return Files(place, stamps, read)

"""Fetches zips from a server, so that one is whole or goes on where it broke off."""

import os
import zipfile
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from unet_jax.datasets.errors import DataError

TIMEOUT = 30  # Seconds without a byte.
CHUNK = 1 << 20


def is_zip(path: Path) -> bool:
    """Whether it is there.

    Raises:
      DataError: It is there, but no zip.
    """
    if path.exists() and not zipfile.is_zipfile(path):
        raise DataError(f"{path} is not a whole zip; remove it, and run this again")
    return path.exists()


def fetch_zip(url: str, path: Path) -> None:
    """Downloads a zip; a download that was broken off goes on where it stopped.

    Args:
      url: Where it lies.
      path: Where it will lie; until it is complete, `.part` follows its name, beside a file that
        says of which version it is.

    Raises:
      DataError: The server cannot be reached, has no such file, or breaks off; or it is no zip.
    """
    part = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    version = part.with_name(part.name + ".version")
    known = version.read_text() if part.exists() and version.exists() else ""
    have = part.stat().st_size if known else 0
    # Of a file that has changed since, the server sends the whole.
    rest = {"Range": f"bytes={have}-", "If-Range": known} if have else {}
    request = Request(url, headers=rest)
    try:
        with urlopen(request, timeout=TIMEOUT) as answer:
            if answer.status != HTTPStatus.PARTIAL_CONTENT:
                part.unlink(missing_ok=True)
                version.write_text(_version(answer))
            _receive(answer, part)
    except HTTPError as error:
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            part.unlink()  # It has all bytes, or more: of another version.
            return fetch_zip(url, path)
        raise DataError(f"{url}: {error.code} {error.reason}") from None
    except URLError as error:
        raise DataError(f"{url}: cannot be reached ({error.reason})") from None
    except (OSError, HTTPException) as error:
        raise DataError(f"{url}: broke off ({error}); run this again to go on") from None
    if not zipfile.is_zipfile(part):
        part.unlink()
        version.unlink(missing_ok=True)
        raise DataError(f"{url}: what came is not a zip")
    os.replace(part, path)
    version.unlink(missing_ok=True)


def _version(answer: HTTPResponse) -> str:
    """What tells this version of the file from others, if the server says; a weak tag does not."""
    tag = answer.headers["ETag"]
    if tag and not tag.startswith("W/"):
        return tag
    return answer.headers["Last-Modified"] or ""


def _receive(answer: HTTPResponse, part: Path) -> None:
    """Writes what the server sends, after what there is already if that is its answer.

    Raises:
      DataError: It sent less than it said.
    """
    resumed = answer.status == HTTPStatus.PARTIAL_CONTENT
    length = answer.headers["Content-Length"]
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    with (
        part.open("ab" if resumed else "wb") as file,
        Progress(*columns, console=Console(stderr=True)) as progress,
    ):
        have = file.tell()
        total = None if length is None else have + int(length)
        task = progress.add_task(part.stem, total=total, completed=have)
        while chunk := answer.read(CHUNK):
            file.write(chunk)
            progress.update(task, advance=len(chunk))
        if total is not None and file.tell() != total:
            raise DataError(
                f"{answer.url}: broke off after {file.tell():,} of {total:,} bytes; "
                "run this again to go on"
            )

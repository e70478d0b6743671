"""Fetches Carvana and CamVid from Kaggle, through its package `kagglehub`."""

import contextlib
import importlib
import os
import shutil
import zipfile
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import requests

from unet_jax.datasets.carvana import COMPETITION
from unet_jax.datasets.errors import DataError
from unet_jax.datasets.fetch import is_zip

CARVANA = ("train.zip", "train_masks.zip")  # Its other files are far larger, and not needed.
CAMVID = "carlolepelaars/camvid"


def fetch_carvana(place: Path | None) -> Path:
    """Fetches the competition's two zips of training data into `place`, or kagglehub's cache.

    Returns:
      The folder that holds them.

    Raises:
      DataError: Kaggle does not give them; the message says what to do.
    """
    page = f"https://www.kaggle.com/competitions/{COMPETITION}"
    with _kaggle(page) as hub:
        if place is None:
            paths = [Path(hub.competition_download(COMPETITION, name)) for name in CARVANA]
            return paths[0].parent
        for name in CARVANA:
            if not is_zip(place / name):
                with _draft(place) as draft:
                    path = hub.competition_download(COMPETITION, name, output_dir=str(draft))
                    os.replace(path, place / name)
    return place


def fetch_camvid(place: Path | None) -> Path:
    """Fetches the 32 classes, unpacked, as `fetch_carvana` does its zips."""
    with _kaggle(f"https://www.kaggle.com/datasets/{CAMVID}") as hub:
        if place is None:
            return Path(hub.dataset_download(CAMVID))
        target = place / "camvid"
        if target.exists():
            raise DataError(f"{target} is there, but is not CamVid; remove it, and run this again")
        with _draft(place) as draft:
            os.replace(hub.dataset_download(CAMVID, output_dir=str(draft)), target)
    return place


@contextlib.contextmanager
def _draft(place: Path) -> Iterator[Path]:
    """A hidden folder in `place`, that is no more afterwards, whatever happens."""
    draft = place / ".part"
    shutil.rmtree(draft, ignore_errors=True)  # Of a process that was killed.
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)


@contextlib.contextmanager
def _kaggle(page: str) -> Iterator[Any]:
    """The package `kagglehub`; what it raises becomes a `DataError` of one line.

    Args:
      page: The data set's address, for people.
    """
    try:
        hub = importlib.import_module("kagglehub")
        errors = importlib.import_module("kagglehub.exceptions")
    except ModuleNotFoundError:
        raise DataError("--download from Kaggle needs a package: pip install kagglehub") from None
    try:
        yield hub
    except errors.UnauthenticatedError:
        raise DataError(
            "Kaggle wants to know who you are: make a token at https://www.kaggle.com/settings/api "
            "and put it into the variable KAGGLE_API_TOKEN, or the file ~/.kaggle/access_token"
        ) from None
    except requests.RequestException as error:
        raise DataError(_advice(error, page)) from None
    except (errors.DataCorruptionError, zipfile.BadZipFile):
        raise DataError("what came from Kaggle is damaged; run this again") from None


def _advice(error: requests.RequestException, page: str) -> str:
    if error.response is None:
        return f"no connection to Kaggle, or it broke off ({type(error).__name__}); run this again"
    status = error.response.status_code
    if status == HTTPStatus.UNAUTHORIZED:
        return (
            f"Kaggle refuses your token ({status}); make one at https://www.kaggle.com/settings/api"
        )
    if status == HTTPStatus.FORBIDDEN and COMPETITION in page:
        return f"Kaggle wants you to accept the rules first ({status}): {page}/rules"
    return f"Kaggle answers {status} {error.response.reason} for {page}"

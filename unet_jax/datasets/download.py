"""Brings a data set onto this machine, from wherever its publisher keeps it."""

import dataclasses
from pathlib import Path

from rich.console import Console

from unet_jax.config import DataConfig
from unet_jax.datasets import BUILDERS, ade20k
from unet_jax.datasets.errors import DataError
from unet_jax.datasets.fetch import fetch_zip, is_zip
from unet_jax.datasets.kaggle import fetch_camvid, fetch_carvana


def download(config: DataConfig) -> Path:
    """Fetches a data set, unless it is there.

    Args:
      config: `dataset`, `data_dir` and `prepared_dir` are used.

    Returns:
      The folder that holds it: `data_dir`; or without one kagglehub's cache, and for what is not on
      Kaggle `downloads` in `prepared_dir`.

    Raises:
      DataError: It cannot be had; the message says what to do.
    """
    if config.dataset == "shapes":
        raise DataError("--download: shapes is rendered here; there is nothing to download")
    if config.dataset == "folder":
        raise DataError("--download: folder is your own data; say with --data-dir where it is")
    place = config.data_dir
    if place is None and config.dataset == "ade20k":
        place = config.prepared_dir / "downloads"
    place = place and place.expanduser()
    if place is not None and _is_there(config, place):
        text = f"{config.dataset} is in {place} already; nothing is downloaded."
        Console(stderr=True).print(text, markup=False, highlight=False, soft_wrap=True)
        return place
    if place is not None and place.exists() and not place.is_dir():
        raise DataError(f"--data-dir: {place} is a file; to download into, a folder is needed")
    fetch = {"carvana": fetch_carvana, "camvid": fetch_camvid, "ade20k": _fetch_ade20k}
    return fetch[config.dataset](place)


def _is_there(config: DataConfig, place: Path) -> bool:
    try:
        BUILDERS[config.dataset](dataclasses.replace(config, data_dir=place))
    except DataError:
        return False
    return True


def _fetch_ade20k(place: Path) -> Path:
    path = place / ade20k.URL.rsplit("/", 1)[-1]
    if not is_zip(path):
        fetch_zip(ade20k.URL, path)
    return place

"""From a command line to a prepared data set, and to what a person needs to trust it."""

import dataclasses
import logging
import shlex
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from unet_jax.cli import INTERRUPTED, mistakes
from unet_jax.config import DataConfig
from unet_jax.datasets import DataError, PairBuilder, open_dataset
from unet_jax.datasets.download import download
from unet_jax.draft import draft
from unet_jax.overview import overview
from unet_jax.prepare_options import PrepareOptions, training_flags
from unet_jax.split import split_samples
from unet_jax.statistics import measure
from unet_jax.visualize import contact_sheet

SAMPLES = 24  # Of a contact sheet.


def prepare(options: PrepareOptions, config: DataConfig) -> int:
    """Downloads if that is asked for, prepares, and says and draws what came of it.

    Returns:
      The exit status: 0 when done, 130 when Ctrl-C ended it.
    """
    logging.getLogger("absl").setLevel(logging.ERROR)
    try:
        with mistakes():
            _prepare(options, config)
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def _prepare(options: PrepareOptions, config: DataConfig) -> None:
    console = Console()
    say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    sheet = options.sheet and options.sheet.expanduser()
    if sheet is not None and (sheet.suffix.lower() != ".png" or sheet.is_dir()):
        raise DataError(f"--sheet: {sheet} is not a PNG file's name")
    if options.download:
        config = dataclasses.replace(config, data_dir=download(config))
    builder = open_dataset(config)
    facts = builder.facts
    split = split_samples(facts.names, facts.groups, facts.splits, config)
    if not split.train:
        raise DataError(f"{config.dataset}: there are no samples to train on")
    records = track(builder.records(), "Counting pixels", console=Console(stderr=True))
    for part in overview(facts, split, measure(records, split.train), config):
        console.print(part)
    folder = Path(builder.data_path)
    megabytes = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    say(f"\nPrepared copy: {megabytes:,.1f} MB in {folder}")
    path = sheet or folder.parents[1] / "contact_sheet.png"
    over = " (drawn over the one before)" if path.exists() else ""
    draw(builder, path, config)
    say(f"Contact sheet: {path}{over}")
    say(f"Train on it with: {shlex.join(training_flags(options, config))}")


def draw(builder: PairBuilder, path: Path, config: DataConfig) -> None:
    """Draws samples spread over the set into a PNG file, which is whole or not there.

    Args:
      builder: The prepared set.
      path: Where to; its folder is made if it is not there.
      config: `dataset`, `data_dir` and the stored size are written above.
    """
    facts, records = builder.facts, builder.records()
    count = len(facts.names)
    places = np.linspace(0, count - 1, min(SAMPLES, count)).astype(int).tolist()
    height, width = config.prepared_size
    title = f"{config.dataset} at {height}×{width}: {len(places)} of {count:,} pairs"
    if config.data_dir is not None:
        title += f" in {config.data_dir}"
    chosen = [records[place] for place in places]
    sheet = contact_sheet(
        [record["image"] for record in chosen],
        [record["mask"] for record in chosen],
        [facts.names[place] for place in places],
        facts.palette,
        facts.classes,
        title,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with draft(path) as part:
        sheet.save(part, format="PNG")

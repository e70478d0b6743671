"""Compares runs on a page: `python scripts/compare_runs.py --help`."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from unet_jax.cli import mistakes, parse_args
from unet_jax.comparison import write_page


@dataclass(frozen=True)
class Options:
    """Compares the runs in a folder on a page that opens in a browser."""

    folder: tyro.conf.Positional[Path] = Path("runs")
    """Holds the runs' folders; the page is its index.html."""


def main() -> int:
    options = parse_args(Options)
    with mistakes():
        print(write_page(options.folder))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

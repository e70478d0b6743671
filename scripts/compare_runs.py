"""Compares runs on a page: `python scripts/compare_runs.py --help`."""

from pathlib import Path

import tyro

from unet_jax.cli import fail, parse_args
from unet_jax.comparison import write_page


def main(folder: tyro.conf.Positional[Path] = Path("runs")) -> int:
    """Compares the runs in a folder on a page that opens in a browser.

    Args:
      folder: Holds the runs' folders; the page is its index.html.
    """
    try:
        print(write_page(folder))
    except (ValueError, OSError) as error:
        fail(str(error))
    return 0


if __name__ == "__main__":
    raise SystemExit(parse_args(main))

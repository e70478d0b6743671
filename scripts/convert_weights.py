"""Converts trained weights, other people's too: `python scripts/convert_weights.py --help`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from unet_jax.cli import INTERRUPTED, fail, needs_torch, parse_args


@dataclass(frozen=True, kw_only=True)
class Options:
    """Converts a trained network from PyTorch to Flax, and back, without loss; then checks that
    both compute the same. What the file holds is found out from its content."""

    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """A run's folder, of either framework; a .safetensors file of ours; or a PyTorch state_dict, as
    pickle or safetensors: r1, r2, or our twin's. Code in a pickle is never run."""

    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """The file to write: .safetensors, or for PyTorch also .pt, .pth or .bin."""

    to: Literal["flax", "torch", "r1", "r2"] = "flax"
    """flax: our file, with all that is needed to use it. torch: our twin's state_dict. r1: that of
    the published residual U-Net (conv_in_proj, …); r2: of the plain one (inc.double_conv, …)."""

    groups: int | None = None
    """Groups of the group norms, which a state_dict does not tell. Default: 16."""

    size_policy: Literal["pad", "resize"] | None = None
    """What the network does with odd sizes, which a state_dict does not tell. Default: pad."""

    classes: tuple[str, ...] | None = None
    """Name of each class. Default: background and foreground, or numbers."""

    mean: tuple[float, float, float] | None = None
    """Subtracted from each channel of an image in 0..1. Default: Carvana's for r1, 0 for r2."""

    std: tuple[float, float, float] | None = None
    """Divides each channel after that. Default: Carvana's for r1, 1 for r2."""

    size: tuple[int, int] | None = None
    """Height and width that it was trained at. Default: 256 256 for r1, 640 959 for r2."""

    force: bool = False
    """Write over a file that is there already."""

    debug: bool = False
    """Show where in the program an error arose."""


def main() -> int:
    options = vars(parse_args(Options))
    source, out, to, force, debug = (
        options.pop(name) for name in ("source", "out", "to", "force", "debug")
    )
    # Slow to import: only when the command line is known to be right.
    with needs_torch():
        from parity.porting.conversion import convert
        from parity.porting.source import Given

    try:
        return convert(source, out, to=to, given=Given(**options), force=force)
    except (ValueError, OSError) as error:
        if debug:
            raise
        fail(str(error))
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    raise SystemExit(main())

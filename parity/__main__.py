"""`python -m parity`: shows that the Flax network and its PyTorch twin are the same model."""

import os
import sys

import tyro

from parity.options import Options
from unet_jax.cli import mistakes


def main() -> int:
    options = tyro.cli(Options, description=__doc__)
    if options.device == "cpu":  # PyTorch's learner takes a GPU where it sees one.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    with mistakes():
        options.check()
        import jax

        from parity.device import use_device

        jax.config.update("jax_enable_x64", True)
        use_device(options.device)
        from rich.console import Console

        from parity.inspection import inspect

        return 0 if inspect(options, Console()) else 1


if __name__ == "__main__":
    sys.exit(main())

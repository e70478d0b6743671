"""`python -m parity`: shows that the Flax network and its PyTorch twin are the same model."""

import os
import sys

from parity.options import Options
from unet_jax.cli import INTERRUPTED, mistakes, needs_torch, parse_args


def main() -> int:
    options = parse_args(Options, prog="python -m parity", description=__doc__)
    if options.device == "cpu":  # PyTorch's learner takes a GPU where it sees one.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    with mistakes():
        options.check()
    import jax
    from rich.console import Console

    with needs_torch():
        from parity.device import use_device
        from parity.inspection import inspect
        from parity.subject import subjects

    jax.config.update("jax_enable_x64", True)
    with mistakes():
        use_device(options.device)
        given = [] if options.mutations else subjects(options)
        options.out.mkdir(parents=True, exist_ok=True)
    try:
        return 0 if inspect(options, given, Console()) else 1
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())

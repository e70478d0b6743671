"""Trains a U-Net in Flax: `python scripts/train_jax.py --help`."""

import time

from unet_jax.cli import parse


def main() -> int:
    started = time.monotonic()
    options, config = parse(description="Trains a U-Net in Flax.")
    # JAX loads only when the command line is known to be right.
    from unet_jax.describe import describe
    from unet_jax.learner import JaxLearner
    from unet_jax.train import train

    return train(options, config, make_learner=JaxLearner, describe=describe, started=started)


if __name__ == "__main__":
    raise SystemExit(main())

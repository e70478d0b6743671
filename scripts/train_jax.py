"""Trains a U-Net in Flax: `python scripts/train_jax.py --help`."""

import time
from functools import partial

from unet_jax.cli import mistakes, parse


def main() -> int:
    started = time.monotonic()
    options, config = parse(description="Trains a U-Net in Flax.")
    # JAX loads only when the command line is known to be right.
    import jax

    from unet_jax.describe import describe
    from unet_jax.learner import JaxLearner
    from unet_jax.parallel import choose, connect
    from unet_jax.rehearsal import rehearse_training
    from unet_jax.train import train

    with mistakes():
        if options.distributed:
            connect(options.coordinator, options.processes, options.process)
        parallel = choose(options.parallel, config)
    return train(
        options,
        config,
        make_learner=partial(JaxLearner, parallel=parallel, remat=options.remat),
        describe=describe,
        rehearse=partial(rehearse_training, parallel=parallel, remat=options.remat),
        started=started,
        host=jax.process_index(),
        hosts=jax.process_count(),
    )


if __name__ == "__main__":
    raise SystemExit(main())

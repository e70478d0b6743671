"""Trains the PyTorch twin, with the settings, batches and run folder of train_jax.py."""

import time
from functools import partial

from unet_jax.cli import fail, needs_torch
from unet_jax.train_options import parse


def main() -> int:
    started = time.monotonic()
    options, config = parse(description="Trains the PyTorch twin of the Flax U-Net.")
    if options.parallel not in ("auto", "jit") or options.distributed:
        fail("--parallel, --distributed: the twin trains on one device, as a reference")
    with needs_torch():
        from parity.rehearsal import describe, rehearse_training
        from parity.twin import make_learner
        from unet_torch_ref.memory import out_of_memory
    from unet_jax.framework import Framework
    from unet_jax.train import train

    framework = Framework(
        make_learner=partial(make_learner, remat=options.remat),
        describe=describe,
        rehearse=partial(rehearse_training, remat=options.remat),
        out_of_memory=out_of_memory,
    )
    return train(options, config, framework, started=started)


if __name__ == "__main__":
    raise SystemExit(main())

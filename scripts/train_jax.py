"""Trains a U-Net in Flax: `python scripts/train_jax.py --help`."""

import gc
import time
from functools import partial

from unet_jax.cli import mistakes
from unet_jax.heap import keep_step_memory
from unet_jax.train_options import parse


def main() -> int:
    started = time.monotonic()
    options, config = parse(description="Trains a U-Net in Flax.")
    # A tenth of the time to the first step goes into looking for garbage among what tracing keeps.
    gc.set_threshold(100_000)
    keep_step_memory()
    # JAX loads only when the command line is known to be right.
    import jax

    from unet_jax.compiled import keep_compiled
    from unet_jax.describe import describe
    from unet_jax.framework import Framework
    from unet_jax.hosts import Hosts
    from unet_jax.learner import JaxLearner
    from unet_jax.memory import out_of_memory
    from unet_jax.onednn.cores import share_cores
    from unet_jax.parallel import all_well, choose, connect
    from unet_jax.rehearsal import rehearse_training
    from unet_jax.train import train

    keep_compiled()
    if options.parallel != "shard" and not options.distributed:  # Where convolutions are XLA's.
        share_cores(config.largest_layer, config.train.precision, trained=True)
    with mistakes():
        if options.distributed:
            connect(options.coordinator, options.processes, options.process)
        parallel = choose(options.parallel, config)
    framework = Framework(
        make_learner=partial(JaxLearner, parallel=parallel, remat=options.remat),
        describe=describe,
        rehearse=partial(rehearse_training, parallel=parallel, remat=options.remat),
        out_of_memory=out_of_memory,
    )
    hosts = Hosts(this=jax.process_index(), count=jax.process_count(), all_well=all_well)
    return train(options, config, framework, started=started, hosts=hosts)


if __name__ == "__main__":
    raise SystemExit(main())

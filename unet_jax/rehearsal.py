"""What a training step takes: as compiled, and as timed over a few steps on random data."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.table import Table

from unet_jax.batch import Batch
from unet_jax.config import Config
from unet_jax.draws import draw, geometric, photometric
from unet_jax.memory import free_memory
from unet_jax.models.convolution import xla_alone
from unet_jax.models.platforms import traced_in
from unet_jax.parallel import Parallel, named
from unet_jax.recipe import build_recipe

MOST_STEPS = 20


class Speed(NamedTuple):
    """What was measured over some whole steps, loading no data."""

    images_per_second: float
    steps: int


class Rehearsal(NamedTuple):
    """What a step takes. Bytes are those of one device.

    Attributes:
      flops: Of the whole step, blocks that are computed anew included.
      parameter_bytes: Of the parameters.
      state_bytes: Of all that one step leaves for the next: parameters, optimiser, statistics.
      activation_bytes: The most that a step holds beside these, gradients included.
      free_bytes: Free on the device, or on its host, before the first step.
      speed: None if the step does not fit.
    """

    flops: float
    parameter_bytes: int
    state_bytes: int
    activation_bytes: int
    free_bytes: int
    speed: Speed | None


def rehearse(
    step: Any,
    init: Callable[[], Any],
    batch: Batch,
    *,
    parallel: Parallel,
    counted: Any = None,
    seconds: float = 10.0,
) -> Rehearsal:
    """Compiles a training step, and runs it if it fits into memory.

    Args:
      step: (state, batch) -> (state, metrics), as `parallel` runs it; may use up the state.
      init: Gives the first state, of which `params` are the parameters; is traced, and run once.
      batch: As in training, from `random_batch`.
      parallel: Which devices.
      counted: The same step by XLA alone: a library's work is not counted, a loop's body once, and
        Winograd's products are fewer. None: it is the same.
      seconds: About how long to run it, after a first step.
    """
    state, batch = jax.eval_shape(init), parallel.divide(batch)
    lowered = step.lower(state, batch)
    # Before compilation: after it, a GPU's convolutions are calls to a library, and not counted.
    counting = lowered if counted is None else counted.lower(state, batch)
    flops = counting.cost_analysis()["flops"]
    compiled = lowered.compile()
    parameters, held, free = _bytes(state.params), _bytes(state), free_memory()
    activations = compiled.memory_analysis().temp_size_in_bytes
    speed = None
    if held + activations <= free:
        state = parallel.replicate(init())

        def run() -> None:
            nonlocal state
            state, metrics = compiled(state, batch)
            jax.block_until_ready((state, metrics))

        run()  # The first one allocates.
        speed = time_steps(run, np.size(batch.valid), seconds)
    return Rehearsal(
        # Under a mapped axis, a program is one device's.
        flops=flops * (parallel.devices if parallel.axis_name else 1),
        parameter_bytes=parameters,
        state_bytes=held,
        activation_bytes=activations,
        free_bytes=free,
        speed=speed,
    )


def rehearse_training(
    config: Config, num_classes: int, *, parallel: Parallel, remat: bool = False
) -> Table:
    """Rehearses a training with these settings, and says what it takes.

    Args:
      config: The run's.
      num_classes: Channels of the logits.
      parallel: Which devices.
      remat: Whether blocks are computed anew in the backward pass.
    """
    classes = max(num_classes, 2)
    recipe = build_recipe(
        config,
        num_classes=num_classes,
        classes=classes,
        class_weights=None if config.loss.class_weights == "none" else (1.0,) * classes,
        steps_per_epoch=1,
        axis_name=parallel.axis_name,
        remat=remat,
    )
    init = recipe.first(config.train.seed, config.data.size)
    batch = random_batch(config, classes, hosts=jax.process_count())
    # A function of its own: one that was traced is not traced again.
    counted = parallel.train(traced_in(xla_alone, recipe.train))
    step = parallel.train(recipe.train)
    result = rehearse(step, init, batch, parallel=parallel, counted=counted)
    return rehearsal_table(result, config, named(parallel.devices), remat=remat)


def time_steps(step: Callable[[], object], images: int, seconds: float = 10.0) -> Speed:
    """Runs a step until the time is up, or 20 times; at least once.

    Args:
      step: Takes a whole step of either framework, not its first one, and waits for its end.
      images: In its batch.
      seconds: About how long.
    """
    begun, steps = time.monotonic(), 0
    while steps < MOST_STEPS and (steps == 0 or time.monotonic() - begun < seconds):
        step()
        steps += 1
    return Speed(steps * images / (time.monotonic() - begun), steps)


def random_batch(config: Config, classes: int, hosts: int = 1) -> Batch:
    """Noise, and augmentation as it is drawn in training: one host's share of a batch."""
    data, augment = config.data, config.augment
    shape = (config.batch_size // hosts, *data.prepared_size)
    rng = np.random.default_rng(0)
    where = {"size": data.size, "native": data.prepared_size, "stored": data.prepared_size}
    drawn = [draw(augment, seed=0, epoch=0, index=n, **where) for n in range(shape[0])]
    moved = geometric(augment) or data.prepared_size != data.size
    return Batch(
        image=rng.integers(0, 256, (*shape, 3), np.uint8),
        mask=rng.integers(0, classes, shape, np.uint8),
        valid=np.ones(shape[0], bool),
        geometry=np.stack([d.geometry for d in drawn]) if moved else None,
        colour=np.stack([d.colour for d in drawn]) if photometric(augment) else None,
        border=rng.integers(0, 256, shape, np.uint8) if config.loss.border_weight else None,
    )


def rehearsal_table(rehearsal: Rehearsal, config: Config, device: str, *, remat: bool) -> Table:
    """What a training step takes on a device, to be printed."""
    train = config.train
    parts = f" in {train.accumulate} parts" if train.accumulate > 1 else ""
    how = ", blocks computed anew in the backward pass" if remat else ""
    step = f"A training step of {config.batch_size} images{parts}, {train.precision}{how}"
    table = Table(
        title=f"{step}: {device}", caption="Random data; none is waited for.", show_header=False
    )
    table.add_column()
    table.add_column(justify="right")
    table.add_row("arithmetic", f"{rehearsal.flops / 1e9:,.3f} GFLOP")
    for name, size in (
        ("parameters", rehearsal.parameter_bytes),
        ("parameters, optimiser, statistics", rehearsal.state_bytes),
        ("activations and gradients", rehearsal.activation_bytes),
        ("free memory", rehearsal.free_bytes),
    ):
        table.add_row(name, f"{size / 1e6:,.1f} MB")
    table.add_row("speed", _speed(rehearsal.speed))
    return table


def _speed(speed: Speed | None) -> str:
    if speed is None:
        return "not measured: it does not fit"
    steps = "1 step" if speed.steps == 1 else f"{speed.steps} steps"
    return f"{speed.images_per_second:,.1f} images/s, measured over {steps}"


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))

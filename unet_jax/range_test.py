"""The learning rate range test: which peak a network can be trained with."""

import logging
import math
from collections.abc import Callable, Iterable
from functools import partial
from itertools import chain, count, islice
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.progress import track

from unet_jax.balance import class_weights
from unet_jax.bar import watched
from unet_jax.batch import Batch
from unet_jax.cli import INTERRUPTED, fail, mistakes
from unet_jax.config import Config
from unet_jax.datasets import DataError, open_dataset
from unet_jax.memory import out_of_memory
from unet_jax.parallel import Jit
from unet_jax.pipeline import Pipeline, num_logits
from unet_jax.range_test_options import RangeTestOptions
from unet_jax.recipe import build_recipe

SMOOTHING = 0.9
"""Share that the running mean of the loss keeps of itself."""

DIVERGED = 4.0
"""The test ends when the running mean is this many times its lowest."""


class Sweep(NamedTuple):
    """What the test saw.

    Attributes:
      rates: Learning rate of each step.
      losses: Loss of each step.
      smooth: Its running mean, without the bias of its start.
    """

    rates: list[float]
    losses: list[float]
    smooth: list[float]

    @property
    def suggestion(self) -> float:
        """A tenth of the learning rate at which the running mean was lowest."""
        return self.rates[int(np.argmin(self.smooth))] / 10


def range_test(options: RangeTestOptions, config: Config) -> int:
    """Trains from the lowest learning rate to the highest, and draws what that did to the loss.

    Returns:
      The exit status: 0 when it is drawn, 130 when Ctrl-C ended it.
    """
    logging.getLogger("absl").setLevel(logging.ERROR)
    console = Console()
    try:
        out = _plotted(options.out.expanduser())
        seen = _sweep(options, config, console)
        with mistakes():
            plot(seen, out)
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        if not out_of_memory(error):
            raise
        fail(
            f"too little memory for batches of {config.batch_size}: try a smaller --batch-size, "
            "--accumulate 2 (or more), --remat, or --precision bfloat16"
        )
    console.print(
        f"{len(seen.losses)} steps, to a learning rate of {seen.rates[-1]:.1e}; drawn in {out}",
        highlight=False,
        soft_wrap=True,
    )
    console.print(f"Suggested: --learning-rate {seen.suggestion:.1e}", style="bold green")
    return 0


def _plotted(out: Path) -> Path:
    """The file to draw into, which can be written as far as that is known before."""
    with mistakes():
        if out.suffix.lower() != ".png" or out.is_dir():
            raise ValueError(f"--out: {out} is not a PNG file's name")
        out.parent.mkdir(parents=True, exist_ok=True)
        out.open("ab").close()
        if not out.stat().st_size:
            out.unlink()
    return out


def _sweep(options: RangeTestOptions, config: Config, console: Console) -> Sweep:
    with mistakes((DataError, OSError)):
        builder = open_dataset(config.data)
    with mistakes():
        data = Pipeline.of(config, builder)
        config.loss.check(len(data.classes))
    with mistakes((DataError, OSError)):
        masks = watched(console, "Counting pixels", len(data.split.train))
        weights = class_weights(config.loss, len(data.classes), masks(data.train_masks()))
    recipe = build_recipe(
        config,
        num_classes=num_logits(data.classes),
        classes=len(data.classes),
        class_weights=weights,
        steps_per_epoch=data.steps,
        remat=options.remat,
    )
    batches = islice(chain.from_iterable(map(data.train, count())), options.steps)
    progress = track(batches, "range test", total=options.steps, console=console, transient=True)
    state = recipe.first(config.train.seed, config.data.size)()
    rates = np.geomspace(options.lowest, options.highest, options.steps).tolist()
    seen = sweep(recipe.train, state, progress, rates)
    if not seen.losses:
        fail(f"lowest: the loss is not finite at a learning rate of {options.lowest}")
    return seen


def sweep(
    train: Callable[..., Any], state: Any, batches: Iterable[Batch], rates: list[float]
) -> Sweep:
    """Trains with a learning rate of its own at each step.

    Args:
      train: (state, batch, learning_rate=) -> (state, metrics), as `unet_jax.step.train_step`.
      state: The first one; used up.
      batches: One for each rate.
      rates: Each by the same factor larger than the one before.

    Returns:
      All steps until the loss was no longer finite, or far above its lowest.

    References:
      Smith, 2017. https://arxiv.org/abs/1506.01186
    """
    table = jnp.asarray(rates)
    step = Jit().train(partial(train, learning_rate=lambda n: table[n]))
    seen, mean = Sweep([], [], []), 0.0
    for n, (batch, rate) in enumerate(zip(batches, rates, strict=True), start=1):
        state, metrics = step(state, batch)
        loss = float(metrics["loss"])
        if not math.isfinite(loss):
            break
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        seen.rates.append(rate)
        seen.losses.append(loss)
        seen.smooth.append(mean / (1 - SMOOTHING**n))
        if seen.smooth[-1] > DIVERGED * min(seen.smooth):
            break
    return seen


def plot(seen: Sweep, path: Path) -> None:
    """Draws loss against learning rate, and the suggestion, into a PNG file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.semilogx(seen.rates, seen.losses, color="#94a3b8", linewidth=0.8, label="loss of a step")
    axes.semilogx(seen.rates, seen.smooth, color="#1d4ed8", linewidth=2, label="running mean")
    label = f"suggestion: {seen.suggestion:.1e}"
    axes.axvline(seen.suggestion, color="#f59e0b", linestyle="--", label=label)
    top = max(seen.smooth[0], np.median(seen.losses)) * 1.5
    axes.set(xlabel="learning rate", ylabel="loss", ylim=(0, top), title="Learning rate range test")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)

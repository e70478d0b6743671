"""A run's plots: its curves, and its confusion matrix."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unet_jax.scoreboard import shown, title

MOST_NAMED, MOST_NUMBERED = 40, 12  # Classes of a confusion matrix.


def plot_curves(records: Sequence[Mapping[str, Any]], best: str, path: Path) -> None:
    """Draws loss and validation scores by epoch.

    Args:
      records: One an epoch.
      best: Which score says what the best epoch is; drawn, too.
      path: PNG file; overwritten.
    """
    from matplotlib.figure import Figure  # Slow to import, and only needed here.

    epochs = [record["epoch"] for record in records]
    figure = Figure(figsize=(10, 4), layout="constrained")
    losses, quality = figure.subplots(1, 2)
    for name, label in (("train_loss", "training"), ("val_loss", "validation")):
        losses.plot(epochs, [r[name] for r in records], marker=".", label=label)
    for name in shown(best):
        if name != "val_loss":
            quality.plot(epochs, [r[name] for r in records], marker=".", label=title(name))
    losses.set(title="Loss", xlabel="epoch", yscale="log")
    quality.set(title="Validation", xlabel="epoch")
    for axes in (losses, quality):
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=120)


def plot_confusion(confusion: np.ndarray, classes: Sequence[str], path: Path) -> None:
    """Draws into the PNG file `path` what the pixels of each true class were taken for.

    Args:
      confusion: Counts [C, C], true classes in rows.
      classes: Name of each class; left out where they are too many to be read.
      path: Overwritten.
    """
    from matplotlib.colors import PowerNorm  # Slow to import, and only needed here.
    from matplotlib.figure import Figure

    count, names = len(classes), [_shortened(name) for name in classes]
    pixels = confusion.sum(axis=1, keepdims=True)
    percent = 100 * np.ma.divide(np.ma.asarray(confusion), np.ma.masked_equal(pixels, 0))
    cell = 0.62 if count <= MOST_NUMBERED else 0.27 if count <= MOST_NAMED else 0.05  # In inches.
    side = max(cell * count, 2.5)
    figure = Figure(figsize=(side, side))
    axes = figure.add_axes((0, 0, 1, 1))  # Labels are outside; saving makes room for them.
    # Below a power of 1, a few per cent of confusion are seen beside a strong diagonal.
    scale = PowerNorm(0.5, 0, 100)
    image = axes.imshow(percent, "Blues", norm=scale, interpolation="nearest")
    empty = " (grey: none)" if (pixels == 0).any() else ""
    axes.set(xlabel="predicted class", ylabel="true class" + empty, facecolor="#e4e4e4")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if count <= MOST_NAMED:
        # A name may have dollar signs, which are no formula.
        axes.set_xticks(range(count), names, rotation=90 if count > 2 else 0, parse_math=False)
        axes.set_yticks(range(count), names, parse_math=False)
    if count <= MOST_NUMBERED:
        for (row, column), share in np.ma.ndenumerate(percent):
            if share >= 0.05:
                ink = "white" if scale(share) > 0.6 else "#24303c"
                style = {"ha": "center", "va": "center", "fontsize": 9, "color": ink}
                axes.text(column, row, f"{share:.1f}", style)
    bar = figure.colorbar(
        image, cax=axes.inset_axes((1.02, 0, 0.03, 1)), ticks=[0, 1, 5, 10, 25, 50, 75, 100]
    )
    bar.set_label("% of the true class' pixels")
    bar.outline.set_visible(False)
    figure.savefig(path, dpi=120, bbox_inches="tight", pad_inches=0.15)


def _shortened(name: str) -> str:
    return name if len(name) <= 20 else name[:19] + "…"

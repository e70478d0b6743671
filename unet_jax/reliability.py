"""The plot of how far probabilities can be believed."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from unet_jax.evaluation.calibration import Calibration, best_threshold, dice_by_threshold


def plot_reliability(found: Mapping[str, Calibration], classes: int, path: Path) -> None:
    """Draws into the PNG file `path` how often what has a probability comes true; and of two
    classes, what Dice other thresholds would give.

    Args:
      found: Of each network, by its label.
      classes: Number of classes.
      path: Overwritten.
    """
    from matplotlib.figure import Figure  # Slow to import, and only needed here.
    from matplotlib.ticker import LogLocator, NullFormatter

    two = classes == 2
    figure = Figure(figsize=(10 if two else 5, 5), layout="constrained")
    panels = figure.subplots(2, 2 if two else 1, height_ratios=(3, 1), squeeze=False, sharex="col")
    curve, pixels = panels[:, 0]
    curve.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle="--")
    for label, each in found.items():
        some = each.pixels > 0
        given = each.probability[some] / each.pixels[some]
        curve.plot(
            given,
            each.occurred[some] / each.pixels[some],
            marker="o",
            ms=4,
            label=label,
            clip_on=False,
        )
        pixels.stairs(each.pixels / each.pixels.sum(), np.linspace(0, 1, len(each.pixels) + 1))
    event = "foreground" if two else "right"
    curve.set(title="Reliability", ylabel=f"share that is {event}", xlim=(0, 1), ylim=(0, 1))
    pixels.set(
        xlabel=f"probability of {'the foreground' if two else 'the predicted class'}",
        ylabel="pixels",
        yscale="log",
    )
    pixels.yaxis.set_major_locator(LogLocator(numticks=4))
    pixels.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g} %")
    pixels.yaxis.set_minor_formatter(NullFormatter())
    if two:
        figure.delaxes(panels[1, 1])
        figure.delaxes(panels[0, 1])
        dice = figure.add_subplot(panels[0, 0].get_gridspec()[:, 1])
        heights: list[float] = []
        for label, each in found.items():
            values, line = dice_by_threshold(each.levels)
            best = best_threshold(each.levels)
            (drawn,) = dice.plot(values, line, label=label)
            dice.plot(*best, marker="o", color=drawn.get_color())
            heights += [best.dice, line[len(line) // 2]]  # And at 0.5.
        dice.axvline(0.5, color="0.6", linewidth=1, linestyle="--")
        dice.set(title="Dice by threshold", xlabel="threshold", xlim=(0, 1))
        room = max(0.05, (max(heights) - min(heights)) / 4)
        dice.set_ylim(max(0, min(heights) - room), min(1, max(heights) + room / 4))
    for axes in figure.axes:
        axes.grid(alpha=0.3)
    if len(found) > 1:
        figure.axes[-1 if two else 0].legend()
    figure.savefig(path, dpi=120)

"""Rates as bars, beside the JSON file they are drawn from."""

from pathlib import Path
from textwrap import shorten

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from parity.benchmark.contender import NEEDS_GPU
from parity.benchmark.layers import lost
from parity.benchmark.result import Results, Row
from parity.benchmark.table import cases, number

COLOURS = {"JAX": "#1a73b8", "JAX of another checkout": "#8fbfe0", "PyTorch": "#d9822b"}
BAR = 0.32
"""Inches of the figure's height that a bar takes."""
LONGEST = 110
"""Characters of a reason that fit into the figure's width."""
LAYERS = 24
"""Bars at most of a network's layers: those at which most is lost, or won."""


def draw(results: Results, path: Path) -> None:
    """Writes a PNG file: images/s of each contender, with quartiles; or time lost at each layer."""
    groups = cases([row for row in results.rows if row.failure != NEEDS_GPU])
    if results.subject == "ops":
        groups = {"forward and backward": results.rows}
    counts = [min(len(rows), LAYERS) for rows in groups.values()]
    figure = Figure(figsize=(9, BAR * sum(counts) + 1.1 * len(groups)), layout="constrained")
    FigureCanvasAgg(figure)
    heights = [count + 1 for count in counts]
    plots = figure.subplots(len(groups), 1, squeeze=False, height_ratios=heights)[:, 0]
    for plot, (case, rows) in zip(plots, groups.items(), strict=True):
        if results.subject == "ops":
            _layers(plot, rows)
        else:
            _rates(plot, rows)
        plot.set_title(f"{results.subject}: {results.title}, {case}", fontsize=9, loc="left")
        plot.spines[["top", "right"]].set_visible(False)
        plot.tick_params(labelsize=8)
    figure.suptitle(f"{results.device}, {results.facts['date']}", fontsize=9)
    figure.savefig(path, dpi=130)


def _rates(plot, rows: list[Row]) -> None:
    shown = rows[::-1]  # The first one on top.
    plot.set_yticks(range(len(shown)), [row.contender for row in shown], parse_math=False)
    plot.set_xlabel("images/s, with quartiles", fontsize=8)
    measured = [row for row in shown if row.failure is None]
    most = max((row.images / row.quartiles[0] for row in measured), default=1.0)
    for place, row in enumerate(shown):
        if row.failure is not None:
            text = shorten(f"not measured: {row.failure}", LONGEST, placeholder=" …")
            plot.text(0, place, f" {text}", va="center", fontsize=7, parse_math=False)
            continue
        slow, fast = (row.images / seconds for seconds in reversed(row.quartiles))
        error = [[max(row.rate - slow, 0)], [max(fast - row.rate, 0)]]
        own = "JAX" if row.contender.startswith("JAX") else "PyTorch"
        colour = COLOURS["JAX of another checkout" if row.checkout else own]
        plot.barh(place, row.rate, 0.7, color=colour, xerr=error, ecolor="#333333", capsize=2)
        plot.text(fast + most / 100, place, number(row.rate), va="center", fontsize=7)
    plot.set_xlim(0, 1.12 * most)
    plot.set_ylim(-0.6, len(shown) - 0.4)  # A row without a bar has its place, too.


def _layers(plot, rows: list[Row]) -> None:
    seconds = lost(rows)
    shown = sorted(seconds, key=lambda case: -abs(seconds[case]))[:LAYERS]
    shown.sort(key=lambda case: seconds[case])
    plot.set_yticks(range(len(shown)), shown)
    for place, case in enumerate(shown):
        colour = COLOURS["PyTorch" if seconds[case] > 0 else "JAX"]
        plot.barh(place, 1000 * seconds[case], 0.7, color=colour)
    plot.axvline(0, color="#333333", linewidth=0.8)
    plot.set_xlabel("ms of a step that JAX takes longer than PyTorch", fontsize=8)

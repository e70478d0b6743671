"""The plots of a parity report as SVG, in the colours of whatever page they stand in."""

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from parity.pages.findings import EPSILON, POOLED, Entry, distinct, grouped, number, share, size
from unet_jax.page import INK, charts, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {"float64": "#2f7fc1", "float32": "#e08214", "bfloat16": "#1b9e77", "float16": "#9970c9"}
"""Of each precision: told apart by the colour-blind, too, on white and on black."""
OTHER, FAILED = "#7f8c99", "#d6302b"
LOWEST = 1e-17
"""Where an error of 0 is drawn: a logarithmic axis has none."""
HIGHEST = 10.0
"""Where an infinite error is drawn."""
NAMED = 45
"""Tensors beyond which blocks are named instead, such as encoder_0 for encoder_0/conv_1."""
TALLEST = 9.0
"""Inches."""


def colour(precision: str) -> str:
    return COLOURS.get(precision, OTHER)


def layers(rows: Sequence[Entry], case: str, stage: str) -> list[Entry]:
    """The tensors of one stage, in the order in which their layers run."""
    own = [row for row in rows if row["case"] == case and row["name"] != POOLED]
    found = [row for row in own if row["stage"] == stage]
    if stage == "gradients":  # They come in the order in which their layers were made.
        ran = {row["name"]: index for index, row in enumerate(own) if row["stage"] == "eval"}
        found.sort(key=lambda row: ran.get(row["name"].rpartition("/")[0], len(own)))
    return found


def shown_case(rows: Sequence[Entry], first: Entry | None) -> str | None:
    """The case whose layers are shown by name: the one that fails, or else that of most layers."""
    cases = [row["case"] for row in rows if row["stage"] == "eval"]
    if first is not None and first["case"] in cases:
        return first["case"]
    return max(dict.fromkeys(cases), key=cases.count, default=None)


def by_layer(rows: Sequence[Entry], title: str) -> str:
    """A point for the error of each layer, from the first at the top to the last.

    Args:
      rows: Of one case and one stage, of all precisions.
      title: Of the plot, also read out.
    """
    from matplotlib.figure import Figure

    names = distinct(rows, "name")
    place = {name: index for index, name in enumerate(names)}
    right = max(max(_drawn(row), min(number(row["limit"]), HIGHEST)) for row in rows)
    with charts(title, 8):
        pitch = 0.155 if len(names) <= NAMED else 0.075
        height = min(1.1 + pitch * len(names), TALLEST)
        figure = Figure(figsize=(5, height), layout="constrained")
        axes = figure.subplots()
        for (precision,), own in grouped(rows, "precision").items():
            tint = colour(precision)
            if precision in EPSILON:
                axes.axvline(EPSILON[precision], color=tint, linewidth=1, linestyle=(0, (4, 3)))
            limits = [(place[row["name"]], number(row["limit"])) for row in own]
            axes.plot(
                [max(limit, LOWEST) for _, limit in limits],
                [index for index, _ in limits],
                color=tint,
                linewidth=4,
                alpha=0.35,
                solid_capstyle="butt",
            )
            fine = [row for row in own if row["passed"]]
            axes.scatter(
                [_drawn(row) for row in fine],
                [place[row["name"]] for row in fine],
                s=11,
                color=tint,
                zorder=3,
            )
        failed = [row for row in rows if not row["passed"]]
        axes.scatter(
            [_drawn(row) for row in failed],
            [place[row["name"]] for row in failed],
            s=26,
            marker="x",
            color=FAILED,
            zorder=4,
        )
        axes.set_xscale("log")
        axes.set(xlim=(LOWEST / 2, 5 * right), ylim=(len(names) - 0.4, -0.6))
        axes.set_xlabel("relative error")
        axes.set_title(title)
        _plain(axes)
        if len(names) <= NAMED:
            axes.set_yticks(range(len(names)), names)
        else:
            _name_blocks(axes, names, (height - 1.1) / len(names))
        if failed and len(names) > NAMED:
            row = failed[0]
            near = {"xy": (_drawn(row), place[row["name"]]), "xytext": (-7, 0), "va": "center"}
            axes.annotate(row["name"], **near, textcoords="offset points", ha="right", color=FAILED)
        axes.xaxis.set_major_formatter(_power)
        return svg(figure, f"{title}: {_said(rows)}")


def small(rows: Sequence[Entry], case: str) -> str:
    """One case in small: errors of its layers in evaluation (solid), and gradients (dashed)."""
    from matplotlib.figure import Figure

    with charts(case, 8):
        figure = Figure(figsize=(2.6, 1.75))
        axes = figure.add_axes((0.17, 0.13, 0.8, 0.74))
        failed = []
        for stage, style in (("eval", "solid"), ("gradients", (0, (2.5, 1)))):
            for (precision,), own in grouped(layers(rows, case, stage), "precision").items():
                depth = [index / max(len(own) - 1, 1) for index in range(len(own))]
                errors = [_drawn(row) for row in own]
                axes.plot(depth, errors, color=colour(precision), linewidth=1.1, linestyle=style)
                failed += [
                    each
                    for each, row in zip(zip(depth, errors, strict=True), own, strict=True)
                    if not row["passed"]
                ]
                if precision in EPSILON and stage == "eval":
                    axes.axhline(EPSILON[precision], color=colour(precision), linewidth=0.6)
        axes.plot(*zip(*failed, strict=True), "x", color=FAILED) if failed else None
        axes.set_yscale("log")
        axes.set(ylim=(LOWEST / 2, 10 * max([1e-5, *(y for _, y in failed)])))
        axes.set_xticks([0, 1], ["first", "last"])
        axes.set_title(case, size=8)
        _plain(axes)
        axes.yaxis.set_major_formatter(_power)
        axes.tick_params(length=0)
        return svg(figure, f"Error by layer of {case}")


def losses(curves: Mapping[str, Any], precision: str) -> str:
    """Both loss curves, and below them how far apart they are at each step.

    Args:
      curves: Losses under `jax` and `torch`; under `band`, if there is one, the lowest and highest
        that rounding alone brings about.
      precision: Of the training.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    ours, theirs = (_numbers(curves[name]) for name in ("jax", "torch"))
    length = min(len(ours), len(theirs))
    steps, ours, theirs = range(1, length + 1), ours[:length], theirs[:length]
    band = curves.get("band")
    with charts(f"losses {precision}", 9):
        figure = Figure(figsize=(5, 3.9), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        tint = colour(precision)
        above.plot(steps, theirs, color=tint, linewidth=5, alpha=0.45, label="PyTorch")
        above.plot(steps, ours, color=INK, linewidth=1.2, label="JAX")
        if band:
            low, high = (_numbers(band[name])[:length] for name in ("low", "high"))
            own = range(1, min(len(low), len(high)) + 1)
            low, high = low[: len(own)], high[: len(own)]
            above.fill_between(own, low, high, color=OTHER, alpha=0.35, label="rounding", lw=0)
            widths = [
                max(_gap(a, b), _gap(c, b)) for a, b, c in zip(low, theirs, high, strict=False)
            ]
            below.fill_between(
                own, LOWEST, [max(each, LOWEST) for each in widths], color=OTHER, alpha=0.3, lw=0
            )
        gaps = [_gap(a, b) for a, b in zip(ours, theirs, strict=True)]
        below.plot(steps, [max(gap, LOWEST) for gap in gaps], color=tint, marker=".", linewidth=1)
        below.set_yscale("log")
        if precision in EPSILON:
            below.axhline(EPSILON[precision], color=tint, linewidth=1, linestyle=(0, (4, 3)))
        above.set(title=f"Training in {precision}", ylabel="loss")
        below.set(xlabel="step", ylabel="rel. difference")
        below.set_ylim(LOWEST / 2 if 0 in gaps else None)
        above.legend(frameon=False)
        for axes in (above, below):
            _plain(axes)
        below.yaxis.set_major_formatter(_power)
        below.xaxis.set_major_locator(MaxNLocator(integer=True))
        largest = max(gaps, default=0)
        said = f"{length} losses of each framework while training in {precision}"
        return svg(figure, f"{said}; at most {largest:.1e} apart")


def _name_blocks(axes: "Axes", names: Sequence[str], pitch: float) -> None:
    """Names blocks of layers, which are `pitch` inches apart, on a ground that alternates."""
    ticks, last = {}, -math.inf
    blocks = groupby(range(len(names)), lambda index: names[index].split("/")[0])
    for turn, (block, members) in enumerate(blocks):
        own = list(members)
        if turn % 2:
            axes.axhspan(own[0] - 0.5, own[-1] + 0.5, color=INK, alpha=0.05, linewidth=0)
        middle = (own[0] + own[-1]) / 2
        if (middle - last) * pitch >= 0.12:  # Letters are 8 points high.
            ticks[middle], last = block, middle
    axes.set_yticks(list(ticks), list(ticks.values()))
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")


def _drawn(row: Entry) -> float:
    """Where an error is drawn."""
    return min(max(number(row["error"]), LOWEST), HIGHEST)


def _numbers(values: Sequence[Any]) -> list[float]:
    return [math.nan if value is None else float(value) for value in values]


def _gap(ours: float, theirs: float) -> float:
    return abs(ours - theirs) / (abs(theirs) or 1.0)


def _said(rows: Sequence[Entry]) -> str:
    """The worst of each precision, for those who do not see the plot."""
    parts = []
    for (precision,), own in grouped(rows, "precision").items():
        top = max(own, key=share)
        parts.append(f"worst in {precision} {number(top['error']):.1e} at {top['name']}")
    return "; ".join(parts)


def _power(value: float, _: float) -> str:
    """A power of ten as the page's numbers are written."""
    return size(value)


def _plain(axes: "Axes") -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.2, color=INK)
    axes.minorticks_off()

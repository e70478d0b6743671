"""The page that compares the runs of a folder: `index.html`, which opens without a server."""

import os
import time
from collections.abc import Sequence
from html import escape
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import quote

from unet_jax.config import PLACES
from unet_jax.history import PastRun, Unreadable, read_run
from unet_jax.page import INK, charts, document, key, svg, table
from unet_jax.retention import merit
from unet_jax.scoreboard import shown, title

PAGE = "index.html"
MARK = '<meta name="generator" content="unet-jax">'
COLOURS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#17becf")
DASHES = ((), (5, 2), (1.5, 1.5))  # For the ninth run and later ones.
Style = tuple[str, tuple[float, ...]]
"""Of a run's curves: colour and dashes."""


def refresh(workdir: Path, patience: float = 0.0) -> Path | None:
    """Compares the run in `workdir` with those beside it.

    Only where a page is expected: in a folder named runs, the default, or one that has such a page.

    Args:
      workdir: The run's folder.
      patience: Seconds for which a page is good enough.

    Returns:
      The page; None if none was written.
    """
    folder = workdir.resolve().parent
    page = folder / PAGE
    expected = _is_ours(page) if page.exists() else folder.name == "runs"
    fresh = page.exists() and time.time() - page.stat().st_mtime < patience
    return write_page(folder) if expected and not fresh else None


def write_page(folder: Path) -> Path:
    """Compares the runs directly in `folder` in its `index.html`.

    Raises:
      ValueError: There is no such folder, or its `index.html` is somebody else's.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    page = folder / PAGE
    if page.exists() and not _is_ours(page):
        raise ValueError(f"{page} is another page; move it away to have the runs compared")
    runs, skipped = [], []
    for path in sorted(folder.iterdir()):
        try:
            run = read_run(path)
        except Unreadable as reason:
            skipped.append(f"{path.name}: {reason}")
        else:
            runs += [run] if run else []
    draft = page.with_name(f"{PAGE}.{os.getpid()}.part")  # Two runs may end at once.
    draft.write_text(_page(folder.resolve().name, runs, skipped), encoding="utf-8")
    os.replace(draft, page)
    return page


def _is_ours(page: Path) -> bool:
    return MARK in page.read_text(encoding="utf-8", errors="replace")


def _page(name: str, runs: Sequence[PastRun], skipped: Sequence[str]) -> str:
    by_dataset: dict[str, list[PastRun]] = {}
    for run in runs:
        by_dataset.setdefault(str(run.settings.get("dataset")), []).append(run)
    sections = "".join(_section(*item) for item in sorted(by_dataset.items()))
    items = "".join(f"<li>{escape(line)}</li>" for line in skipped)
    left_out = f"<h2>Left out</h2><ul>{items}</ul>" if skipped else ""
    count = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
    return document(
        name,
        f"<h1>{escape(name)}</h1><p>{count}; written {time.strftime('%Y-%m-%d %H:%M')}</p>"
        f"{sections}{left_out}",
        head=MARK,
    )


def _section(dataset: str, runs: list[PastRun]) -> str:
    """The runs on one data set, the best one first."""
    runs.sort(key=lambda run: -run.best.dice)
    styles = [(colour, dashes) for dashes, colour in product(DASHES, COLOURS)]
    styles = [styles[n % len(styles)] for n in range(len(runs))]
    labels = [_label(run, style) for run, style in zip(runs, styles, strict=True)]
    names = dict.fromkeys(name for run in runs for name in shown(run.deciding))
    names = sorted(names, key=lambda name: name == "val_loss")  # Which goes to the end.
    curves = "".join(_curves(name, runs, styles) for name in names)
    return (
        f"\n<h2>{escape(dataset)}</h2>{_scores(runs, labels, names)}{_settings(runs, labels)}"
        f'<div class="curves">{curves}</div>\n'
        f'<div class="pictures">{"".join(_picture(run) for run in runs if run.picture)}</div>'
    )


def _label(run: PastRun, style: Style) -> str:
    """The run's name, with a sample of its curves' line."""
    return f'{key(*style)}<a href="{_link(run.folder)}/">{escape(run.folder.name)}</a>'


def _link(path: Path, inside: Path | None = None) -> str:
    return quote(path.relative_to(inside or path.parent).as_posix())


def _scores(runs: Sequence[PastRun], labels: Sequence[str], names: Sequence[str]) -> str:
    """A row for each run; the best of each of the named scores is bold."""
    titles = map(title, names)
    headings = ("run", "best epoch", *titles, "wall time", "images/s", "device", "ended")
    columns = [[getattr(run.best, name) for run in runs] for name in names]
    cells = [_bold(*column) for column in zip(columns, names, strict=True)]
    rows = []
    for run, label, *values in zip(runs, labels, *cells, strict=True):
        speed, seconds = run.summary.images_per_second, run.summary.wall_seconds
        rows.append(
            (
                label,
                f"{run.best.epoch} of {len(run.epochs)}",
                *values,
                "unfinished" if seconds is None else _duration(seconds),
                "–" if speed is None else f"{speed:.1f}",
                escape(", ".join(filter(None, (run.summary.framework, run.summary.device)))),
                escape(run.date),
            )
        )
    return table(headings, rows)


def _bold(values: Sequence[float | None], name: str) -> list[str]:
    """A score of all runs, of which earlier versions may have none; the best is bold."""
    lowest = name == "val_loss"
    top = max((merit(value, lowest) for value in values if value is not None), default=None)
    return [
        "–"
        if value is None
        else f"<b>{value:.4f}</b>"
        if merit(value, lowest) == top
        else f"{value:.4f}"
        for value in values
    ]


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if seconds < 600:
        return (
            f"{seconds // 60:.0f} min {seconds % 60:.0f} s" if seconds >= 60 else f"{seconds:.0f} s"
        )
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def _settings(runs: Sequence[PastRun], labels: Sequence[str]) -> str:
    """What was not set alike in all runs, but for where the data lies."""
    names = [
        name
        for name in dict.fromkeys(name for run in runs for name in run.settings)
        if name not in PLACES and len({repr(run.settings.get(name)) for run in runs}) > 1
    ]
    rows = (
        (label, *(_value(run.settings.get(name)) for name in names))
        for run, label in zip(runs, labels, strict=True)
    )
    return table(("settings that differ", *map(escape, names)), rows) if names else ""


def _value(setting: Any) -> str:
    if isinstance(setting, list):
        return " ".join(map(_value, setting))
    return "–" if setting is None else escape(str(setting))


def _curves(score: str, runs: Sequence[PastRun], styles: Sequence[Style]) -> str:
    """A score of all runs over their epochs, as SVG."""
    from matplotlib.figure import Figure  # Slow to import, and only needed here.
    from matplotlib.ticker import LogLocator, MaxNLocator

    with charts(score):
        figure = Figure(figsize=(6.4, 3.2), layout="constrained")
        axes = figure.subplots()
        lines = [[getattr(epoch, score) for epoch in run.epochs] for run in runs]
        for run, line, (colour, dashes) in zip(runs, lines, styles, strict=True):
            axes.plot(
                [epoch.epoch for epoch in run.epochs],
                line,
                color=colour,
                linestyle=(0, dashes) if dashes else "solid",
                marker="." if len(line) < 15 else "",
            )
        axes.set(title=title(score), xlabel="epoch")
        values = [value for line in lines for value in line]
        if score == "val_loss" and 0 < 10 * min(values) < max(values):
            axes.set_yscale("log", subs=())
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.2, color=INK)
        return svg(figure, f"{title(score)} of each run over its epochs")


def _picture(run: PastRun) -> str:
    """The run's last predictions, with links to its other pictures."""
    assert run.picture is not None
    parent = run.folder.parent
    source, name = _link(run.picture, parent), escape(run.folder.name)
    links = [
        f'<a href="{_link(run.folder / file, parent)}">{text}</a>'
        for file, text in (("curves.png", "curves"), ("confusion.png", "confusion matrix"))
        if (run.folder / file).is_file()
    ]
    return (
        f'<figure><a href="{source}"><img src="{source}" alt="predictions" loading="lazy"></a>'
        f"<figcaption>{' · '.join([name, *links])}</figcaption></figure>\n"
    )

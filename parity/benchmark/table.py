"""A benchmark's rows, to be read in a terminal or on a page."""

from collections.abc import Sequence

from rich.table import Table

from parity.benchmark.layers import PARTS, lost
from parity.benchmark.result import Results, Row

HEADINGS = (
    "contender",
    "images/s",
    "ms a step: median (quartiles)",
    "first step, more s",
    "memory, MB",
    "TFLOP/s",
    "of roofline",
    "off reference",
)
LAYER_HEADINGS = ("layer", "times", "JAX, ms", "PyTorch, ms", "ratio", "of roofline", "lost, ms")


def cases(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows by case, in order."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.case, []).append(row)
    return found


def cells(row: Row) -> tuple[str, ...]:
    """What stands under `HEADINGS`."""
    if row.failure is not None:
        return row.contender, f"not measured: {row.failure}", *[""] * (len(HEADINGS) - 2)
    low, high = row.quartiles
    fewer = "" if len(row.samples) >= 20 else f", {len(row.samples)} samples"
    return (
        row.contender,
        number(row.rate),
        f"{milli(row.median)} ({milli(low)} to {milli(high)}){fewer}",
        number(row.compilation),
        "–" if row.memory is None else f"{row.memory / 1e6:,.0f}",
        f"{row.tflops:.3g}",
        "–" if row.roofline is None else f"{row.roofline:.0%}",
        "–" if row.distance is None else f"{row.distance:.0e}",
    )


def layer_cells(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """What stands under `LAYER_HEADINGS`, by time lost: two lines a layer."""
    lines = []
    for case in lost(rows):
        for part in PARTS:
            ours, theirs = (
                next(r for r in rows if r.case == case and r.contender == f"{name} {part}")
                for name in ("JAX", "PyTorch")
            )
            lines.append(
                (
                    f"{case}: {part}",
                    f"{ours.count}",
                    milli(ours.median),
                    milli(theirs.median),
                    f"{ours.median / theirs.median:.2f}×",
                    f"{ours.roofline or 0:.0%}, {theirs.roofline or 0:.0%}",
                    milli(ours.count * (ours.median - theirs.median)),
                )
            )
    return lines


def verdict(rows: Sequence[Row]) -> str | None:
    """JAX' best row against PyTorch's best, of the same case; None if one of them has none."""
    best: dict[str, Row] = {}
    for row in rows:
        name = row.contender.partition(" ")[0]
        if row.failure is None and (name not in best or row.rate > best[name].rate):
            best[name] = row
    if set(best) != {"JAX", "PyTorch"}:
        return None
    ours, theirs = best["JAX"], best["PyTorch"]
    text = f"{ours.contender}: {ours.rate / theirs.rate:.2f}× {theirs.contender}"
    if ours.memory is not None and theirs.memory is not None:
        text += f", with {ours.memory / max(theirs.memory, 1):.2f}× its memory"
    return text


def loading(rows: Sequence[Row]) -> list[str]:
    """How much of the rate without loading is left with it, where both were measured."""
    rates = {row.contender: row.rate for row in rows if row.failure is None}
    return [
        f"{name}: {rate / rates[step]:.1%} of the rate without"
        for name, rate in rates.items()
        if (step := name.partition(", from")[0]) in rates and step != name
    ]


def tables(results: Results) -> list[Table]:
    """One for each case; of layers, one for all."""
    peaks = results.facts["peaks"]
    caption = (
        f"Peaks {peaks['source']}. Training counts 3 forward passes; convolutions alone count."
    )
    if results.subject == "ops":
        return [_table(results.title, LAYER_HEADINGS, layer_cells(results.rows), caption)]
    return [
        _table(
            f"{results.subject}: {results.title}, {case}",
            HEADINGS,
            [cells(row) for row in rows],
            "\n".join([caption, *filter(None, [verdict(rows)]), *loading(rows)]),
        )
        for case, rows in cases(results.rows).items()
    ]


def _table(
    title: str, headings: Sequence[str], lines: Sequence[Sequence[str]], caption: str
) -> Table:
    table = Table(title=title, caption=caption)
    for n, heading in enumerate(headings):
        table.add_column(heading, justify="right" if n else "left")
    for line in lines:
        table.add_row(*line)
    return table


def number(value: float) -> str:
    """With about three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def milli(seconds: float) -> str:
    """Milliseconds."""
    return number(1000 * seconds) if seconds >= 0 else f"-{number(-1000 * seconds)}"

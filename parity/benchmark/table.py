"""A benchmark's rows, to be read in a terminal or on a page."""

from collections import Counter
from collections.abc import Sequence
from statistics import median

from rich.table import Table
from rich.text import Text

from parity.benchmark.contender import HELD, LOADED, NEEDS_GPU
from parity.benchmark.duel import duels
from parity.benchmark.layers import PARTS, lost
from parity.benchmark.result import Results, Row, quartiles
from parity.benchmark.scaling import modelled
from parity.pages.findings import count

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


def lines(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """What stands under `HEADINGS`; of all that need a GPU, one line for a precision."""
    absent = Counter(row.precision for row in rows if row.failure == NEEDS_GPU)
    shown = [_cells(row) for row in rows if row.failure != NEEDS_GPU]
    for precision, many in absent.items():
        contenders = count(many, "contender")
        shown.append(_unmeasured(f"{contenders} in {precision}", NEEDS_GPU))
    return shown


def _unmeasured(name: str, reason: str) -> tuple[str, ...]:
    return name, "–", f"not measured: {reason}", *[""] * (len(HEADINGS) - 3)


def _cells(row: Row) -> tuple[str, ...]:
    if row.failure is not None:
        return _unmeasured(row.contender, row.failure)
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
    shown = []
    for case in lost(rows):
        for part in PARTS:
            ours, theirs = (
                next(r for r in rows if r.case == case and r.contender == f"{name} {part}")
                for name in ("JAX", "PyTorch")
            )
            shown.append(
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
    return shown


def loading(rows: Sequence[Row]) -> list[str]:
    """How much of the rate without loading is left with it, where both were measured."""
    rates = {row.contender: row.rate for row in rows if row.failure is None}
    return [
        f"{name}: {rate / rates[step]:.1%} of the rate without"
        for name, rate in rates.items()
        if name.endswith((LOADED, HELD))
        and (step := name.removesuffix(LOADED).removesuffix(HELD)) in rates
    ]


def against_checkouts(rows: Sequence[Row]) -> list[str]:
    """How this checkout compares with others of the project, where both were measured."""
    measured = {row.contender: row for row in rows if row.failure is None}
    return [
        f"{own}: {_turn_by_turn(measured[own], row)} {row.contender}"
        for row in measured.values()
        if row.checkout and (own := row.contender.removeprefix(f"{row.checkout}: ")) in measured
    ]


def _turn_by_turn(one: Row, other: Row) -> str:
    """How many times as fast one is, and the quartiles of that: drift cancels within a turn."""
    ratios = [b / a for a, b in zip(one.samples, other.samples, strict=False)]
    low, high = quartiles(ratios)
    return f"{median(ratios):.3f}× ({low:.3f} to {high:.3f}, turn by turn)"


def spread(rows: Sequence[Row]) -> list[str]:
    """What several devices make of each one's rate in the same precision."""
    counted = [row for row in rows if row.contender.startswith("JAX, ")]
    several = len({row.precision for row in counted}) > 1
    rates = {
        (row.precision, int(row.contender.split()[1])): row.rate
        for row in counted
        if row.failure is None
    }
    return [
        f"{n} devices: {rate / (n * rates[precision, 1]):.0%} of {n} times one's rate"
        + (f" in {precision}" if several else "")
        for (precision, n), rate in rates.items()
        if n > 1 and (precision, 1) in rates
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
            lines(rows),
            "\n".join([caption, *remarks(results, rows)]),
        )
        for case, rows in cases(results.rows).items()
    ]


def remarks(results: Results, rows: Sequence[Row]) -> list[str]:
    """What stands below a case's rows."""
    verdicts = [str(duel) for loaded in (False, True) for duel in duels(rows, loaded=loaded)]
    return [
        *verdicts,
        *against_checkouts(rows),
        *loading(rows),
        *spread(rows),
        *modelled(results, rows),
    ]


def _table(
    title: str, headings: Sequence[str], content: Sequence[Sequence[str]], caption: str
) -> Table:
    table = Table(title=Text(title, "table.title"), caption=Text(caption, "table.caption"))
    for n, heading in enumerate(headings):
        table.add_column(heading, justify="right" if n else "left", overflow="fold")
    for line in content:
        table.add_row(*map(Text, line))
    return table


def number(value: float) -> str:
    """With about three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def milli(seconds: float) -> str:
    """Milliseconds."""
    return number(1000 * seconds) if seconds >= 0 else f"-{number(-1000 * seconds)}"

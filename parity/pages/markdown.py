"""A parity report as Markdown."""

import re
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import quote

from parity.pages.findings import (
    STAGES,
    Report,
    advice,
    components,
    distinct,
    grouped,
    headline,
    lead,
    measure,
    networks,
    number,
    numbers,
    other_failures,
    percent,
    share,
    size,
    worst,
)


def markdown(report: Report) -> str:
    """The report in words and tables; plots are on the page beside it.

    Args:
      report: What report.json holds.
    """
    mark = "✅" if report["passed"] else "❌"
    parts = [
        f"# {mark} {headline(report)}",
        plain(lead(report)),
        *map(plain, other_failures(report)),
    ]
    if first := report.get("first_divergence"):
        found = measure(first)
        parts += [
            "## What differs first",
            f"{code(first['name'])} ({plain(first['case'])}, {plain(first['precision'])}, "
            f"{plain(first['stage'])}): {found.kind} {size(found.value)}, limit "
            f"{size(found.limit)}. {plain(advice(report))}",
        ]
    parts.append(
        table(("what", "number"), [(plain(what), value) for value, what in numbers(report)])
    )
    parts += _networks(report) + _components(report) + _faults(report)
    if opinion := report.get("third_opinion"):
        parts += ["## A third opinion", plain(opinion)]
    shown = report.get("pictures", [])
    if shown:
        parts += [
            "## A prediction from each",
            " ".join(f"![{plain(p)}]({quote(p)})" for p in shown),
        ]
    return "\n\n".join([*parts, *_origin(report)]) + "\n"


def _networks(report: Report) -> list[str]:
    rows = networks(report)
    parts = ["## Worst tensor of each stage"] if rows else []
    for (precision,), own in grouped(rows, "precision").items():
        stages = [stage for stage in STAGES if any(row["stage"] == stage for row in own)]
        cells = grouped(own, "case", "stage")
        parts += [
            f"Relative error in {plain(precision)}, and its share of the limit:",
            table(
                ("configuration", *(STAGES[stage] for stage in stages)),
                (
                    (plain(case), *(_cell(cells.get((case, stage), [])) for stage in stages))
                    for case in distinct(own, "case")
                ),
            ),
        ]
    return parts


def _components(report: Report) -> list[str]:
    rows = components(report)
    precisions = distinct(rows, "precision")
    cells = grouped(rows, "stage", "precision")
    body = [
        (plain(stage), *(_cell(cells.get((stage, each), [])) for each in precisions))
        for stage in distinct(rows, "stage")
    ]
    table_ = table(("component", *map(plain, precisions)), body)
    return ["## Everything else of a training", table_] if rows else []


def _cell(rows: Sequence[Any]) -> str:
    row = worst(rows)
    if row is None:
        return "–"
    error = number(row["error"])
    kind = "" if measure(row).kind == "relative error" else " in ULPs"
    text = "exact" if error == 0 else f"{size(error)} ({percent(share(row))}{kind})"
    return text if row["passed"] else f"**✗ {text}**"


def _faults(report: Report) -> list[str]:
    faults = report.get("mutations")
    if not faults:
        return []
    caught = sum(bool(fault["killed"]) for fault in faults)
    rows = [
        (
            plain(fault["name"]),
            plain(fault["component"]),
            "yes" if fault["killed"] else "**no**",
            code(fault.get("named")),
            code(fault.get("expected")),
        )
        for fault in faults
    ]
    return [
        "## Planted faults",
        f"{caught} of {len(faults)} noticed ({percent(caught / len(faults))}).",
        table(("fault", "in", "noticed", "what the report named", "expected"), rows),
    ]


def _origin(report: Report) -> list[str]:
    facts = [*report.get("versions", {}).items()]
    facts += [(f"{name} ran on", device) for name, device in report.get("device", {}).items()]
    facts += [("precision", ", ".join(distinct(report["rows"], "precision")))]
    facts += [(key, report[key]) for key in ("level", "seconds") if key in report]
    rows = [(plain(name), plain(value)) for name, value in facts]
    again = [f"To repeat it: {code(report['command'])}"] if report.get("command") else []
    return [
        "## Where it ran",
        table(("what", "value"), rows),
        *again,
        "Every number is in `report.json`, plots are in `report.html`.",
    ]


def table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of Markdown cells."""
    headings = tuple(headings)
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plain(text: Any) -> str:
    """Text that Markdown shows as it is, on one line, in a table, too."""
    line = " ".join(str(text).split())
    return re.sub(r"([\\`*_\[\]<>|~#])", r"\\\1", line).replace("&", "&amp;")


def code(text: Any) -> str:
    """Text in the font of code; a dash if there is none."""
    if text is None or text == "":
        return "–"
    line = " ".join(str(text).split())
    return plain(line) if set(line) & set("`|\\") else f"`{line}`"

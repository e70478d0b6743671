"""The tables of a parity report's page, coloured by how near each error is to its limit."""

import math
from collections.abc import Sequence
from html import escape

from parity.pages.findings import (
    STAGES,
    Entry,
    Report,
    components,
    distinct,
    grouped,
    measure,
    networks,
    number,
    percent,
    share,
    size,
    worst,
)
from unet_jax.page import table

LISTED = 10
"""Tensors that are listed one by one."""


def summary(report: Report) -> str:
    """The worst tensor of each stage of each configuration, and of each other component."""
    rows = networks(report)
    parts = []
    for (precision,), own in grouped(rows, "precision").items():
        stages = [stage for stage in STAGES if any(row["stage"] == stage for row in own)]
        cells = grouped(own, "case", "stage")
        body = [
            (escape(case), *(_cell(cells.get((case, stage), [])) for stage in stages))
            for case in distinct(own, "case")
        ]
        headings = ("configuration", *(STAGES[stage] for stage in stages))
        parts.append(table(headings, body, caption=f"In {escape(precision)}"))
    found = "<h2>The worst tensor of each stage</h2>" + _scale() if rows else ""
    found += "".join(parts)
    others = components(report)
    if others:
        precisions, cells = distinct(others, "precision"), grouped(others, "stage", "precision")
        body = [
            (escape(stage), *(_cell(cells.get((stage, each), [])) for each in precisions))
            for stage in distinct(others, "stage")
        ]
        found += "<h2>Everything else of a training</h2>" + ("" if rows else _scale())
        found += table(("component", *map(escape, precisions)), body)
    fine = [row for row in report["rows"] if row["passed"]]
    nearest = sorted(fine, key=share, reverse=True)[:LISTED]
    title = f"The {len(nearest)} tensors within their limits that are nearest to them"
    return found + (
        f"<details><summary>{title}</summary>{tensors(nearest)}</details>" if nearest else ""
    )


def _scale() -> str:
    shares = (0.001, 0.01, 0.1, 1.0)
    samples = " ".join(
        f'<span class="cell" {_shade(each)}>{percent(each)}</span>' for each in shares
    )
    return (
        f'<p class="legend">Relative error, and the share of its limit: {samples} '
        '<span class="cell bad">✗ beyond</span></p>'
    )


def _cell(rows: Sequence[Entry]) -> str:
    row = worst(rows)
    if row is None:
        return "–"
    error, part = number(row["error"]), share(row)
    if not row["passed"]:
        beyond = size(error) if measure(row).kind == "relative error" else "ULPs"
        return f'<span class="cell bad">✗ {beyond} <small>{percent(part)}</small></span>'
    if error == 0:
        return '<span class="cell">exact</span>'
    return f'<span class="cell" {_shade(part)}>{size(error)} <small>{percent(part)}</small></span>'


def _shade(part: float) -> str:
    """A colour for a share of a limit, by its logarithm: none at a thousandth, full at 1."""
    depth = 1 + math.log10(max(part, 1e-3)) / 3
    return f'style="--share:{60 * min(depth, 1):.0f}%"'


def tensors(rows: Sequence[Entry]) -> str:
    """Tensors one by one."""
    ulps = any(row.get("ulps") is not None for row in rows)
    headings = ("tensor", "stage", "configuration", "precision", "error", "limit", "of limit")
    body = [
        (
            f"<code>{escape(row['name'])}</code>",
            escape(STAGES.get(row["stage"], str(row["stage"]))),
            escape(row["case"]),
            escape(row["precision"]),
            size(number(row["error"])),
            size(number(row["limit"])),
            percent(share(row)),
            *(_ulps(row) if ulps else []),
        )
        for row in rows
    ]
    return table((*headings, *(["ulps", "limit"] if ulps else [])), body)


def _ulps(row: Entry) -> tuple[str, str]:
    found = (row.get("ulps"), row.get("ulps_limit"))
    ulps, limit = ("–" if value is None else f"{number(value):.3g}" for value in found)
    return ulps, limit

"""The comparison as a table for people and as JSON for machines."""

import json
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
from rich import box
from rich.table import Table

from parity.compare import Row, first_divergence

STAGES = ("parameters", "eval", "train", "statistics", "loss", "gradients")
TINY = 1e-300  # In place of a limit of 0.
HEADINGS = ("weights", "eval", "train", "stats", "loss", "grads")


def verdict(row: Row | None) -> str:
    """One line: which tensor is the first to differ, or that none does."""
    if row is None:
        return "every tensor agrees"
    return (
        f"{row.case}: first divergence in {row.precision} {row.stage} at {row.name}: "
        f"error {row.error:.1e}, limit {row.limit:.1e}"
    )


def table(rows: Sequence[Row]) -> Table:
    """Two lines for each case: the worst tensor of each stage, in float64 and in float32."""
    result = Table(
        title="Worst tensor: relative error in float64; share of its limit in float32",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    result.add_column("case", no_wrap=True)
    for heading in HEADINGS:
        result.add_column(heading, justify="right", no_wrap=True)
    for case in dict.fromkeys(row.case for row in rows):
        for precision in ("float64", "float32"):
            own = [row for row in rows if (row.case, row.precision) == (case, precision)]
            if own:
                cells = [_worst([row for row in own if row.stage == stage]) for stage in STAGES]
                result.add_row(case if precision == "float64" else "", *cells)
    return result


def _worst(rows: Sequence[Row]) -> str:
    if not rows:
        return "–"
    if rows[0].stage == "parameters" or rows[0].precision == "float64":
        worst = max(rows, key=lambda row: row.error)
        text = "exact" if worst.error == 0 else f"{worst.error:.0e}"
    else:
        text = f"{max(row.error / max(row.limit, TINY) for row in rows):.0%}"
    return text if all(row.passed for row in rows) else f"[bold red]✗ {text}[/]"


def write_json(rows: Sequence[Row], extra: Mapping[str, Any], path: Path) -> None:
    """Writes every row, the first that differs, what ran where, and `extra`."""
    first = first_divergence(rows)
    packages = ("unet-jax", "jax", "jaxlib", "flax", "torch", "numpy")
    report = {
        "first_divergence": None if first is None else first._asdict(),
        "versions": {"python": platform.python_version()}
        | {package: metadata.version(package) for package in packages},
        "device": {"jax": str(jax.devices()[0]), "torch": "cpu"},
        **extra,
        "rows": [{**row._asdict(), "passed": row.passed} for row in rows],
    }
    path.write_text(json.dumps(report, indent=1))

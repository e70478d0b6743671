"""The comparison as a table for people and as JSON for machines."""

import json
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
from rich.table import Table

from parity.compare import Row, first_divergence

STAGES = ("parameters", "eval", "train", "statistics", "loss", "gradients")


def verdict(row: Row | None) -> str:
    """One line: which tensor is the first to differ, or that none does."""
    if row is None:
        return "every tensor agrees"
    return (
        f"{row.case}: first divergence in {row.precision} {row.stage} at {row.name}: "
        f"error {row.error:.1e}, limit {row.limit:.1e}"
    )


def table(rows: Sequence[Row]) -> Table:
    """A line for each case and precision: the worst error of each stage, as a share of its limit.

    Float64 errors are shown as they are; float32 errors as multiples of PyTorch's own.
    """
    result = Table(title="Worst relative error of any tensor: float64, then float32 ÷ its limit")
    result.add_column("case")
    result.add_column("tensors", justify="right")
    for stage in STAGES:
        result.add_column(stage, justify="right")
    result.add_column("")
    for case in dict.fromkeys(row.case for row in rows):
        for precision in ("float64", "float32"):
            own = [row for row in rows if (row.case, row.precision) == (case, precision)]
            cells = [_worst([row for row in own if row.stage == stage]) for stage in STAGES]
            passed = all(row.passed for row in own)
            result.add_row(
                case if precision == "float64" else "",
                f"{len(own)}",
                *cells,
                "[green]same[/]" if passed else "[bold red]DIFFERENT[/]",
                end_section=precision == "float32",
            )
    return result


def _worst(rows: Sequence[Row]) -> str:
    if not rows:
        return "–"
    if rows[0].stage == "parameters" or rows[0].precision == "float64":
        worst = max(rows, key=lambda row: row.error)
        text = "exact" if worst.error == 0 else f"{worst.error:.0e}"
    else:
        worst = max(rows, key=lambda row: row.error / row.limit)
        text = f"{worst.error / worst.limit:.0%}"
    return text if all(row.passed for row in rows) else f"[red]{text}[/]"


def write_json(rows: Sequence[Row], extra: Mapping[str, Any], path: Path) -> None:
    """Writes every row, the verdict, and what ran where."""
    first = first_divergence(rows)
    packages = ("unet-jax", "jax", "jaxlib", "flax", "torch", "numpy")
    report = {
        "passed": first is None,
        "first_divergence": None if first is None else first._asdict(),
        "versions": {"python": platform.python_version()}
        | {package: metadata.version(package) for package in packages},
        "device": {"jax": str(jax.devices()[0]), "torch": "cpu"},
        **extra,
        "rows": [{**row._asdict(), "passed": row.passed} for row in rows],
    }
    path.write_text(json.dumps(report, indent=1))

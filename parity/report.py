"""What was compared, as tables for people and as JSON for machines."""

import json
import math
import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
from rich import box
from rich.table import Table

from parity.device import torch_device
from parity.row import Row, first_divergence
from unet_jax.draft import draft

STAGES = ("parameters", "eval", "train", "statistics", "loss", "gradients")
"""Of networks; every other stage is a component's."""
TINY = 1e-300  # In place of a limit of 0.
HEADINGS = ("weights", "eval", "train", "stats", "loss", "grads")
PRECISION_NOTES = {
    "float64": "the truth: every tensor within a fixed relative error",
    "float32": "products in full; at most twice as far from float64 as PyTorch itself is, in the "
    "norm and in the 99th percentile of ULPs",
    "tf32": "products with 10 bits, as a GPU's fast units have them; the same rule",
    "bfloat16": "convolutions in bfloat16; the same rule, PyTorch's being autocast",
    "float16": "convolutions in float16, the loss scaled; the same rule, PyTorch's being autocast",
}


def verdict(row: Row | None) -> str:
    """One line: which tensor is the first to differ, or that none does."""
    if row is None:
        return "every tensor agrees"
    if row.error <= row.limit:
        return (
            f"{row.case}: first divergence in {row.precision} {row.stage} at {row.name}: "
            f"{row.ulps:.3g} ULPs, limit {row.ulps_limit:.3g}"
        )
    return (
        f"{row.case}: first divergence in {row.precision} {row.stage} at {row.name}: "
        f"error {row.error:.1e}, limit {row.limit:.1e}"
    )


def of_networks(rows: Iterable[Row]) -> list[Row]:
    """The rows of layers, losses and gradients of whole networks."""
    return [row for row in rows if row.stage in STAGES]


def table(rows: Sequence[Row]) -> Table:
    """A line for each network and precision: the worst tensor of each stage."""
    result = _table("Networks: relative error, or share of the limit")
    result.add_column("case", no_wrap=True)
    for heading in HEADINGS:
        result.add_column(heading, justify="right", no_wrap=True)
    for case in dict.fromkeys(row.case for row in rows):
        own = [row for row in rows if row.case == case]
        for precision in dict.fromkeys(row.precision for row in own):
            same = [row for row in own if row.precision == precision]
            cells = [_worst([row for row in same if row.stage == stage]) for stage in STAGES]
            result.add_row(case if precision == own[0].precision else f"  {precision}", *cells)
    return result


def component_table(rows: Sequence[Row]) -> Table:
    """A line for each component and precision: how many tensors, and the worst share of a limit."""
    result = _table("Components: worst share of the limit")
    result.add_column("component")
    result.add_column("precision", no_wrap=True)
    for heading in ("rows", "worst"):
        result.add_column(heading, justify="right", no_wrap=True)
    result.add_column("at", overflow="fold")
    for case in dict.fromkeys(row.case for row in rows):
        own = [row for row in rows if row.case == case]
        for precision in dict.fromkeys(row.precision for row in own):
            same = [row for row in own if row.precision == precision]
            worst = max(same, key=_share)
            text = f"{_share(worst):.2g}" if worst.error else "exact"
            text = text if all(row.passed for row in same) else f"[bold red]✗ {text}[/]"
            place = f"{worst.stage}, {worst.name}" if worst.error else ""
            result.add_row(case, precision, str(len(same)), text, place)
    return result


def ulps_table(rows: Sequence[Row]) -> Table:
    """A line for each precision and stage: ULPs of the float64 truth rounded to float32."""
    result = _table("ULPs: units of the last place in float32")
    for heading in ("precision", "stage"):
        result.add_column(heading, no_wrap=True)
    for heading in ("99 % within", "limit", "largest"):
        result.add_column(heading, justify="right", no_wrap=True)
    for precision, stage in dict.fromkeys(
        (r.precision, r.stage) for r in rows if r.ulps is not None
    ):
        own = [r for r in rows if (r.precision, r.stage) == (precision, stage)]
        judged = [r for r in own if r.ulps_limit is not None]
        most = max(r.ulps or 0.0 for r in judged or own)
        limit = f"{judged[0].ulps_limit:,.3g}" if judged else "–"
        largest = max(r.ulps_max or 0.0 for r in own)
        result.add_row(precision, stage, f"{most:,.3g}", limit, f"{largest:,.3g}")
    return result


def mutation_table(mutations: Sequence[Mapping[str, Any]]) -> Table:
    """A line for each fault: whether it was seen, and what was named."""
    killed = sum(mutation["killed"] for mutation in mutations)
    rate = f"{killed} of {len(mutations)} seen and named, {killed / len(mutations):.0%}"
    result = _table(f"Planted faults: {rate}")
    for heading in ("fault", "named first"):
        result.add_column(heading, overflow="fold")
    for mutation in mutations:
        named = mutation["named"]
        if not mutation["killed"]:
            named = f"[bold red]✗ {named}, not {mutation['expected']}[/]"
        result.add_row(mutation["name"], named)
    return result


def _table(title: str) -> Table:
    return Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title_justify="left")


def _share(row: Row) -> float:
    """Of the limit; 1 is all of it."""
    share = row.error / max(row.limit, TINY)
    if row.ulps is not None and row.ulps_limit is not None:
        share = max(share, row.ulps / max(row.ulps_limit, TINY))
    return share


def _worst(rows: Sequence[Row]) -> str:
    if not rows:
        return "–"
    if rows[0].stage == "parameters" or rows[0].precision == "float64":
        worst = max(rows, key=lambda row: row.error)
        text = "exact" if worst.error == 0 else f"{worst.error:.0e}"
    else:
        text = f"{max(map(_share, rows)):.0%}"
    return text if all(row.passed for row in rows) else f"[bold red]✗ {text}[/]"


def write_json(rows: Sequence[Row], extra: Mapping[str, Any], path: Path) -> None:
    """Writes every row, the first that differs, what ran where, and `extra`."""
    first = first_divergence(rows)
    packages = ("unet-jax", "jax", "jaxlib", "flax", "optax", "torch", "numpy")
    used = dict.fromkeys(row.precision for row in rows)
    report = {
        "first_divergence": None if first is None else _as_json(first),
        "versions": {"python": platform.python_version()}
        | {package: metadata.version(package) for package in packages},
        "device": {"jax": str(jax.devices()[0]), "torch": str(torch_device())},
        "precision": {name: PRECISION_NOTES[name] for name in used},
        **extra,
        "rows": [_as_json(row) for row in rows],
    }
    with draft(path) as part:
        part.write_text(json.dumps(_finite(report), indent=1, allow_nan=False))


def _as_json(row: Row) -> dict[str, Any]:
    fields = {name: value for name, value in row._asdict().items() if value is not None}
    return fields | {"passed": row.passed}


def _finite(tree: Any) -> Any:
    """The tree with None for what is infinite or no number: JSON has neither."""
    if isinstance(tree, Mapping):
        return {name: _finite(value) for name, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_finite(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree

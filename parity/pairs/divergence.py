"""What a comparison of a pair found, as text for people."""

import io
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import nn

from parity.pairs.hints import OUTPUT_ALONE, hint
from parity.pairs.judgement import is_output, is_step
from parity.row import Row, first_divergence

WIDTH = 100
BEFORE, AFTER = 4, 8
"""Rows of the failing stage that are shown around the first divergence."""

LISTED = 12
"""Names of activations that only one side has."""

LONGEST = 30
"""Layers that are shown where nothing fails."""


@dataclass(frozen=True, repr=False)
class Report:
    """A comparison; `str()` of it is a table that names the first divergence.

    Attributes:
      case: The module's class.
      rows: Every tensor that was compared, in the order in which they are computed.
      notes: What is wrong with a row apart from its numbers.
      layers: The PyTorch layer that a row's name belongs to.
      optimizer: PyTorch's, if there were steps.
      captured: JAX's activations.
      calls: PyTorch's, in the order in which they are computed.
    """

    case: str
    rows: tuple[Row, ...]
    notes: Mapping[Row, str | None]
    layers: Mapping[str, nn.Module]
    optimizer: type | None
    captured: Sequence[str]
    calls: Sequence[str]

    @property
    def passed(self) -> bool:
        return self.first is None

    @property
    def first(self) -> Row | None:
        """The first tensor that differs."""
        return first_divergence(self.rows)

    def __str__(self) -> str:
        table = io.StringIO()
        Console(file=table, width=WIDTH, no_color=True).print(self._table())
        lines = [*self._verdict(), "", *table.getvalue().splitlines()[1:], *self._unmatched()]
        return "\n".join(line.rstrip() for line in lines).strip()

    __repr__ = __str__

    def _verdict(self) -> Iterator[str]:
        first = self.first
        if first is None:
            yield f"{self.case}: all {len(self.rows)} tensors agree"
            return
        where = f"{first.precision} {first.stage} at {self._named(first.name)}"
        yield from _wrapped("", f"{self.case}: first divergence in {where}")
        yield f"  error: {first.error:.1e}, limit {first.limit:.1e}"
        if note := self.notes.get(first):
            yield from _wrapped("  what: ", note)
        between: list[str] = []
        if first.stage in ("eval", "train"):
            agreed, between = self._before(first)
            if agreed is not None:
                text = f"agrees as far as {self._named(agreed)}"
                if between:
                    text += f"; then, not captured in JAX: {', '.join(map(self._named, between))}"
                yield from _wrapped("  before it: ", text)
            elif is_output(first[2:4]) and not set(self.captured) & set(self.calls):
                yield from _wrapped("  to see in which layer: ", OUTPUT_ALONE)
        suspects = dict.fromkeys([*between, first.name])
        hints = {name: hint(first.stage, self._layer(name), self.optimizer) for name in suspects}
        for name, text in hints.items():
            if text:
                place = f"in {self._named(name)}: " if between else ""
                yield from _wrapped("  likely: ", place + text)

    def _before(self, row: Row) -> tuple[str | None, list[str]]:
        """The last layer that agrees before this row, and those in between that have no row."""
        own = [r.name for r in self.rows if r[:3] == row[:3] and r.name in self.calls]
        calls = list(self.calls)
        before = own[: own.index(row.name)] if row.name in own else own
        if not before:
            return None, []
        end = calls.index(row.name) if row.name in calls else len(calls)
        between = calls[calls.index(before[-1]) + 1 : end]
        return before[-1], [n for n in between if not any(self._holds(n, o) for o in between)]

    def _holds(self, one: str, other: str) -> bool:
        outer, inner = self._layer(one), self._layer(other)
        return outer is not None and any(inner is child for child in outer.children())

    def _table(self) -> Table:
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        table.add_column("stage", no_wrap=True)
        table.add_column("tensor", no_wrap=True, overflow="ellipsis")
        table.add_column("PyTorch layer", no_wrap=True)
        precisions = list(dict.fromkeys(row.precision for row in self.rows))
        for precision in precisions:
            table.add_column(
                "float64 error" if precision == "float64" else "float32 / limit", justify="right"
            )
        found = {(row.precision, row.stage, row.name): row for row in self.rows}
        for stage, names, total in self._shown():
            for name in names:
                rows = [found.get((precision, stage, name)) for precision in precisions]
                mark = "→ " if self.first in rows else "  "
                layer = self._layer(name)
                kind = "" if layer is None else type(layer).__name__
                table.add_row(stage, mark + escape(name), kind, *map(_cell, rows))
            if total > len(names):
                own = [
                    [r for r in self.rows if (r.precision, r.stage) == (p, stage)]
                    for p in precisions
                ]
                worst = [max(rows, key=_share, default=None) for rows in own]
                table.add_row(stage, f"  worst of all {total}", "", *map(_cell, worst))
        return table

    def _shown(self) -> Iterator[tuple[str, list[str], int]]:
        """Stages, the names of theirs to be shown, and how many there are.

        Layers are shown, and what is around the first divergence; of the rest, the worst.
        """
        first = self.first
        stages = list(dict.fromkeys(row.stage for row in self.rows))
        failing = None if first is None else first.stage
        passed_over = {stage for stage in stages[:-1] if is_step(stage) and stage != failing}
        for stage in (stage for stage in stages if stage not in passed_over):
            own = [row for row in self.rows if row.stage == stage]
            names = list(dict.fromkeys(r.name for r in own if r.name != "all" or r == first))
            if first is not None and stage == first.stage:
                at = names.index(first.name)
                yield stage, names[max(at - BEFORE, 0) : at + AFTER], len(names)
            elif len(names) == 1 or (stage == "eval" and first is None):
                yield stage, names[:LONGEST], len(names)
            else:
                yield stage, [], len(names)

    def _unmatched(self) -> Iterator[str]:
        alone = {
            "JAX": [name for name in self.captured if name not in self.calls],
            "PyTorch": [name for name in self.calls if name not in self.captured],
        }
        for side, names in alone.items():
            if names:
                more = len(names) - LISTED
                listed = ", ".join(names[:LISTED]) + (f" and {more} more" if more > 0 else "")
                yield from _wrapped(f"not compared, in {side} alone: ", listed)

    def _layer(self, name: str) -> nn.Module | None:
        return self.layers.get(name.split("#")[0])

    def _named(self, name: str) -> str:
        layer = self._layer(name)
        return name if layer is None else f"{name} ({type(layer).__name__})"


def _share(row: Row) -> float:
    return row.error / row.limit if row.limit else (0.0 if row.error == 0 else float("inf"))


def _cell(row: Row | None) -> str:
    if row is None:
        return ""
    if not row.passed:
        return f"✗ {row.error:.1e}"
    if row.precision == "float32":
        return f"{_share(row):.0%}"
    return "exact" if row.error == 0 else f"{row.error:.1e}"


def _wrapped(start: str, text: str) -> list[str]:
    indent = " " * (len(start) if start.startswith(" ") else 2)
    return textwrap.wrap(
        start + text, WIDTH, subsequent_indent=indent, break_long_words=True, break_on_hyphens=False
    )

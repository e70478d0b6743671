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

from parity.compare import Row, first_divergence
from parity.hints import hint
from parity.judgement import is_step
from parity.torch_side import OUTPUT

WIDTH = 100
BEFORE, AFTER = 4, 8
"""Rows of the failing stage that are shown around the first divergence."""

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
      unmatched: Activations that JAX alone captured, and those of PyTorch alone.
    """

    case: str
    rows: tuple[Row, ...]
    notes: Mapping[Row, str]
    layers: Mapping[str, nn.Module]
    optimizer: type | None
    unmatched: tuple[Sequence[str], Sequence[str]]

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
        lines = [*self._verdict(), "", *table.getvalue().splitlines(), *self._unmatched()]
        return "\n".join(line.rstrip() for line in lines).strip()

    __repr__ = __str__

    def _verdict(self) -> Iterator[str]:
        first = self.first
        if first is None:
            yield f"{self.case}: all {len(self.rows)} tensors agree"
            return
        where = f"{first.precision} {first.stage} at {self._title(first)}"
        numbers = f"error {first.error:.1e}, limit {first.limit:.1e}"
        yield from _wrapped("", f"{self.case}: first divergence in {where}: {numbers}")
        if first in self.notes:
            yield from _wrapped("  what: ", self.notes[first])
        forward = [r for r in self._stage(first) if r.name.split("/")[0] != OUTPUT]
        agree = forward[: forward.index(first)] if first in forward else forward
        if first.stage in ("eval", "train") and agree:
            yield from _wrapped("  before it: ", f"agrees as far as {self._title(agree[-1])}")
        likely = hint(first, self._layer(first), self.optimizer, alone=not forward)
        if likely:
            yield from _wrapped("  likely: ", likely)

    def _table(self) -> Table:
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        table.add_column("stage", no_wrap=True)
        table.add_column("tensor", no_wrap=True, overflow="ellipsis")
        table.add_column("PyTorch layer", no_wrap=True)
        precisions = list(dict.fromkeys(row.precision for row in self.rows))
        for precision in precisions:
            table.add_column(
                "float64 error" if precision == "float64" else "float32, of limit", justify="right"
            )
        found = {(row.precision, row.stage, row.name): row for row in self.rows}
        for stage, names, total in self._shown():
            for name in names:
                rows = [found.get((precision, stage, name)) for precision in precisions]
                mark = "→ " if self.first in rows else "  "
                layer = self.layers.get(_layer_name(name))
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
        first, steps = self.first, []
        for stage in dict.fromkeys(row.stage for row in self.rows):
            names = list(dict.fromkeys(row.name for row in self.rows if row.stage == stage))
            if first is not None and stage == first.stage:
                at = names.index(first.name)
                yield stage, names[max(at - BEFORE, 0) : at + AFTER], len(names)
            elif stage == "eval" and first is None:
                yield stage, names[:LONGEST], len(names)
            elif is_step(stage) and first is None:
                steps.append((stage, len(names)))
            else:
                yield stage, names if len(names) == 1 else [], len(names)
        for stage, total in steps[-1:]:
            yield stage, [], total

    def _unmatched(self) -> Iterator[str]:
        for side, names in zip(("JAX", "PyTorch"), self.unmatched, strict=True):
            if names:
                listed = ", ".join(names[:12]) + (
                    f" and {len(names) - 12} more" * (len(names) > 12)
                )
                yield from _wrapped(f"Not compared, in {side} alone: ", listed)

    def _stage(self, row: Row) -> list[Row]:
        return [r for r in self.rows if r[:3] == row[:3] and r.name != "all"]

    def _layer(self, row: Row) -> nn.Module | None:
        return self.layers.get(_layer_name(row.name))

    def _title(self, row: Row) -> str:
        layer = self._layer(row)
        return row.name if layer is None else f"{row.name} ({type(layer).__name__})"


def _layer_name(name: str) -> str:
    """Without the number of the call and what follows it."""
    return name.split("#")[0]


def _share(row: Row) -> float:
    return row.error / row.limit if row.limit else (0.0 if row.error == 0 else float("inf"))


def _cell(row: Row | None) -> str:
    if row is None:
        return ""
    if row.precision == "float64":
        text = "exact" if row.error == 0 else f"{row.error:.1e}"
    else:
        text = f"{_share(row):.0%}" if _share(row) < 100 else f"{row.error:.1e}"
    return text if row.passed else f"✗ {text}"


def _wrapped(start: str, text: str) -> list[str]:
    indent = " " * (len(start) if start.startswith(" ") else 2)
    return textwrap.wrap(
        start + text, WIDTH, subsequent_indent=indent, break_long_words=True, break_on_hyphens=False
    )

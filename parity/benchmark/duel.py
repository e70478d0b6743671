"""JAX against PyTorch on one device, each in its fastest dress."""

from collections.abc import Sequence
from typing import NamedTuple

from parity.benchmark.contender import HELD, LOADED
from parity.benchmark.result import Row


class Duel(NamedTuple):
    """Two rows of one case in one precision.

    Attributes:
      ours: JAX' fastest.
      theirs: PyTorch's fastest.
    """

    ours: Row
    theirs: Row

    @property
    def speed(self) -> float:
        """JAX' images a second for each of PyTorch's."""
        return self.ours.rate / self.theirs.rate

    @property
    def memory(self) -> float | None:
        """JAX' bytes for each of PyTorch's; None: not known of both."""
        if self.ours.memory and self.theirs.memory:
            return self.ours.memory / self.theirs.memory
        return None

    def __str__(self) -> str:
        text = f"{self.ours.contender}: {self.speed:.2f}× {self.theirs.contender}"
        return text if self.memory is None else f"{text}, with {self.memory:.2f}× its memory"


def duels(rows: Sequence[Row], *, loaded: bool = False) -> list[Duel]:
    """One for each precision that both were measured in.

    Args:
      rows: A case's.
      loaded: Whether of those that read their data, or of those that have it.
    """
    measured = [
        row
        for row in rows
        if row.failure is None
        and row.devices == 1
        and not row.checkout
        and row.contender.endswith(LOADED) == loaded
        and not row.contender.endswith(HELD)
    ]
    found = []
    for precision in dict.fromkeys(row.precision for row in measured):
        best: dict[str, Row] = {}
        for row in (row for row in measured if row.precision == precision):
            name = row.contender.partition(" ")[0]  # Of several devices' rows it is another.
            if name not in best or row.rate > best[name].rate:
                best[name] = row
        if {"JAX", "PyTorch"} <= best.keys():
            found.append(Duel(best["JAX"], best["PyTorch"]))
    return found

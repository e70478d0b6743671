"""A single fault that a comparison must see and name."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cache
from typing import Any, NamedTuple

from parity.row import Row, first_divergence

Rows = Callable[[], Sequence[Row]]


class Mutation(NamedTuple):
    """A fault.

    Attributes:
      name: What is wrong.
      component: Where.
      expected: Stage and name of the row that must fail first.
      compare: The comparison that must see it.
      plant: The fault, while the context is open.
    """

    name: str
    component: str
    expected: tuple[str, str]
    compare: Rows
    plant: Callable[[], AbstractContextManager[Any]]


class Outcome(NamedTuple):
    """What came of a fault.

    Attributes:
      mutation: The fault.
      named: Stage and name of the row that failed first; None: every one passed.
      clean: Whether every row passes without the fault. If not, a red row says nothing of it.
    """

    mutation: Mutation
    named: tuple[str, str] | None
    clean: bool

    @property
    def killed(self) -> bool:
        return self.clean and self.named == self.mutation.expected

    def as_json(self) -> dict[str, Any]:
        named = "nothing" if self.named is None else " at ".join(self.named)
        return {
            "name": self.mutation.name,
            "component": self.mutation.component,
            "killed": self.killed,
            "named": named if self.clean else "red without the fault",
            "expected": " at ".join(self.mutation.expected),
        }


@cache
def _clean(compare: Rows) -> bool:
    """Whether a comparison passes as things are; faults that share it wait for it once."""
    return first_divergence(compare()) is None


def inject(mutation: Mutation) -> Outcome:
    """Compares, plants the fault, compares again, and takes it out."""
    clean = _clean(mutation.compare)
    with mutation.plant():
        first = first_divergence(mutation.compare())
    return Outcome(mutation, None if first is None else (first.stage, first.name), clean)

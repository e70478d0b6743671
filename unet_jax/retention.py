"""Which checkpoints of a run are kept: the latest ones, and the best by a metric."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Saved:
    """A checkpoint: its name, and its metrics if the state was validated.

    The name is that of its step, as in `8`; the second one of the same step is `8.2`.
    """

    name: str
    metrics: Mapping[str, float] | None


@dataclass(frozen=True)
class Retention:
    """What is kept.

    Attributes:
      metric: Name of the metric that decides which state is best; the last of equals is.
      lowest: Whether its lowest value is best; else its highest.
      latest: How many of the latest states are kept, beside the best one.
    """

    metric: str
    lowest: bool
    latest: int

    def kept(self, saved: Sequence[Saved]) -> list[Saved]:
        """Those of `saved`, first to last, that are not to be removed."""
        names = {one.name for one in (*saved[-self.latest :], *self.best_first(saved)[:1])}
        return [one for one in saved if one.name in names]

    def best_first(self, saved: Sequence[Saved]) -> list[Saved]:
        """Those that have the metric; among equals the last is first, and NaN is the worst."""
        merits = {
            one.name: merit(one.metrics[self.metric], self.lowest)
            for one in saved
            if one.metrics and self.metric in one.metrics
        }
        ranked = [one for one in reversed(saved) if one.name in merits]
        return sorted(ranked, key=lambda one: -merits[one.name])


def merit(value: float, lowest: bool) -> float:
    """A number that is the higher the better `value` is; NaN is the worst."""
    return -math.inf if math.isnan(value) else -value if lowest else value


def order(name: str) -> tuple[int, int]:
    """What names are sorted by: the step, and which one of that step it is."""
    step, _, time = name.partition(".")
    return int(step), int(time or 1)


def new_name(step: int, used: Iterable[str]) -> str:
    """A name for a checkpoint of `step` after all that are `used`: none is ever overwritten."""
    times = [time for other, time in map(order, used) if other == step]
    return f"{step}.{max(times) + 1}" if times else str(step)

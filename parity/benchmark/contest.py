"""Times contenders in turns, so that a slow minute of the machine slows all of them."""

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import NamedTuple


class Rate(NamedTuple):
    """What a contender reached.

    Attributes:
      median: Images a second, of all rounds the middle one.
      slowest, fastest: The range over the rounds.
    """

    median: float
    slowest: float
    fastest: float

    def __str__(self) -> str:
        return f"{self.median:,.0f} ({self.slowest:,.0f} to {self.fastest:,.0f})"


def contest(contenders: Mapping[str, Callable[[], int]], rounds: int) -> dict[str, Rate]:
    """Runs each contender once unmeasured, then A B C, A B C, ….

    Args:
      contenders: By name; each processes some images to the end, and gives their number.
      rounds: How often each is timed.

    Returns:
      Each contender's rate.
    """
    for run in contenders.values():
        run()
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            begun = time.perf_counter()
            images = run()
            rates[name].append(images / (time.perf_counter() - begun))
    return {name: Rate(median(each), min(each), max(each)) for name, each in rates.items()}

"""The same for many things, in threads."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

AHEAD = 64  # Results that are under way, or wait to be used.
A = TypeVar("A")
B = TypeVar("B")


def side_by_side(function: Callable[[A], B], things: Iterable[A]) -> Generator[B, None, None]:
    """`map`, on all cores; what is not needed any more is not begun."""
    pool = ThreadPoolExecutor(os.cpu_count())
    begun = (pool.submit(function, thing) for thing in things)
    try:
        underway = deque(islice(begun, AHEAD))
        while underway:
            yield underway.popleft().result()
            underway.extend(islice(begun, 1))
    finally:
        pool.shutdown(cancel_futures=True)  # After Ctrl-C, what has not begun is not done.

"""The same for many things, in threads."""

import os
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

PORTION = 64  # Results that may wait to be used.
A = TypeVar("A")
B = TypeVar("B")


def side_by_side(function: Callable[[A], B], things: Sequence[A]) -> Generator[B, None, None]:
    """`map`, on all cores; what is not needed any more is not begun."""
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        for start in range(0, len(things), PORTION):
            yield from pool.map(function, things[start : start + PORTION])
    finally:
        pool.shutdown(cancel_futures=True)

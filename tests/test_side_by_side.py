"""Threads that do the same for many things."""

import threading
import time

from unet_jax.side_by_side import AHEAD, side_by_side


def test_results_come_in_order_from_several_threads():
    names = set()

    def square(n: int) -> int:
        names.add(threading.current_thread().name)
        time.sleep(0.002 * (n % 3))
        return n * n

    count = 2 * AHEAD + 3
    assert list(side_by_side(square, range(count))) == [n * n for n in range(count)]
    assert threading.current_thread().name not in names


def test_what_is_not_asked_for_is_not_begun():
    begun: list[int] = []
    results = side_by_side(begun.append, range(10 * AHEAD))
    next(results)
    results.close()
    assert len(begun) <= AHEAD

"""Work in threads that stays in order, and within bounds of memory."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def ahead(
    items: Iterable[A],
    work: Callable[[A], B],
    weigh: Callable[[A], int],
    *,
    threads: int,
    budget: int,
    most: int,
) -> Iterator[B]:
    """Works on what comes next while the results before it are used.

    Args:
      items: Taken one by one, in the caller's thread, and only when there is room.
      work: Done in threads.
      weigh: Bytes that an item and its result take.
      threads: How many there are.
      budget: Bytes under way at once; a heavier item is under way alone.
      most: Items under way at once.

    Yields:
      The results, in the items' order.
    """
    under_way: deque[tuple[int, Future[B]]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for item in items:
            weight = weigh(item)
            while under_way and (
                len(under_way) >= most or sum(w for w, _ in under_way) + weight > budget
            ):
                yield under_way.popleft()[1].result()
            under_way.append((weight, pool.submit(work, item)))
        while under_way:
            yield under_way.popleft()[1].result()
    finally:
        pool.shutdown(cancel_futures=True)  # After Ctrl-C, what has not begun is not done.

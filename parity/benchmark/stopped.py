"""Why a benchmark ends without a result."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType


class Stopped(Exception):
    """Nothing can be compared; the message says why in a line."""


@contextlib.contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """SIGTERM ends what runs in here as an exception does: with its processes and its files."""
    before = signal.signal(signal.SIGTERM, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)  # As a shell reports it.

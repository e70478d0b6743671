"""Ctrl-C and SIGTERM as requests to stop after the step that is under way."""

import signal
from collections.abc import Callable
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """Notes the first signal; a second Ctrl-C stops at once.

    Attributes:
      signal: The number of the signal that came; None before.
    """

    def __init__(self, say: Callable[[str], object]) -> None:
        """Args:
        say: Tells the user.
        """
        self._say = say
        self.signal: int | None = None

    def __enter__(self) -> "Interrupt":
        self._previous = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = self.signal or number
        if number == signal.SIGINT:
            self._say("Stopping after this step; Ctrl-C again stops at once, unsaved.")
            signal.signal(signal.SIGINT, self._previous[signal.SIGINT])
        else:
            self._say("SIGTERM: saving, and stopping.")

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @property
    def requested(self) -> bool:
        return self.signal is not None

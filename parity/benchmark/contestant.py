"""What a worker process runs: whole steps, checked and timed."""

import math
import time
from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np

from parity.benchmark import memory
from unet_jax.host_memory import free_host_memory

CHECKED = 3
"""Steps whose outcomes are compared with the reference's."""
TRIED = 2
"""Steps after these that say how many a sample takes."""
SAMPLE = 0.05
"""Seconds that a sample lasts at least: far above what a clock and a wait take."""
WHOLE_SAMPLE = 0.5
"""Of whole steps, which follow each other as in training: the next is begun before one is done, and
caches and threads are warm, which they are not after another process' turn."""


class Start(NamedTuple):
    """How a contestant began.

    Attributes:
      first: Seconds that the first step took, compilation included.
      warm_up: Steps that were taken before the first sample.
      steps: Steps a sample.
      outcomes: Of the first steps, as `Contestant.outcome` has them.
      held: Bytes that the process has taken on the device.
      free: Bytes that are left there.
    """

    first: float
    warm_up: int
    steps: int
    outcomes: list[np.ndarray]
    held: int
    free: int


class Contestant(ABC):
    """One dress of one framework, alone in its process.

    Attributes:
      steps: A sample's; 0: as many as last `least` seconds.
      least: Seconds.
    """

    steps = 0
    least = SAMPLE

    @abstractmethod
    def step(self) -> None:
        """Takes a whole step; the device may still be busy with it when this returns."""

    @abstractmethod
    def wait(self) -> None:
        """Returns when the device has done all steps."""

    @abstractmethod
    def outcome(self) -> np.ndarray:
        """What came of the last step, and should be the same in all contestants."""

    def forget_peak(self) -> None:
        """Starts to look for the peak of the memory anew: compilation is not counted."""
        memory.forget_peak()

    def peak(self) -> int | None:
        """Most bytes held at once, here of the host's; None: this system does not tell."""
        return memory.peak()

    def room(self) -> tuple[int, int]:
        """Bytes that this process has taken on the device, here the host, and that are left."""
        return memory.resident(), free_host_memory()

    def outcomes(self) -> list[np.ndarray]:
        """Those of the first steps."""
        return [self._checked() for _ in range(CHECKED)]

    def start(self) -> Start:
        """Takes the first steps, and finds out how many a sample is to have."""
        begun = time.perf_counter()
        outcomes = [self._checked()]
        first = time.perf_counter() - begun
        self.forget_peak()
        outcomes += [self._checked() for _ in range(CHECKED - 1)]
        seconds = min(self._timed(1) for _ in range(TRIED))
        self.steps = self.steps or max(1, math.ceil(self.least / seconds))
        return Start(first, CHECKED + TRIED, self.steps, outcomes, *self.room())

    def sample(self) -> float:
        """Seconds a step, over a sample."""
        return self._timed(self.steps) / self.steps

    def _checked(self) -> np.ndarray:
        self.step()
        self.wait()
        return self.outcome()

    def _timed(self, steps: int) -> float:
        begun = time.perf_counter()
        for _ in range(steps):
            self.step()
        self.wait()
        return time.perf_counter() - begun

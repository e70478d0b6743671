"""Contestants of no framework, for the benchmark's tests."""

import os
import time
from pathlib import Path

import numpy as np

from parity.benchmark.contestant import Contestant, Start


class Toy(Contestant):
    """Sleeps when it is waited for, as a device does, and writes down when it was its turn."""

    def __init__(
        self,
        diary: Path,
        name: str,
        *,
        seconds: float = 0.0,
        outcome: float = 1.0,
        free: int = 100,
        trouble: str = "",
        meeting: int = 0,
        better: float = 0.0,
        longer: int = 0,
    ) -> None:
        self._diary, self._name, self._seconds = diary, name, seconds
        self._outcome, self._free, self._trouble = outcome, free, trouble
        self.steps, self._begun, self._meeting = 2, 0, meeting
        self._better, self._longer, self._earlier = better, longer, 0
        if trouble == "make":
            raise RuntimeError("no compiler here\nand much more")

    def start(self) -> Start:
        """Goes on once so many have come here."""
        with self._diary.with_name(f"{self._name} has started").open("a+") as started:
            started.seek(0)
            self._earlier = len(started.readlines())
            started.write(f"{os.getpid()}\n")
        self.steps += self._earlier * self._longer
        begun = time.monotonic()
        while len([*self._diary.parent.glob("* has started")]) < self._meeting:
            if time.monotonic() > begun + 30:
                raise RuntimeError("nobody else has come")
            time.sleep(0.01)
        return super().start()

    def step(self) -> None:
        self._begun += 1

    def wait(self) -> None:
        time.sleep(self._begun * self._seconds)
        self._begun = 0

    def outcome(self) -> np.ndarray:
        return np.asarray(self._outcome - self._earlier * self._better)

    def sample(self) -> float:
        with self._diary.open("a") as diary:
            diary.write(self._name)
        if self._trouble == "sample":
            raise MemoryError
        if self._trouble == "sleep":
            time.sleep(60)
        if self._trouble == "death":
            print(
                "F0102 03:04:05.067   89 a.cc:10] fatal: lost\n*** stack: ***\n    @ main()",
                flush=True,
            )
            os._exit(3)
        return super().sample()

    def forget_peak(self) -> None:
        pass

    def peak(self) -> int | None:
        return 7 - self._earlier

    def room(self) -> tuple[int, int]:
        return 10, self._free

"""Contestants in turns, each in a process of its own: A B A B …, so that drift cancels."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from parity.benchmark import machine
from parity.benchmark.agreement import check
from parity.benchmark.contestant import Contestant, Start
from parity.benchmark.turns import patience, take_turns
from parity.benchmark.worker import Failed, Worker

MARGIN = 1.2
"""A further contestant is let in while this many times what the largest one holds is free."""


class Entry(NamedTuple):
    """Who takes part.

    Attributes:
      name: The contender's.
      make: Builds the contestant in its process; can be pickled.
      reference: What it has to agree with; None: nothing is checked.
      limit: Of its distance from the reference.
      missing: Why it cannot be measured here; None if it can.
      checkout: The checkout of this project whose code it runs; None: this one.
    """

    name: str
    make: Callable[[], Contestant]
    reference: "Entry | None" = None
    limit: float = 0.0
    missing: str | None = None
    checkout: Path | None = None


@dataclass
class Timing:
    """What was seen of an entry.

    Attributes:
      failure: Why there is no more; None if all went well.
      start: How it began, the first time.
      now: How its last process began.
      distance: From the reference, the largest.
      samples: Seconds a step.
      memory: Most bytes held at once.
      clock: Of a GPU's multiprocessors, right after the last samples.
    """

    failure: str | None = None
    start: Start | None = None
    now: Start | None = None
    distance: float | None = None
    samples: list[float] = field(default_factory=list)
    memory: int | None = None
    clock: str | None = None


class Race:
    """Runs entries against each other.

    The first entry that can takes part in every heat: if not all fit into memory together, the
    others take turns with it in groups.
    """

    def __init__(
        self,
        *,
        samples: int,
        seconds: float,
        say: Callable[[str], object],
        together: int = 1,
        starts: int = 1,
    ) -> None:
        """Args:
        samples: Of each entry.
        seconds: How long an entry's start may take, and its samples together; those that are left
          over are not taken.
        say: Told how it goes.
        together: How many may start at the same time, and have to fit into memory; none is timed
          meanwhile.
        starts: How often each begins anew, in another process, with its share of the samples and
          of the seconds for them.
        """
        self._samples, self._seconds, self._say = samples, seconds, say
        self._together, self._starts = together, starts
        self._logs = 0

    def run(self, entries: Sequence[Entry]) -> dict[str, Timing]:
        """Starts all entries, checks what they compute, then times them.

        Args:
          entries: By name no two alike.

        Returns:
          Of each entry, by name.

        Raises:
          Refusal: One does not agree.
          Failed: A reference does not run.
        """
        timings = {entry.name: Timing(failure=entry.missing) for entry in entries}
        with TemporaryDirectory() as folder:
            able = [entry for entry in entries if entry.missing is None]
            references = {each.reference.name: each.reference for each in able if each.reference}
            truths = {name: self._truth(each, Path(folder)) for name, each in references.items()}
            for n in range(self._starts):
                samples = (self._samples + n) // self._starts  # Of all starts, as many as wanted.
                able = [entry for entry in able if timings[entry.name].failure is None]
                self._heats(able, samples, Path(folder), timings, truths)
        return timings

    def _heats(
        self,
        waiting: Sequence[Entry],
        samples: int,
        folder: Path,
        timings: dict[str, Timing],
        truths: dict[str, list[np.ndarray]],
    ) -> None:
        """Starts all of them once, as many at a time as there is room for, and times them."""
        workers: dict[str, Worker] = {}
        try:
            while waiting:
                while waiting and (len(workers) < 2 or self._room(workers, timings)):
                    group, waiting = waiting[: self._together], waiting[self._together :]
                    self._begin(group, folder, workers, timings, truths)
                self._sample(workers, samples, timings)
                for name in list(workers)[1:]:
                    workers.pop(name).close()
        finally:
            with ExitStack() as closing:  # All of them, also if one is interrupted.
                for worker in workers.values():
                    closing.callback(worker.close)

    def _truth(self, reference: Entry, folder: Path) -> list[np.ndarray]:
        self._say(f"{reference.name}: the reference")
        worker = Worker(reference.make, self._log(folder))
        try:
            return worker.ask("outcomes", self._seconds)
        except Failed as error:
            raise Failed(f"the reference, {reference.name}: {error}") from None
        finally:
            worker.close()

    def _begin(
        self,
        group: Sequence[Entry],
        folder: Path,
        workers: dict[str, Worker],
        timings: dict[str, Timing],
        truths: dict[str, list[np.ndarray]],
    ) -> None:
        """Starts these entries together; those that can take part stay among the workers."""
        for entry in group:  # One by one, so that each is closed if the next does not start.
            workers[entry.name] = Worker(entry.make, self._log(folder), entry.checkout)
        threads = ThreadPoolExecutor(len(group))
        starts = [threads.submit(workers[each.name].ask, "start", self._seconds) for each in group]
        threads.shutdown(wait=False)
        for entry, start in zip(group, starts, strict=True):
            timing = timings[entry.name]
            try:
                begun = start.result()
            except Failed as error:
                timing.failure = str(error)
                self._say(f"{entry.name}: {timing.failure}")
                workers.pop(entry.name).close()
                continue
            timing.start, timing.now = timing.start or begun, begun
            self._say(f"{entry.name}: first step after {begun.first:.1f} s")
            if entry.reference is not None:
                truth = truths[entry.reference.name]
                distance = check(entry.name, begun.outcomes, truth, entry.limit)
                timing.distance = max(distance, timing.distance or 0.0)

    def _room(self, heat: dict[str, Worker], timings: dict[str, Timing]) -> bool:
        """Whether one more is likely to fit beside these."""
        starts = [start for name in heat if (start := timings[name].now) is not None]
        return min(start.free for start in starts) > MARGIN * max(start.held for start in starts)

    def _sample(self, heat: dict[str, Worker], samples: int, timings: dict[str, Timing]) -> None:
        """A B A B …; clock and memory are asked for at the end. Who fails leaves the heat."""
        steps = {name: start.steps for name in heat if (start := timings[name].now) is not None}
        ask = partial(self._ask, heat, timings, "sample")
        for name, taken in take_turns(ask, steps, samples, self._seconds / self._starts).items():
            timings[name].samples += taken
        clock = machine.clock()  # Before it falls: an idle GPU slows down.
        for name in list(heat):
            timings[name].clock = clock
            peak = self._ask(heat, timings, "peak", name)
            timings[name].memory = max(peak or 0, timings[name].memory or 0) or None

    def _ask(
        self, heat: dict[str, Worker], timings: dict[str, Timing], method: str, name: str
    ) -> Any:
        """The answer; None where there is none, and then the process is ended at once."""
        try:
            return heat[name].ask(method, patience(self._seconds))
        except Failed as error:
            timings[name].failure = str(error)
            heat[name].close()  # It would go on computing beside those that are timed.
            del heat[name]
            return None

    def _log(self, folder: Path) -> Path:
        self._logs += 1
        return folder / f"{self._logs}.log"

"""Processes in turns: who is timed when, what becomes of trouble, and that nothing is left."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from toys import Toy

from parity.benchmark.agreement import Refusal, distance
from parity.benchmark.race import Entry, Race, Timing
from parity.benchmark.worker import Failed, Worker

SAMPLES = 3


@pytest.fixture
def entry(tmp_path: Path) -> Callable[..., Entry]:
    def entry(name: str, reference: Entry | None = None, **options: Any) -> Entry:
        make = partial(Toy, tmp_path / "diary", name, **options)
        return Entry(name, make, reference, limit=0.1)

    return entry


def race(entries: Sequence[Entry], **options: Any) -> dict[str, Timing]:
    given = {"samples": SAMPLES, "seconds": 60.0, "say": lambda text: None} | options
    return Race(**given).run(entries)


@pytest.fixture(autouse=True)
def _nothing_is_left():
    yield
    children = psutil.Process().children(recursive=True)
    assert [child for child in children if "spawn_main" in str(child.cmdline())] == []


def test_contestants_take_turns_and_a_sleep_shows_up(entry, tmp_path):
    timings = race([entry("A"), entry("B", seconds=0.05)])
    assert (tmp_path / "diary").read_text() == "AB" * SAMPLES
    assert all(timing.failure is None for timing in timings.values())
    assert all(len(timing.samples) == SAMPLES for timing in timings.values())
    assert max(timings["A"].samples) < 0.05 <= min(timings["B"].samples)
    assert timings["A"].memory == 7


@pytest.mark.parametrize("together", [1, 2, 9])
def test_trouble_is_told_and_stops_no_other(entry, together: int):
    entries = [
        entry("A"),
        entry("B", trouble="make"),
        entry("C", trouble="sample"),
        entry("D", trouble="death"),
        Entry("E", lambda: None, missing="needs a GPU"),  # type: ignore[arg-type]
    ]
    timings = race(entries, together=together)
    assert [timing.failure for timing in timings.values()] == [
        None,
        "RuntimeError: no compiler here",
        "out of memory",
        "its process ended, status 3, after: fatal: lost",
        "needs a GPU",
    ]
    assert len(timings["A"].samples) == SAMPLES


def test_several_start_at_the_same_time_and_are_timed_in_turns(entry, tmp_path):
    waiting = partial(entry, meeting=2)  # Each goes on when the other is there, too.
    timings = race([waiting("A"), waiting("B")], together=2)
    assert [timing.failure for timing in timings.values()] == [None, None]
    assert (tmp_path / "diary").read_text() == "AB" * SAMPLES


def test_each_start_takes_its_share_in_a_process_of_its_own(entry, tmp_path):
    timings = race([entry("A", entry("R")), entry("B")], samples=5, starts=2)
    assert (tmp_path / "diary").read_text() == "AB" * 2 + "AB" * 3
    first, second = (tmp_path / "B has started").read_text().split()
    assert first != second
    assert [len(timing.samples) for timing in timings.values()] == [5, 5]


def test_of_several_starts_the_worst_is_told(entry):
    ours = entry("A", entry("R"), outcome=1.05, better=0.05)  # Off by 0.05 first, then by nothing.
    timing = race([ours], starts=2)["A"]
    assert timing.distance == pytest.approx(0.05)
    assert timing.memory == 7  # Then 6.


def test_who_fails_once_is_not_started_again(entry, tmp_path):
    timings = race([entry("A"), entry("B", trouble="sample")], samples=4, starts=2)
    assert timings["B"].failure == "out of memory"
    assert (tmp_path / "diary").read_text() == "ABA" + "AA"


def test_starts_share_the_seconds(entry):
    timings = race([entry("A", seconds=0.3)], samples=20, seconds=5.0, starts=2)
    assert len(timings["A"].samples) == 2 * 5  # Of two steps, 0.6 s a sample, within 2.5 s.


def test_a_later_start_counts_its_own_steps(entry):
    timings = race([entry("A", seconds=0.3, longer=3)], samples=20, seconds=5.0, starts=2)
    assert len(timings["A"].samples) == 5 + 2  # Within 2.5 s: of 0.6 s each, then of 1.5 s.


def test_a_gpus_clock_is_read_while_the_contestants_are_there(entry, tmp_path, monkeypatch):
    smi = tmp_path / "nvidia-smi"
    smi.write_text(f"""#!/bin/sh
[ -s "{tmp_path}/diary" ] && ps -A -ww -o args | grep -q "[s]pawn_main" || exit 1
echo "A card, 550, 1980 MHz, 1990 MHz, 3000 MHz, 700 W, 35"
""")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert race([entry("A")])["A"].clock == "1980 MHz"
    monkeypatch.setenv("PATH", "")
    assert race([entry("A")])["A"].clock is None


def test_what_takes_too_long_is_ended(entry):
    worker = Worker(entry("A", seconds=60.0).make, Path("/dev/null"))
    try:
        with pytest.raises(Failed, match="not done after 2 s"):
            worker.ask("start", 2.0)
    finally:
        worker.close()


def test_a_slow_one_takes_fewer_samples(entry):
    entries = [entry("A"), entry("B", seconds=0.3)]  # Of two steps, 0.6 s a sample.
    timings = race(entries, samples=20, seconds=5.0)
    assert [len(timings[name].samples) for name in "AB"] == [20, 9]


def test_where_memory_is_short_the_first_one_meets_the_others_in_turns(entry, tmp_path):
    timings = race([entry("A", free=11), entry("B", free=11), entry("C", free=11)])
    assert (tmp_path / "diary").read_text() == "AB" * SAMPLES + "AC" * SAMPLES
    assert [len(t.samples) for t in timings.values()] == [2 * SAMPLES, SAMPLES, SAMPLES]


def test_the_first_one_is_not_asked_again_when_it_has_failed(entry, tmp_path):
    timings = race(
        [entry("A", free=11, trouble="sample"), entry("B", free=11), entry("C", free=11)]
    )
    assert (tmp_path / "diary").read_text() == "ABBB" + "BC" * SAMPLES
    assert [timing.failure for timing in timings.values()] == ["out of memory", None, None]


def test_who_takes_too_long_is_ended_before_others_are_timed(entry, monkeypatch):
    ask, left = Worker.ask, []

    def impatient(self: Worker, method: str, seconds: float) -> Any:
        if method == "peak":
            children = psutil.Process().children(recursive=True)
            left.append(sum("spawn_main" in str(child.cmdline()) for child in children))
        return ask(self, method, 1.0 if method == "sample" else seconds)

    monkeypatch.setattr(Worker, "ask", impatient)
    timings = race([entry("A", trouble="sleep"), entry("B")])
    assert left == [1]
    assert [timing.failure for timing in timings.values()] == ["not done after 1 s", None]


@pytest.mark.parametrize("together", [1, 2])
def test_another_result_is_refused(entry, tmp_path, together: int):
    reference = entry("R")
    entries = [entry("A", reference, outcome=1.05), entry("B", reference, outcome=1.2)]
    with pytest.raises(Refusal) as refused:
        race(entries, together=together)
    assert str(refused.value) == (
        "no comparison: B does not compute what the reference does: losses 1.2, 1.2, 1.2 against "
        "losses 1, 1, 1, off by 2.0e-01, limit 1.0e-01"
    )
    assert not (tmp_path / "diary").exists(), "something was timed"


def test_not_a_number_agrees_with_nothing():
    ones = [np.ones(2)]
    some = [np.array([1.0, np.nan])]
    assert distance(some, ones) == float("inf")
    assert distance([*ones, *some], [*ones, *ones]) == float("inf")
    assert distance(ones, ones) == 0

"""The kill test: a run that is killed at some moment and resumed is the uninterrupted run."""

import hashlib
import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from parity.twin import make_learner as make_torch_learner
from unet_jax.config import (
    AugmentConfig,
    Config,
    DataConfig,
    ModelConfig,
    OptimConfig,
    SaveConfig,
    TrainConfig,
)
from unet_jax.framework import Framework
from unet_jax.learner import JaxLearner
from unet_jax.train import train as run_training
from unet_jax.train_options import RunOptions

Name = Literal["jax", "torch"]
Digests = dict[str, str]

EPOCHS, IMAGES, BATCH = 3, 18, 4
STEPS = EPOCHS * (IMAGES // BATCH)
LONGEST = 2.0
"""Seconds after a step began in which its run is killed: the first run's first step compiles."""


def tiny(prepared: Path) -> Config:
    """A run that has all that a state can hold, and is saved within epochs and after them."""
    return Config(
        data=DataConfig(size=(16, 24), scenes=24, val_fraction=0.25, prepared_dir=prepared),
        augment=AugmentConfig(
            rotation=20.0, scale=(0.8, 1.2), translation=0.1, brightness=0.2, hue=0.05
        ),
        model=ModelConfig(architecture="plain", channels=(4,), norm="batch"),
        optim=OptimConfig(
            learning_rate=0.01, schedule="plateau", plateau_patience=0, warmup=0, warmup_steps=4
        ),
        train=TrainConfig(
            epochs=EPOCHS, batch_size=BATCH, accumulate=2, precision="float16", ema_decay=0.9
        ),
        save=SaveConfig(every_steps=2),
    )


@dataclass(frozen=True)
class Point:
    """A run that was killed, and resumed.

    Attributes:
      framework: Which one's.
      step: The step that was under way, from 1.
      seconds: How long after it began.
      half_written: Whether a checkpoint was being written.
      resumed_from: The step after which the run went on.
      different: What is not as in the uninterrupted run.
    """

    framework: Name
    step: int
    seconds: float
    half_written: bool
    resumed_from: int
    different: list[str]


class KillTest:
    """The runs of one framework, each in a process of its own."""

    def __init__(self, framework: Name, folder: Path, seed: int) -> None:
        """Args:
        framework: Which one's.
        folder: Empty.
        seed: Of the moments.
        """
        self.framework: Name = framework
        self.folder = folder
        self._random = random.Random(f"{framework} {seed}")
        self._config = tiny(folder / "prepared")
        # All but the first run find the steps compiled.
        jax.config.update("jax_compilation_cache_dir", str(folder / "compiled"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        reference = folder / "reference"
        begun = list(self._run(reference).times())
        self._expected = outcome(reference)
        # How long each step took, with all that came before the next one, or the end.
        self._spans = [min(later - time, LONGEST) for time, later in pairwise(begun)]

    def points(self, count: int) -> Iterator[Point]:
        """Kills as many runs, each at another moment."""
        tried = 0
        while count:
            tried += 1
            point = self._point(self.folder / f"run_{tried}")
            if point is not None:
                count -= 1
                yield point

    def _point(self, workdir: Path) -> Point | None:
        """None if the run was at its end before it could be killed."""
        step = self._random.randint(1, len(self._spans))
        seconds = self._random.uniform(0, self._spans[step - 1])
        if not self._run(workdir).kill(step, seconds):
            return None
        names = [path.name for path in workdir.glob("checkpoints/*")]
        resumed = self._run(workdir, resume=True)
        first, *_ = *resumed.steps(), STEPS + 1
        expected, found = self._expected, outcome(workdir)
        different = [name for name in expected | found if expected.get(name) != found.get(name)]
        return Point(
            framework=self.framework,
            step=step,
            seconds=round(seconds, 3),
            half_written=any(name.endswith(("part", "tmp")) for name in names),
            resumed_from=first - 1,
            different=different,
        )

    def _run(self, workdir: Path, *, resume: bool = False) -> "Process":
        options = RunOptions(preset="shapes", workdir=workdir, resume=resume, verbose=0)
        return Process(self.framework, options, self._config)


class Process:
    """A training in a fork of this process, which spares the time to import everything anew."""

    def __init__(self, framework: Name, options: RunOptions, config: Config) -> None:
        assert options.workdir is not None
        self._log = options.workdir.with_suffix(".log")
        reading, writing = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(reading)
            status = 1
            try:
                log = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                os.dup2(log, 1)
                os.dup2(log, 2)
                status = train(framework, options, config, writing)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(status)
        os.close(writing)
        self._pipe = os.fdopen(reading)

    def steps(self) -> Iterator[int]:
        """Each step as it begins, until the run has ended well."""
        with self._pipe:
            yield from map(int, self._pipe)
        _, status = os.waitpid(self._pid, 0)
        if status:
            raise RuntimeError(f"a run failed:\n{self._log.read_text()}")

    def times(self) -> Iterator[float]:
        """When each step began, and when the run ended."""
        for _ in self.steps():
            yield time.monotonic()
        yield time.monotonic()

    def kill(self, step: int, seconds: float) -> bool:
        """Kills it that long after `step` began; False if it had ended."""
        with self._pipe:
            for line in self._pipe:
                if int(line) == step:
                    time.sleep(seconds)
                    break
            os.kill(self._pid, signal.SIGKILL)
            _, status = os.waitpid(self._pid, 0)
        return os.WIFSIGNALED(status)


def train(name: Name, options: RunOptions, config: Config, report: int) -> int:
    """Trains, tells `report` of each step as it begins, and leaves digests of the last state."""
    started = time.monotonic()
    make_learner = {"jax": JaxLearner, "torch": make_torch_learner}[name]
    made: list[Any] = []

    def make(*args: Any, **facts: Any) -> Any:
        learner: Any = make_learner(*args, **facts)
        made.append(learner)
        take, count = learner.train_step, 0

        def train_step(batch: Any) -> Mapping[str, Any]:
            nonlocal count
            # Asked once: it waits for the step before.
            count = count + 1 if count else learner.step + 1
            os.write(report, b"%d\n" % count)
            return take(batch)

        learner.train_step = train_step
        return learner

    framework = Framework(
        make_learner=make, describe=_unused, rehearse=_unused, out_of_memory=_never
    )
    status = run_training(options, config, framework, started=started)
    assert options.workdir is not None
    (options.workdir / "digests.json").write_text(json.dumps(digests(made[0])))
    return status


def _unused(config: Config, num_classes: int) -> Any:
    raise AssertionError("nothing is said of these networks")


def _never(error: Exception) -> bool:
    return False


def digests(learner: Any) -> Digests:
    """A digest of every number of a learner's state, by its place."""
    if learner.framework == "jax":
        tree = learner.state
    else:
        tree = {name: part.state_dict() for name, part in learner.parts().items()}
        tree |= {"step": learner.step, "skipped": learner.skipped}
    leaves = ((jax.tree_util.keystr(p), np.asarray(v)) for p, v in jax.tree.leaves_with_path(tree))
    return {
        place: hashlib.sha256(f"{leaf.dtype} {leaf.shape}".encode() + leaf.tobytes()).hexdigest()
        for place, leaf in leaves
    }


def outcome(workdir: Path) -> dict[str, Any]:
    """What a run came to: its last state, and what it recorded of each epoch."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    for record in records:
        record.pop("seconds")
    summary = json.loads((workdir / "summary.json").read_text())
    state = json.loads((workdir / "digests.json").read_text())
    return state | {"metrics.jsonl": records, "best": summary["best"]}

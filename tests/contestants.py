"""A network with something wrong, for the benchmark's tests."""

import time

from parity.benchmark.contender import Contender
from parity.benchmark.task import Task
from parity.benchmark.torch_contestant import TorchTraining

SLEEP = 0.2


class Troubled(TorchTraining):
    """Sleeps where memory is contiguous, and fails where it is to be compiled."""

    def __init__(self, task: Task, contender: Contender) -> None:
        if contender.how != "eager":
            raise RuntimeError("no compiler here\nand much more")
        super().__init__(task, contender)

    def step(self) -> None:
        super().step()
        if not self.contender.channels_last:
            time.sleep(SLEEP)

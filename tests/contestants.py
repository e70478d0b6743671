"""A network with something wrong, for the benchmark's tests."""

import time

import jax

from parity.benchmark.contender import Contender, Precision
from parity.benchmark.contestant import Start
from parity.benchmark.convolution import Convolution
from parity.benchmark.jax_contestant import JaxTraining
from parity.benchmark.jax_layer import JaxLayer
from parity.benchmark.scaling import on_devices
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


class WrongLayer(JaxLayer):
    """Gives another result in one part; of "backward", 1 is the kernel's gradient."""

    def __init__(
        self, wrong: tuple[str, int], precision: Precision, gpu: bool, largest: int
    ) -> None:
        super().__init__(precision, gpu, largest)
        self._wrong = wrong

    def choose(self, layer: Convolution, part: str) -> Start:
        self._part = part
        return super().choose(layer, part)

    def step(self) -> None:
        super().step()
        self._results = [
            1.1 * array if self._wrong == (self._part, n) else array
            for n, array in enumerate(self._results)
        ]


def off_by_a_little(count: int, task: Task, contender: Contender) -> JaxTraining:
    """Several devices, one of whose weights is another."""
    contestant = on_devices(count, task, contender)
    if count == 4:
        params = jax.tree.map(lambda leaf: 1.01 * leaf, contestant.state.params)
        contestant.state = contestant.state.replace(params=params)
    return contestant

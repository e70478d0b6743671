"""The same training step on more and more devices, and a model of what many more would give."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import jax
import torch

from parity.benchmark import machine
from parity.benchmark.agreement import LIMITS
from parity.benchmark.contender import Contender, Precision, check_precisions
from parity.benchmark.jax_contestant import JaxTraining
from parity.benchmark.networks import device_peaks, summed_up, whole_row
from parity.benchmark.plan import Plan
from parity.benchmark.race import Entry
from parity.benchmark.result import Results, Row
from parity.benchmark.roofline import Peaks
from parity.benchmark.setting import set_up
from parity.benchmark.task import JAX, Task, steady
from unet_jax.config import Config
from unet_jax.datasets import class_ids
from unet_jax.parallel import undivided

COUNTS = (1, 2, 4, 8)
MANY = (8, 64, 512)
"""Devices that the model is asked about."""
VIRTUAL = ", virtual"
"""What is added to the name of devices that share one processor: their losses count, not speed."""


class Network(NamedTuple):
    """What devices are joined by.

    Attributes:
      name: Of the devices and what joins them.
      devices: On one host.
      within: Bytes a second that a device sends to its neighbours on the host.
      between: That all of a host send to other hosts, together.
    """

    name: str
    devices: int
    within: float
    between: float

    def joins(self, device: str) -> bool:
        """Whether it is this device's, by name."""
        return any(part in device for part in self.name.partition(",")[0].split(" or "))


NETWORKS = (
    Network("H100 or H200, NVLink and 8 × 400 Gb/s", 8, 450e9, 400e9),
    Network("TPU v5e", 8, 200e9, 200e9),
    Network("TPU v5p", 4, 600e9, 600e9),
)
"""By what NVIDIA says of its DGX H100 and H200, and Google Cloud of its TPUs: 1,600 and 4,800 Gb/s
a chip."""


def reduction(size: float, devices: int, network: Network) -> float:
    """Seconds that a ring takes to sum `size` bytes of gradients over the devices.

    Each sends all but one part of `devices` twice (Patarasuk and Yuan, 2009,
    https://doi.org/10.1016/j.jpdc.2008.09.002); latency is neglected.
    """
    slowest = network.within if devices <= network.devices else network.between
    return 2 * (devices - 1) / devices * size / slowest


def efficiency(step: float, size: float, devices: int, network: Network) -> tuple[float, float]:
    """Share of so many times one device's images/s that is left, at least and at most.

    Args:
      step: Seconds of one device's step, with the same images a device.
      size: Bytes of gradients.
      devices: How many.
      network: What joins them.

    Returns:
      If the sum begins when the last gradient is there; and if it runs beside the backward pass,
      two thirds of the step, as far as that is long.
    """
    summing = reduction(size, devices, network)
    return step / (step + summing), step / (step + max(0.0, summing - 2 / 3 * step))


def measure(config: Config, plan: Plan, say: Callable[[str], object]) -> Results:
    """Times one batch on 1, 2, 4 and 8 devices, as many as there are; a CPU is divided into eight.

    Args:
      config: The network's, and its training's.
      plan: How long, and in which batches and precisions.
      say: Told how it goes.

    Raises:
      ValueError: Plan and config do not go together, or nothing of it can be measured here.
      Refusal: Several devices compute something else than one does.
    """
    classes, gpu = len(class_ids(config.data)), torch.cuda.is_available()
    config.loss.check(classes)
    counts = [n for n in COUNTS if not gpu or n <= torch.cuda.device_count()]
    batch_sizes = plan.batch_sizes or (config.train.batch_size,)
    for batch_size in batch_sizes:
        reason = undivided(steady(config, batch_size), counts[-1])
        if reason is not None:
            raise ValueError(reason)
    precisions = plan.precisions or (config.train.precision,)
    check_precisions(precisions, gpu)
    facts, device = machine.facts(), machine.device(gpu)
    peaks, rows = device_peaks(device), []
    for batch_size in batch_sizes:
        for precision in precisions:
            with TemporaryDirectory() as folder:
                task = set_up(config, batch_size, classes, Path(folder), 1, plan.workers)
                facts["gradients"] = _gradients(task)
                rows += _rows(task, precision, counts, plan, peaks, say)
    return summed_up(config, plan, device, facts, peaks, rows)


def _gradients(task: Task) -> int:
    """Bytes of all parameters' gradients, which are of float32."""
    weights = task.load(JAX).items()
    return 4 * sum(array.size for name, array in weights if name.startswith("params/"))


def _rows(
    task: Task,
    precision: Precision,
    counts: Sequence[int],
    plan: Plan,
    peaks: Peaks,
    say: Callable[[str], object],
) -> list[Row]:
    contender = Contender(framework="jax", how="pmap", precision=precision)
    entries: dict[int, Entry] = {}
    for n in counts:
        make = partial(on_devices, n, task, contender)
        alone, limit = entries.get(1), LIMITS["train"][precision]
        name = _name(n, precision, task.gpu)
        entries[n] = Entry(name, make, alone, limit, contender.missing(task.gpu))
    timings = plan.race(say).run(list(entries.values()))
    return [
        whole_row(
            task,
            entry.name,
            precision,
            plan,
            peaks,
            timings[entry.name],
            devices=n if task.gpu else 1,
        )
        for n, entry in entries.items()
    ]


def modelled(results: Results, rows: Sequence[Row]) -> list[str]:
    """What many more devices would make of one's measured step; nothing, of virtual ones."""
    said = []
    for row in rows:
        if row.failure is not None or row.contender != _name(1, row.precision, gpu=True):
            continue
        for network in (each for each in NETWORKS if each.joins(results.device)):
            for n in MANY:
                least, most = efficiency(row.median, results.facts["gradients"], n, network)
                said.append(
                    f"By the model, {n} of {network.name}: {least:.0%} to {most:.0%} of {n} "
                    f"times one's rate in {row.precision}"
                )
    return said


def _name(devices: int, precision: str, gpu: bool) -> str:
    return f"JAX, {devices} device{'s' * (devices > 1)}{'' if gpu else VIRTUAL}, {precision}"


def on_devices(count: int, task: Task, contender: Contender) -> JaxTraining:
    """The contestant on this many of the devices; in a process of its own."""
    if task.gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, range(count)))
    else:
        jax.config.update("jax_num_cpu_devices", count)
    return JaxTraining(task, contender)

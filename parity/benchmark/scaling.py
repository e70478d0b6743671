"""The same training step on more and more devices, and a model of what many more would give."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import jax
import torch

from parity.benchmark import machine
from parity.benchmark.agreement import LIMITS
from parity.benchmark.contender import Contender, Precision
from parity.benchmark.jax_contestant import JaxTraining
from parity.benchmark.networks import Plan, device_peaks, filled, title
from parity.benchmark.race import Entry, Race
from parity.benchmark.result import Results, Row
from parity.benchmark.roofline import TRAINING, bound, convolutions
from parity.benchmark.setting import set_up
from parity.benchmark.task import Task
from unet_jax.config import Config, dump
from unet_jax.datasets import class_ids

COUNTS = (1, 2, 4, 8)
VIRTUAL = ", virtual"
"""What is added to the name of devices that share one processor: their losses count, not speed."""


class Network(NamedTuple):
    """What devices are joined by.

    Attributes:
      name: Of the devices and what joins them.
      devices: On one host.
      within: Bytes a second that a device sends to its neighbours on the host.
      between: That all of a host send to other hosts, together.
      source: Where the numbers come from.
    """

    name: str
    devices: int
    within: float
    between: float
    source: str


NETWORKS = (
    Network("H100 or H200, NVLink and 8 × 400 Gb/s", 8, 450e9, 400e9, "NVIDIA DGX H100/H200"),
    Network("TPU v5e", 8, 200e9, 200e9, "Google Cloud, TPU v5e: 1,600 Gb/s a chip"),
    Network("TPU v5p", 4, 600e9, 600e9, "Google Cloud, TPU v5p: 4,800 Gb/s a chip"),
)


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
      ValueError: Plan and config do not go together.
      Refusal: Several devices compute something else than one does.
    """
    classes, gpu = len(class_ids(config.data)), torch.cuda.is_available()
    config.loss.check(classes)
    counts = [n for n in COUNTS if not gpu or n <= torch.cuda.device_count()]
    facts, device = machine.facts(), machine.device(gpu)
    peaks, rows = device_peaks(device), []
    for batch_size in plan.batch_sizes or (config.train.batch_size,):
        _check(batch_size, config.train.accumulate, counts)
        for precision in plan.precisions or (config.train.precision,):
            with TemporaryDirectory() as folder:
                task = set_up(config, batch_size, classes, Path(folder), 1, plan.workers)
                found = _rows(task, precision, counts, plan, say)
            layers = convolutions(task.config, task.num_classes)
            least = TRAINING * bound(layers, precision, peaks)
            flops = TRAINING * sum(layer.flops for layer in layers)
            rows += [
                replace(row, flops=flops, bound=least / (n if gpu else 1))
                for n, row in zip(counts, found, strict=True)
            ]
    shown = replace(config, data=replace(config.data, data_dir=None, description=None))
    facts |= {"peaks": peaks._asdict(), "settings": dump(shown), "after": machine.nvidia()}
    return Results(subject="scaling", title=title(config), device=device, facts=facts, rows=rows)


def _check(batch_size: int, accumulate: int, counts: Sequence[int]) -> None:
    if batch_size % (counts[-1] * accumulate):
        parts = f" × {accumulate} micro-batches" if accumulate > 1 else ""
        raise ValueError(
            f"batch_size: {batch_size} does not divide among {counts[-1]} devices{parts}"
        )


def _rows(
    task: Task,
    precision: Precision,
    counts: Sequence[int],
    plan: Plan,
    say: Callable[[str], object],
) -> list[Row]:
    contender = Contender(framework="jax", how="pmap", precision=precision)
    alone = Entry(_name(1, precision, task.gpu), partial(on_devices, 1, task, contender))
    more = [
        Entry(
            _name(n, precision, task.gpu),
            partial(on_devices, n, task, contender),
            alone,
            LIMITS["train"][precision],
        )
        for n in counts[1:]
    ]
    race = Race(samples=plan.samples, seconds=plan.seconds, say=say)
    timings = race.run([alone, *more])
    (height, width), batch = task.config.data.size, task.config.train.batch_size
    rows = (
        Row(
            case=f"{height}×{width}, batch {batch}",
            contender=entry.name,
            precision=precision,
            images=batch,
            wanted=plan.samples,
        )
        for entry in (alone, *more)
    )
    return [filled(row, timings[row.contender]) for row in rows]


def _name(devices: int, precision: Precision, gpu: bool) -> str:
    return f"JAX, {devices} device{'s' * (devices > 1)}{'' if gpu else VIRTUAL}, {precision}"


def on_devices(count: int, task: Task, contender: Contender) -> JaxTraining:
    """The contestant on this many of the devices; in a process of its own."""
    if task.gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, range(count)))
    else:
        jax.config.update("jax_num_cpu_devices", count)
    return JaxTraining(task, contender)

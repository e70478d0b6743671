"""Training and inference of whole networks: all contenders against each other."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from parity.benchmark import machine, memory
from parity.benchmark.checkout import check, commit
from parity.benchmark.contender import Contender, Precision, check_precisions, chosen, contenders
from parity.benchmark.jobs import CONTESTANTS, JOBS, entry
from parity.benchmark.peaks import Gauge, published
from parity.benchmark.plan import Plan
from parity.benchmark.race import Entry, Timing
from parity.benchmark.result import Results, Row
from parity.benchmark.roofline import TRAINING, Peaks, bound, convolutions
from parity.benchmark.setting import set_up
from parity.benchmark.task import Task, steady
from parity.benchmark.worker import Worker
from unet_jax import onednn
from unet_jax.config import Config, dump
from unet_jax.datasets import class_ids


def measure(config: Config, plan: Plan, say: Callable[[str], object]) -> Results:
    """Runs all contenders at all sizes of batch.

    Args:
      config: The network's, and its training's.
      plan: What of it.
      say: Told how it goes.

    Raises:
      ValueError: Plan and config do not go together, a checkout's code is another, or nothing of
        it can be measured here.
      Refusal: Two contenders compute something else.
    """
    classes, gpu = len(class_ids(config.data)), torch.cuda.is_available()
    config.loss.check(classes)
    batch_sizes = plan.batch_sizes or (config.train.batch_size,)
    for batch_size in batch_sizes:
        steady(config, batch_size)  # Before anything takes long.
    devices = torch.cuda.device_count() if gpu else int(os.environ.get("JAX_NUM_CPU_DEVICES", "1"))
    own: Precision = config.train.precision
    precisions = plan.precisions or ((own, "tf32") if own == "float32" else (own,))
    everyone = contenders(
        precisions,
        devices,
        onednn=not gpu and onednn.available(),
        frozen=plan.subject == "infer",
        checkouts=plan.checkouts,
    )
    found = chosen(everyone, plan.parts, "--contenders")
    check_precisions([contender.precision for contender in found], gpu)
    if plan.checkouts and not any(contender.checkout for contender in found):
        raise ValueError("--checkouts: none of JAX takes part; see --contenders")
    facts, device = machine.facts(), machine.device(gpu)
    if plan.checkouts:
        facts["checkouts"] = {checkout.name: commit(checkout) for checkout in plan.checkouts}
    peaks, rows = device_peaks(device), []
    for batch_size in batch_sizes:
        with TemporaryDirectory() as folder:
            task = set_up(config, batch_size, classes, Path(folder), devices, plan.workers)
            rows += _rows(task, found, plan, peaks, say)
    return summed_up(config, plan, device, facts, peaks, rows)


def summed_up(
    config: Config,
    plan: Plan,
    device: str,
    facts: dict[str, Any],
    peaks: Peaks,
    rows: list[Row],
) -> Results:
    """The rows with all that is known of how they came about; without places on this machine."""
    shown = replace(config, data=replace(config.data, data_dir=None, description=None))
    facts |= {"peaks": peaks._asdict(), "settings": dump(shown), "memory": memory.ACCOUNT}
    return Results(subject=plan.subject, title=title(config), device=device, facts=facts, rows=rows)


def device_peaks(device: str) -> Peaks:
    """The published ones, or measured in a process that leaves nothing behind."""
    known = published(device)
    if known is not None:
        return known
    worker = Worker(Gauge, Path(os.devnull))
    try:
        return worker.ask("peaks", 600.0)
    finally:
        worker.close()


def _rows(
    task: Task,
    found: Sequence[Contender],
    plan: Plan,
    peaks: Peaks,
    say: Callable[[str], object],
) -> list[Row]:
    """Those of one size of batch."""
    entries: dict[str, Contender] = {}
    listed: list[Entry] = []
    for contender in found:
        for job in JOBS[plan.subject]:
            if (job, contender.framework) in CONTESTANTS:
                made = entry(task, contender, job)
                entries[made.name] = contender
                listed.append(made)
                if contender.checkout is not None:
                    check(contender.checkout, made.make)
    timings = plan.race(say).run(listed)
    return [
        whole_row(
            task,
            name,
            contender.precision,
            plan,
            peaks,
            timings[name],
            devices=task.devices if contender.how == "pmap" else 1,
            checkout=contender.checkout,
        )
        for name, contender in entries.items()
    ]


def whole_row(
    task: Task,
    name: str,
    precision: Precision,
    plan: Plan,
    peaks: Peaks,
    timing: Timing,
    *,
    devices: int,
    checkout: Path | None = None,
) -> Row:
    """A whole network's.

    Args:
      task: What was run.
      name: The contender's.
      precision: What convolutions computed in.
      plan: What of it, how often.
      peaks: A device's.
      timing: What was seen.
      devices: How many took part.
      checkout: The checkout of this project that it was of; None: this one.
    """
    layers = convolutions(task.config, task.num_classes)
    passes = 1 if plan.subject == "infer" else TRAINING
    (height, width), batch = task.config.data.size, task.config.train.batch_size
    row = Row(
        case=f"{height}×{width}, batch {batch}",
        contender=name,
        precision=precision,
        images=batch,
        devices=devices,
        checkout=checkout.name if checkout else "",
        wanted=plan.samples,
        flops=passes * sum(layer.flops for layer in layers),
        bound=passes * bound(layers, precision, peaks) / devices,
    )
    return filled(row, timing)


def filled(row: Row, timing: Timing) -> Row:
    """The row with what was seen."""
    start = timing.start
    failure = timing.failure
    if failure is None and not timing.samples:
        failure = "no sample was taken"
    return replace(
        row,
        failure=failure,
        samples=tuple(timing.samples),
        steps=start.steps if start else 0,
        first=start.first if start else 0.0,
        warm_up=start.warm_up if start else 0,
        memory=timing.memory,
        distance=timing.distance,
        clock=timing.clock,
    )


def title(config: Config) -> str:
    """The network in a line."""
    model = config.model
    return f"{model.architecture} U-Net, channels {' '.join(map(str, model.channels))}"

"""Each convolution of a network by itself: forward, and both of its gradients."""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from parity.benchmark import machine
from parity.benchmark.agreement import LIMITS, check
from parity.benchmark.contender import Precision, check_precisions, missing
from parity.benchmark.contestant import Start
from parity.benchmark.convolution import Convolution
from parity.benchmark.jax_layer import JaxLayer
from parity.benchmark.networks import device_peaks, title
from parity.benchmark.plan import Plan
from parity.benchmark.result import Results, Row
from parity.benchmark.roofline import Peaks, bound, convolutions
from parity.benchmark.task import steady
from parity.benchmark.torch_layer import TorchLayer
from parity.benchmark.turns import patience, take_turns
from parity.benchmark.worker import Worker
from unet_jax.config import Config
from unet_jax.datasets import class_ids
from unet_jax.pipeline import num_logits

LAYERS: dict[str, Callable[..., Any]] = {"PyTorch": TorchLayer, "JAX": JaxLayer}
PARTS = {"forward": 1, "backward": 2}
"""How many convolutions each is."""


def measure(config: Config, plan: Plan, say: Callable[[str], object]) -> Results:
    """Times each layer that differs from the others, in both frameworks in turns.

    Args:
      config: The network's.
      plan: Sizes of batch, precisions, how many samples; all take part.
      say: Told how it goes.

    Raises:
      ValueError: Nothing can be measured in these precisions here.
      Failed: A framework cannot.
      Refusal: The two compute something else.
    """
    classes, gpu = class_ids(config.data), torch.cuda.is_available()
    precisions = plan.precisions or (config.train.precision,)
    check_precisions(precisions, gpu)
    facts, device = machine.facts(), machine.device(gpu)
    peaks, rows = device_peaks(device), []
    for batch_size in plan.batch_sizes or (config.train.batch_size,):
        of_size = steady(config, batch_size)
        counted = Counter(convolutions(of_size, num_logits(classes)))
        for precision in precisions:
            reason = missing(precision, gpu)
            if reason is None:
                rows += _rows(counted, precision, plan, peaks, gpu, of_size.largest_layer, say)
            else:
                say(f"{precision}: {reason}")
    facts["peaks"] = peaks._asdict()
    return Results(subject="ops", title=title(config), device=device, facts=facts, rows=rows)


def _rows(
    counted: Counter[Convolution],
    precision: Precision,
    plan: Plan,
    peaks: Peaks,
    gpu: bool,
    largest: int,
    say: Callable[[str], object],
) -> list[Row]:
    rows = []
    given = {"PyTorch": (precision, gpu), "JAX": (precision, gpu, largest)}
    with TemporaryDirectory() as folder, ExitStack() as open_things:
        workers = {}
        for name, make in LAYERS.items():
            worker = Worker(partial(make, *given[name]), Path(folder, f"{name}.log"))
            open_things.callback(worker.close)
            workers[name] = worker
        for layer, count in counted.items():
            say(f"{layer}, {precision}")
            for part in PARTS:
                rows += _turns(layer, count, part, precision, plan, peaks, workers)
    return rows


def _turns(
    layer: Convolution,
    count: int,
    part: str,
    precision: Precision,
    plan: Plan,
    peaks: Peaks,
    workers: dict[str, Worker],
) -> list[Row]:
    """One of a layer's parts in both frameworks."""
    starts = _agreeing(layer, part, precision, plan, workers)
    samples = take_turns(
        lambda name: workers[name].ask("sample", patience(plan.seconds)),
        {name: start.steps for name, start in starts.items()},
        plan.samples,
        plan.seconds,
    )
    return [
        Row(
            case=f"{layer}, {precision}",
            contender=f"{name} {part}",
            precision=precision,
            images=layer.batch,
            samples=tuple(samples[name]),
            steps=start.steps,
            wanted=plan.samples,
            first=start.first,
            warm_up=start.warm_up,
            flops=PARTS[part] * layer.flops,
            bound=PARTS[part] * bound([layer], precision, peaks),
            count=count,
        )
        for name, start in starts.items()
    ]


def _agreeing(
    layer: Convolution,
    part: str,
    precision: Precision,
    plan: Plan,
    workers: dict[str, Worker],
) -> dict[str, Start]:
    """How each begins, by name, if all of them compute the same: backward, both gradients."""
    starts: dict[str, Start] = {}
    outcomes: dict[str, list[np.ndarray]] = {}
    for name, worker in workers.items():
        starts[name] = worker.ask("choose", plan.seconds, layer, part)
        outcomes[name] = starts[name].outcomes
        if part == "backward":
            outcomes[name] = [*outcomes[name], worker.ask("kernel_gradient", plan.seconds)]
        limit = LIMITS["ops"][precision]
        check(f"{name} {part} of {layer}", outcomes[name], outcomes["PyTorch"], limit)
    return starts


def lost(rows: Sequence[Row]) -> dict[str, float]:
    """Seconds of a step that JAX loses to PyTorch at each layer, by its case; the most first."""
    seconds: Counter[str] = Counter()
    for row in rows:
        sign = 1 if row.contender.startswith("JAX") else -1
        seconds[row.case] += sign * row.count * row.median  # type: ignore[assignment]
    return dict(sorted(seconds.items(), key=lambda pair: -pair[1]))

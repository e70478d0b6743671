"""From a command line to tables, JSON files and charts."""

import json
import logging
import os
import platform
import sys
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from unet_jax.cli import INTERRUPTED, NETWORKS, BenchmarkOptions, fail
from unet_jax.config import Config

FOLDER = Path("docs/benchmarks")
REFUSED = 1
"""Exit status where contenders disagree, or something got slower."""
WIDTH = 160
"""Characters a line, where no terminal says how many there are."""


def benchmark(options: BenchmarkOptions, config: Config) -> int:
    """Measures, prints, and writes `--out`.

    Returns:
      The exit status: 0 when done, 1 where contenders disagree or something got slower, 130 when
      Ctrl-C ended it.
    """
    logging.getLogger("absl").setLevel(logging.ERROR)
    if options.out is not None and not options.out.parent.is_dir():
        fail(f"--out: there is no folder {options.out.parent}")
    if options.out is not None and options.out.is_dir():
        fail(f"--out: {options.out} is a folder")
    run = partial(_networks if options.subject in NETWORKS else RUNS[options.subject], options)
    try:
        return run(config)
    except (ValueError, OSError) as error:
        fail(str(error))
    except KeyboardInterrupt:
        return INTERRUPTED


def console() -> Console:
    """Where tables go."""
    return Console() if sys.stdout.isatty() else Console(width=WIDTH)


def say(text: str) -> None:
    """Tells how it goes."""
    print(text, file=sys.stderr, flush=True)


def _networks(options: BenchmarkOptions, config: Config) -> int:
    """Training, inference, or layers."""
    from parity.benchmark.agreement import Refusal
    from parity.benchmark.chart import draw
    from parity.benchmark.worker import Failed

    try:
        results = _measured(options, config)
    except (Refusal, Failed) as error:
        print(f"error: {error}", file=sys.stderr)
        return REFUSED
    if options.out is not None:
        results.save(options.out)
        draw(results, options.out.with_suffix(".png"))
    return 0


def _measured(options: BenchmarkOptions, config: Config, plan: Any = None) -> Any:
    """What was measured; its tables are printed."""
    from parity.benchmark import layers, networks
    from parity.benchmark.table import tables

    plan = plan or _plan(options)
    measure = layers.measure if options.subject == "ops" else networks.measure
    results = measure(config, plan, say)
    for table in tables(results):
        console().print(table)
    versions = ", ".join(f"{name} {value}" for name, value in results.facts["versions"].items())
    console().print(f"{results.device}; {versions}", markup=False, highlight=False, soft_wrap=True)
    return results


def _plan(options: BenchmarkOptions) -> Any:
    from parity.benchmark.networks import Plan

    return Plan(
        subject="infer"
        if options.subject == "infer"
        else "end-to-end"
        if options.end_to_end
        else "train",
        batch_sizes=options.batch_sizes,
        precisions=options.precisions,
        parts=options.contenders,
        samples=options.samples,
        seconds=options.limit,
        workers=options.workers,
    )


def _suite(options: BenchmarkOptions, config: Config) -> int:
    import torch

    from parity.benchmark import machine
    from parity.benchmark.agreement import Refusal
    from parity.benchmark.suite import CPU, GPU, run_suite
    from parity.benchmark.worker import Failed

    folder, gpu = _folder(options), torch.cuda.is_available()
    run = partial(_measured, options)
    try:
        suite = GPU if gpu else CPU
        run_suite(suite, _plan(options), folder, machine.device(gpu), run)
    except (Refusal, Failed) as error:
        print(f"error: {error}", file=sys.stderr)
        return REFUSED
    return _docs(options, config)


def _docs(options: BenchmarkOptions, config: Config) -> int:
    from parity.benchmark.page import page

    folder = _folder(options)
    folder.with_suffix(".md").write_text(page(folder), "utf-8")
    return 0


def _folder(options: BenchmarkOptions) -> Path:
    folder = options.files[0] if options.files else FOLDER
    if not folder.is_dir():
        fail(f"there is no folder {folder}")
    return folder


def _compare(options: BenchmarkOptions, config: Config) -> int:
    from parity.benchmark.regression import changes, table
    from parity.benchmark.result import load

    old, new = map(load, options.files)
    found = changes(old, new)
    console().print(table(found, old, new))
    return REFUSED if any(change.slower for change in found) else 0


def _loaders(options: BenchmarkOptions, config: Config) -> int:
    """How fast data come, or from which encoding."""
    table, results = (_data if options.subject == "data" else _encodings)(options, config)
    console = Console()
    console.print(table)
    packages = ["jax", "grain", "tensorflow-datasets", "pillow", "numpy"]
    if options.subject == "data":
        packages.append("torch")
    facts = {name: metadata.version(name) for name in packages}
    facts |= {"python": platform.python_version(), "cpus": str(os.cpu_count())}
    console.print(", ".join(f"{name} {value}" for name, value in facts.items()), highlight=False)
    if options.out is not None:
        options.out.write_text(json.dumps({"versions": facts, "results": results}, indent=2))
    return 0


RUNS: dict[str, Callable[[BenchmarkOptions, Config], int]] = {
    "data": _loaders,
    "encodings": _loaders,
    "suite": _suite,
    "compare": _compare,
    "docs": _docs,
}


def _title(config: Config) -> str:
    height, width = config.data.prepared_size
    copy = f"{config.data.dataset} at {height}×{width}"
    if config.data.prepared_size != config.data.size:
        copy += f", for a network at {config.data.size[0]}×{config.data.size[1]}"
    return f"{copy}, batches of {config.train.batch_size}"


def _data(options: BenchmarkOptions, config: Config) -> tuple[Table, Any]:
    from parity.benchmark import data  # Here, for it needs torch, and the encodings do not.

    rates = data.race(config, workers=options.workers, rounds=options.rounds, images=options.images)
    table = Table(title=_title(config))
    table.add_column("stage")
    table.add_column("images/s: median (range)", justify="right")
    table.add_column("to PyTorch's", justify="right")
    for name, rate in rates.items():
        ratio = f"{rate.median / rates[data.TORCH].median:,.1f}×" if data.TORCH in rates else "–"
        table.add_row(name, str(rate), ratio)
    return table, {name: rate._asdict() for name, rate in rates.items()}


def _encodings(options: BenchmarkOptions, config: Config) -> tuple[Table, Any]:
    from parity.benchmark import encodings

    results = encodings.race(config, rounds=options.rounds, images=options.images)
    table = Table(title=_title(config))
    table.add_column("stored as")
    table.add_column("kB a sample", justify="right")
    table.add_column("read and decoded, samples/s: median (range)", justify="right")
    for name, result in results.items():
        table.add_row(name, f"{result.kilobytes:.1f}", str(result.rate))
    plain = {
        name: {"kilobytes": result.kilobytes, **result.rate._asdict()}
        for name, result in results.items()
    }
    return table, plain

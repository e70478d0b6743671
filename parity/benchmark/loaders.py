"""Loaders and encodings: from a command line to a table of rates, and a JSON file."""

import json
import os
import platform
from importlib import metadata
from typing import Any

from rich.console import Console
from rich.table import Table

from parity.benchmark.options import BenchmarkOptions
from unet_jax.config import Config


def measure(options: BenchmarkOptions, config: Config) -> int:
    """Measures how fast data come, or from which encoding; prints, and writes `--out`."""
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
    theirs = rates.get(data.TORCH)
    if theirs is None:
        table.caption = "This set is rendered: there are no files for PyTorch's loader."
    else:
        table.add_column("to PyTorch's", justify="right")
    for name, rate in rates.items():
        ratio = [] if theirs is None else [f"{rate.median / theirs.median:,.1f}×"]
        table.add_row(name, str(rate), *ratio)
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

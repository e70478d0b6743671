"""From a command line to tables, JSON files and charts."""

import logging
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from parity.benchmark.options import NETWORKS, BenchmarkOptions
from parity.benchmark.stopped import Stopped, ended_by_sigterm
from unet_jax.cli import INTERRUPTED, fail
from unet_jax.config import Config

if TYPE_CHECKING:
    from parity.benchmark.plan import Plan
    from parity.benchmark.result import Results

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

    Raises:
      SystemExit: SIGTERM ended it, or it cannot be done.
    """
    logging.getLogger("absl").setLevel(logging.ERROR)
    if options.out is not None and not options.out.parent.is_dir():
        fail(f"--out: there is no folder {options.out.parent}")
    if options.out is not None and options.out.is_dir():
        fail(f"--out: {options.out} is a folder")
    if options.out is not None and options.out.exists() and not options.out.is_file():
        fail(f"--out: {options.out} is no regular file")
    if options.out is not None and not os.access(options.out.parent, os.W_OK):
        fail(f"--out: nothing can be written to {options.out.parent}")
    if options.out is not None and options.out == options.out.with_suffix(".png"):
        fail(f"--out: {options.out} is where the chart goes; name the JSON file, without .png")
    run = partial(_networks if options.subject in NETWORKS else RUNS[options.subject], options)
    try:
        with ended_by_sigterm():
            return run(config)
    except Stopped as stopped:
        print(f"error: {stopped}", file=sys.stderr)
        return REFUSED
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


def _loaders(options: BenchmarkOptions, config: Config) -> int:
    from parity.benchmark.loaders import measure

    return measure(options, config)


def _networks(options: BenchmarkOptions, config: Config) -> int:
    """Training, inference, layers, or devices."""
    from parity.benchmark.chart import draw

    results = _measured(config, _plan(options), layers=options.subject == "ops", out=options.out)
    if options.out is not None:
        draw(results, options.out.with_suffix(".png"))
    return 0


def _measured(
    config: Config, plan: "Plan", *, layers: bool = False, out: Path | None = None
) -> "Results":
    """What was measured, written, if it is to be, and printed."""
    from parity.benchmark import layers as alone
    from parity.benchmark import networks, scaling

    several = scaling if plan.subject == "scaling" else networks
    results = (alone if layers else several).measure(config, plan, say)
    try:
        if out is not None:
            results.save(out)
    finally:  # They are shown where they cannot be written, too.
        _show(results)
    return results


def _show(results: "Results") -> None:
    from parity.benchmark.table import tables

    for table in tables(results):
        console().print(table)
    made_with = f"{results.device}; {results.versions}"
    console().print(made_with, markup=False, highlight=False, soft_wrap=True)


def _plan(options: BenchmarkOptions) -> "Plan":
    from parity.benchmark.plan import Plan

    subject = "train" if options.subject not in ("infer", "scaling") else options.subject
    return Plan(
        subject="end-to-end" if options.end_to_end else subject,
        batch_sizes=options.batch_sizes,
        precisions=options.precisions,
        parts=options.contenders,
        samples=options.samples,
        seconds=options.limit,
        together=options.together,
        starts=options.starts,
        workers=options.workers,
        checkouts=[checkout.resolve() for checkout in options.checkouts],
    )


def _suite(options: BenchmarkOptions, config: Config) -> int:
    import torch

    from parity.benchmark import machine
    from parity.benchmark.contender import chosen
    from parity.benchmark.suite import CPU, GPU, run_suite

    folder, gpu = _folder(options), torch.cuda.is_available()
    suite = chosen(GPU if gpu else CPU, options.cases, "--cases")
    run_suite(suite, _plan(options), folder, machine.device(gpu), _measured)
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


RUNS: dict[str, Callable[[BenchmarkOptions, Config], int]] = {
    "data": _loaders,
    "encodings": _loaders,
    "suite": _suite,
    "compare": _compare,
    "docs": _docs,
}

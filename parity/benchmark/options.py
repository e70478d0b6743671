"""The command line of the benchmarks."""

import math
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal, NoReturn

import tyro

from unet_jax.cli import StartOptions, fail, read, start
from unet_jax.config import Config


@dataclass(frozen=True, kw_only=True)
class BenchmarkOptions(StartOptions):
    """What is measured, and how long."""

    subject: tyro.conf.Positional[
        Literal["train", "infer", "ops", "scaling", "data", "encodings", "suite", "compare", "docs"]
    ] = "data"
    """train, infer: the network in JAX against PyTorch in each of its dresses. ops: its layers one
    by one. scaling: a step on 1, 2, 4 and 8 devices. data: the loader by stage, against PyTorch's.
    encodings: ways to store prepared samples. suite: all that docs/benchmarks.md shows of this
    device. compare: what got slower from one JSON file to another. docs: writes
    docs/benchmarks.md."""

    files: tyro.conf.Positional[tuple[Path, ...]] = ()
    """compare: the old file and the new one. suite, docs: the folder of JSON files, by default
    docs/benchmarks; the page is written beside it."""

    batch_sizes: tuple[int, ...] = ()
    """Images a step, one after another (train, infer, ops, scaling). Default: --batch-size."""

    precisions: tuple[Literal["float32", "tf32", "bfloat16", "float16"], ...] = ()
    """What convolutions compute in, likewise. Default: --precision, beside float32 also tf32."""

    contenders: tuple[str, ...] = ()
    """Parts of the names of those who take part, such as JAX or channels_last (train, infer,
    suite). Default: all."""

    checkouts: tuple[Path, ...] = ()
    """Other checkouts of this project, such as `git worktree add ../before HEAD~1` makes: their JAX
    takes part, too, to see what a change brings (train, infer)."""

    cases: tuple[str, ...] = ()
    """Parts of the names of the files that are measured anew, such as 256x256 (suite). Default:
    all."""

    end_to_end: bool = False
    """Also whole epochs from prepared records, loaders included (train)."""

    samples: int = 20
    """How often each contender is timed; they take turns (train, infer, ops, scaling,
    suite)."""

    limit: float = 600.0
    """Seconds that a contender may take to start, and for its samples: a slow one takes fewer
    (train, infer, ops, scaling, suite)."""

    together: int = 1
    """Contenders that start at the same time, for a GPU beside many cores, and fit into its memory
    together. They compile, and try which code is fastest, beside each other: first steps take
    longer than alone (train, infer, scaling, suite)."""

    starts: int = 1
    """How often each contender is started anew, with its share of the samples: by chance, a process
    on a CPU may be slower than another throughout (train, infer, scaling, suite)."""

    rounds: int = 5
    """How often each contender is timed; they take turns (data, encodings)."""

    workers: int = 2
    """Processes of PyTorch's loader (data, train --end-to-end, suite)."""

    images: int = 96
    """Samples a round for PyTorch's loader, or stored in each encoding (data, encodings)."""

    out: Path | None = None
    """JSON file for the results; of networks, a bar chart of the same name is drawn beside it."""


NETWORKS = ("train", "infer", "ops", "scaling")
CONFIGURED = (*NETWORKS, "data", "encodings")
"""What has a network, or data; the others take no setting."""
USERS: dict[str, tuple[str, ...]] = {
    "preset": CONFIGURED,
    "files": ("suite", "compare", "docs"),
    "batch_sizes": NETWORKS,
    "precisions": NETWORKS,
    "contenders": ("train", "infer", "suite"),
    "checkouts": ("train", "infer"),
    "cases": ("suite",),
    "end_to_end": ("train",),
    "samples": (*NETWORKS, "suite"),
    "limit": (*NETWORKS, "suite"),
    "together": ("train", "infer", "scaling", "suite"),
    "starts": ("train", "infer", "scaling", "suite"),
    "rounds": ("data", "encodings"),
    "workers": ("data", "train", "suite"),
    "images": ("data", "encodings"),
    "out": CONFIGURED,
}
"""Options of a benchmark that some subjects alone have, and which ones."""
LEAST = {"workers": 0} | dict.fromkeys(
    ("rounds", "images", "samples", "limit", "together", "starts", "batch_sizes"), 1
)
"""What each number has to be at least."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkArguments:
    benchmark: BenchmarkOptions = field(default_factory=BenchmarkOptions)
    config: Config = field(default_factory=Config)


def parse(
    args: Sequence[str] | None = None, *, description: str
) -> tuple[BenchmarkOptions, Config]:
    """Reads a benchmark's command line, as `unet_jax.train_options.parse` does a training's."""
    args = list(sys.argv[1:] if args is None else args)
    _, config = start(args)
    arguments = read(BenchmarkArguments(config=config), args, description)
    _check(arguments.benchmark)
    if arguments.benchmark.subject not in CONFIGURED:
        _check_unused(arguments.config, arguments.benchmark)
    return arguments.benchmark, arguments.config


def _check(options: BenchmarkOptions) -> None:
    for each in fields(BenchmarkOptions):
        users, value = USERS.get(each.name), getattr(options, each.name)
        if users and options.subject not in users and value != each.default:
            files = " ".join(map(str, options.files))
            _fail_unused(files if each.name == "files" else _flag(each.name), users, options)
    alone = options.subject == "train" and not options.end_to_end
    if alone and options.workers != BenchmarkOptions.workers:
        fail("--workers is for train --end-to-end, not for train alone, which loads nothing")
    for name, least in LEAST.items():
        value = getattr(options, name)
        for number in value if isinstance(value, tuple) else (value,):
            if number < least:
                fail(f"{_flag(name)}: {number} is less than {least}")
            if not math.isfinite(number):
                fail(f"{_flag(name)}: {number} is no finite number")
    for name in ("batch_sizes", "precisions"):
        for value, times in Counter(getattr(options, name)).items():
            if times > 1:
                fail(f"{_flag(name)}: {value} is given more than once")
    if options.starts > options.samples:
        fail(f"--starts: {options.starts} is more than --samples, {options.samples}")
    _check_checkouts(options.checkouts)
    counts = {"compare": (2, 2), "suite": (0, 1), "docs": (0, 1)}
    least, most = counts.get(options.subject, (0, 0))
    if not least <= len(options.files) <= most:
        wanted = "two files, the old one first" if least == 2 else "one folder at most"
        fail(f"{options.subject}: give {wanted}; got {len(options.files)}")


def _check_checkouts(checkouts: Sequence[Path]) -> None:
    names = [checkout.resolve().name for checkout in checkouts]
    for checkout, name in zip(checkouts, names, strict=True):
        if not (checkout / "parity" / "benchmark").is_dir():
            fail(f"--checkouts: {checkout} is none of this project: no folder parity/benchmark")
        if names.count(name) > 1:
            fail(f"--checkouts: more than one is called {name}, by which its rows are told apart")


def _check_unused(config: Config, options: BenchmarkOptions) -> None:
    """Refuses settings other than those that a command line without flags starts from."""
    _, unchanged = start([])
    for old, new in zip(vars(unchanged).values(), vars(config).values(), strict=True):
        for name, value in vars(new).items():
            if value != getattr(old, name):
                _fail_unused(_flag(name), CONFIGURED, options)


def _fail_unused(flag: str, users: Sequence[str], options: BenchmarkOptions) -> NoReturn:
    fail(f"{flag} is for {', '.join(users)}, not for {options.subject}")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"

"""The command lines of the scripts: a preset, changed by a flag for every setting."""

import argparse
import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Literal, NoReturn, TypeVar

import tyro

from unet_jax.config import Config, DataConfig, PrepareConfig, load, presets

INTERRUPTED = 130
"""Exit status that a shell reports for a command ended by Ctrl-C."""
PREPARED = tuple(each.name for each in fields(PrepareConfig))
"""The settings that change what is prepared, or how it is split."""


@dataclass(frozen=True, kw_only=True)
class StartOptions:
    """What every script starts from."""

    preset: str | None = None
    """The settings to start from: a preset's name or a YAML file. Default: the data set's name."""


@dataclass(frozen=True, kw_only=True)
class RunOptions(StartOptions):
    """Where the run goes; none of these changes what is trained."""

    workdir: Path | None = None
    """Folder of the run. Default: runs/PRESET-DATE-TIME."""

    resume: bool = False
    """Go on from the last checkpoint in --workdir, exactly where it stopped, as it was set up."""

    remat: bool = False
    """Compute blocks anew in the backward pass: less memory, more time, the same result."""

    wandb: bool = False
    """Log to Weights & Biases, too: pip install -e ".[wandb]". WANDB_MODE, WANDB_PROJECT and its
    other environment variables count."""

    parallel: Literal["auto", "jit", "pmap", "shard"] = "auto"
    """Devices to train on. jit: one; pmap: all of this host; shard: all of all hosts; auto: jit if
    there is one, else shard. The batch is divided among them (train_jax.py only)."""

    distributed: bool = False
    """Train together with other processes, each on its own host, that run the same command: SLURM,
    Kubernetes or a TPU slice tells JAX of them, or the three below do (train_jax.py only)."""

    coordinator: str | None = None
    """HOST:PORT at which process 0 listens."""

    processes: int | None = None
    """How many processes there are."""

    process: int | None = None
    """Which one this is, from 0."""

    dry_run: bool = False
    """Compile a step, take a few on random data, print layers with shapes, parameters, arithmetic,
    memory and images/s, and stop."""

    verbose: Literal[0, 1, 2, 3] = 1
    """0: print nothing but the result. 1: the architecture in a line, and every epoch. 2: also the
    layers and the optimiser. 3: also the size of every parameter."""


@dataclass(frozen=True, kw_only=True)
class PrepareOptions(StartOptions):
    """What is done beside preparing; none of these changes what is prepared."""

    download: bool = False
    """Fetch the data set first: into --data-dir if that is given."""

    sheet: Path | None = None
    """PNG file for the contact sheet. Default: contact_sheet.png beside the prepared copy."""


@dataclass(frozen=True, kw_only=True)
class RangeTestOptions(StartOptions):
    """How a learning rate is looked for."""

    lowest: float = 1e-6
    """Learning rate of the first step."""

    highest: float = 1.0
    """Learning rate of the last step; the test ends sooner if the loss explodes."""

    steps: int = 200
    """How many there are at most; the learning rate grows by the same factor at each."""

    remat: bool = False
    """Compute blocks anew in the backward pass: less memory, more time, the same result."""

    out: Path = Path("lr_find.png")
    """PNG file for the plot."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkOptions(StartOptions):
    """What is measured, and how long."""

    subject: tyro.conf.Positional[
        Literal["train", "infer", "ops", "data", "encodings", "suite", "compare", "docs"]
    ] = "data"
    """train, infer: the network in JAX against PyTorch in each of its dresses. ops: its layers one
    by one. data: the loader by stage, against PyTorch's. encodings: ways to store prepared samples.
    suite: all that docs/benchmarks.md shows of this device. compare: what got slower from one JSON
    file to another. docs: writes docs/benchmarks.md."""

    files: tyro.conf.Positional[tuple[Path, ...]] = ()
    """compare: the old file and the new one. suite, docs: the folder of JSON files, by default
    docs/benchmarks; the page is written beside it."""

    batch_sizes: tuple[int, ...] = ()
    """Images a step, one after another (train, infer, ops). Default: --batch-size."""

    precisions: tuple[Literal["float32", "tf32", "bfloat16", "float16"], ...] = ()
    """What convolutions compute in, likewise. Default: --precision, beside float32 also tf32."""

    contenders: tuple[str, ...] = ()
    """Parts of the names of those who take part, such as JAX or channels_last (train, infer).
    Default: all."""

    end_to_end: bool = False
    """Also whole epochs from prepared records, loaders included (train)."""

    samples: int = 20
    """How often each contender is timed; they take turns (train, infer, ops, suite)."""

    limit: float = 600.0
    """Seconds that a contender may take to start, and for its samples: a slow one takes fewer
    (train, infer, ops, suite)."""

    rounds: int = 5
    """How often each contender is timed; they take turns (data, encodings)."""

    workers: int = 2
    """Processes of PyTorch's loader (data, train --end-to-end, suite)."""

    images: int = 96
    """Samples a round for PyTorch's loader, or stored in each encoding (data, encodings)."""

    out: Path | None = None
    """JSON file for the results; of networks, a bar chart of the same name is drawn beside it."""


NETWORKS = ("train", "infer", "ops")
BENCHMARK_USERS: dict[str, tuple[str, ...]] = {
    "files": ("suite", "compare", "docs"),
    "batch_sizes": NETWORKS,
    "precisions": NETWORKS,
    "contenders": ("train", "infer"),
    "end_to_end": ("train",),
    "samples": (*NETWORKS, "suite"),
    "limit": (*NETWORKS, "suite"),
    "rounds": ("data", "encodings"),
    "workers": ("data", "train", "suite"),
    "images": ("data", "encodings"),
    "out": (*NETWORKS, "data", "encodings"),
}
"""Options of a benchmark that some subjects alone have, and which ones."""


@dataclass(frozen=True, kw_only=True)
class RangeTestArguments:
    test: RangeTestOptions = field(default_factory=RangeTestOptions)
    config: Config = field(default_factory=Config)


@dataclass(frozen=True, kw_only=True)
class BenchmarkArguments:
    benchmark: BenchmarkOptions = field(default_factory=BenchmarkOptions)
    config: Config = field(default_factory=Config)


@dataclass(frozen=True, kw_only=True)
class Arguments:
    run: RunOptions = field(default_factory=RunOptions)
    config: Config = field(default_factory=Config)


@dataclass(frozen=True, kw_only=True)
class PrepareArguments:
    preparation: PrepareOptions = field(default_factory=PrepareOptions)
    data: PrepareConfig = field(default_factory=PrepareConfig)


T = TypeVar("T", Arguments, PrepareArguments, BenchmarkArguments, RangeTestArguments)


def parse(args: Sequence[str] | None = None, *, description: str) -> tuple[RunOptions, Config]:
    """Reads a training's command line; on a mistake says what is wrong and exits with status 2."""
    args = list(sys.argv[1:] if args is None else args)
    known, start = _start(args)
    arguments = _read(Arguments(config=start), args, description)
    if arguments.run.resume and arguments.run.workdir is None:
        fail("--resume needs --workdir: the folder of the run to go on with")
    _check_processes(arguments.run)
    name = Path(known.preset or arguments.config.data.dataset).stem
    return replace(arguments.run, preset=name), arguments.config


def _check_processes(options: RunOptions) -> None:
    if not options.distributed:
        for name in ("coordinator", "processes", "process"):
            if getattr(options, name) is not None:
                fail(f"--{name} needs --distributed")
    elif options.workdir is None:
        fail("--distributed needs --workdir: one folder, which all processes see")


def parse_prepare(
    args: Sequence[str] | None = None, *, description: str
) -> tuple[PrepareOptions, DataConfig]:
    """Reads a preparation's command line, as `parse` does a training's.

    Returns:
      What is done beside preparing; and the data's settings, of which those that change nothing
      that is prepared have no flags, and are the preset's.
    """
    args = list(sys.argv[1:] if args is None else args)
    _, start = _start(args)
    data = PrepareConfig(**{name: getattr(start.data, name) for name in PREPARED})
    arguments = _read(PrepareArguments(data=data), args, description)
    return arguments.preparation, replace(start.data, **vars(arguments.data))


def training_flags(options: PrepareOptions, config: DataConfig) -> list[str]:
    """The flags by which a training opens what was prepared with these settings."""
    preset = options.preset or config.dataset
    flags = ["--preset" if options.preset else "--dataset", preset]
    start = load(preset).data
    for name in PREPARED:
        value, flag = getattr(config, name), "--" + name.replace("_", "-")
        if value == getattr(start, name):
            continue
        if isinstance(value, tuple):
            flags += [flag, *map(str, value)]
        else:
            flags.append(f"{flag}={value}")  # After a space, `-mask` would be another flag.
    return flags


def parse_benchmark(
    args: Sequence[str] | None = None, *, description: str
) -> tuple[BenchmarkOptions, Config]:
    """Reads a benchmark's command line, as `parse` does a training's."""
    args = list(sys.argv[1:] if args is None else args)
    _, start = _start(args)
    arguments = _read(BenchmarkArguments(config=start), args, description)
    _check_benchmark(arguments.benchmark)
    return arguments.benchmark, arguments.config


def _check_benchmark(options: BenchmarkOptions) -> None:
    for each in fields(BenchmarkOptions):
        users, value = BENCHMARK_USERS.get(each.name), getattr(options, each.name)
        if users and options.subject not in users and value != each.default:
            flag = " ".join(map(str, options.files))
            if each.name != "files":
                flag = f"--{each.name.replace('_', '-')}"
            fail(f"{flag} is for {', '.join(users)}, not for {options.subject}")
    for name in ("rounds", "images", "samples", "limit", "batch_sizes"):
        value = getattr(options, name)
        for number in value if isinstance(value, tuple) else (value,):
            if number < 1:
                fail(f"--{name.replace('_', '-')}: {number} is less than 1")
    counts = {"compare": (2, 2), "suite": (0, 1), "docs": (0, 1)}
    least, most = counts.get(options.subject, (0, 0))
    if not least <= len(options.files) <= most:
        wanted = "two files, the old one first" if least == 2 else "one folder at most"
        fail(f"{options.subject}: give {wanted}; got {len(options.files)}")


def parse_range_test(
    args: Sequence[str] | None = None, *, description: str
) -> tuple[RangeTestOptions, Config]:
    """Reads a range test's command line, as `parse` does a training's."""
    args = list(sys.argv[1:] if args is None else args)
    _, start = _start(args)
    arguments = _read(RangeTestArguments(config=start), args, description)
    test = arguments.test
    if not 0 < test.lowest < test.highest:
        fail(f"--lowest, --highest: {test.lowest} must be above 0 and below {test.highest}")
    if test.steps < 2:
        fail(f"--steps: {test.steps} is less than 2")
    return test, arguments.config


def _start(args: Sequence[str]) -> tuple[argparse.Namespace, Config]:
    """Reads the flags that decide on the defaults of all others, and the defaults."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--preset")
    early.add_argument("--dataset")
    early.add_argument("--workdir", type=Path)
    early.add_argument("--resume", action="store_true")
    known, _ = early.parse_known_args(args)
    with mistakes():
        return known, _starting_config(known)


def _starting_config(known: argparse.Namespace) -> Config:
    if known.resume and known.workdir is not None and not known.preset:
        saved = known.workdir / "config.yaml"
        if not saved.is_file():
            raise ValueError(f"--resume: {known.workdir} holds no run (no config.yaml)")
        return load(saved)
    if known.preset:
        return load(known.preset)
    # An unknown data set is tyro's to report, with the choices.
    return load(known.dataset if known.dataset in presets() else "shapes")


def _read(start: T, args: Sequence[str], description: str) -> T:
    with mistakes():
        return tyro.cli(
            type(start),
            default=start,
            config=(tyro.conf.OmitArgPrefixes,),
            args=args,
            description=f"{description}\n\nPresets: {', '.join(presets())}.",
        )


@contextlib.contextmanager
def mistakes() -> Iterator[None]:
    """Ends the command with one error where files or settings turn out to be wrong; not for code
    in which a `ValueError` would be a mistake of ours."""
    try:
        yield
    except (ValueError, OSError) as error:
        fail(str(error))


def fail(message: str) -> NoReturn:
    """Prints `message` as an error, and exits with status 2."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)

"""The command line of the training scripts: a preset, changed by a flag for every setting."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, NoReturn

import tyro

from unet_jax.config import Config, load, presets


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Where the run goes; none of these changes what is trained."""

    preset: str | None = None
    """The settings to start from: a preset's name or a YAML file. Default: the data set's name."""

    workdir: Path | None = None
    """Folder of the run. Default: runs/PRESET-DATE-TIME."""

    resume: bool = False
    """Go on from the last checkpoint in --workdir, exactly where it stopped, as it was set up."""

    dry_run: bool = False
    """Print the architecture with shapes and parameter count, and stop."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    run: RunOptions = field(default_factory=RunOptions)
    config: Config = field(default_factory=Config)


def parse(args: Sequence[str] | None = None, *, description: str) -> tuple[RunOptions, Config]:
    """Reads the command line; on a mistake says what is wrong and exits with status 2."""
    args = list(sys.argv[1:] if args is None else args)
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--preset")
    early.add_argument("--dataset")
    early.add_argument("--workdir", type=Path)
    early.add_argument("--resume", action="store_true")
    known, _ = early.parse_known_args(args)
    try:
        start = Arguments(config=_starting_config(known))
        arguments = tyro.cli(
            Annotated[Arguments, tyro.conf.OmitArgPrefixes],
            default=start,
            args=args,
            description=f"{description}\n\nPresets: {', '.join(presets())}.",
        )
    except ValueError as error:
        fail(str(error))
    if arguments.run.resume and arguments.run.workdir is None:
        fail("--resume needs --workdir: the folder of the run to go on with")
    name = Path(known.preset or arguments.config.data.dataset).stem
    return replace(arguments.run, preset=name), arguments.config


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


def fail(message: str) -> NoReturn:
    """Prints `message` as an error, and exits with status 2."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)

"""What the scripts' command lines share: a preset, changed by a flag for every setting."""

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import tyro

from unet_jax.config import Config, load, presets

INTERRUPTED = 130
"""Exit status that a shell reports for a command ended by Ctrl-C."""
T = TypeVar("T")
Kinds = tuple[type[Exception], ...]


@dataclass(frozen=True, kw_only=True)
class StartOptions:
    """What every script starts from."""

    preset: str | None = None
    """The settings to start from: a preset's name or a YAML file. Default: the data set's name."""


def start(args: Sequence[str]) -> tuple[argparse.Namespace, Config]:
    """Reads the flags that decide on the defaults of all others, and the defaults.

    Returns:
      `preset`, `dataset`, `workdir`, and whether to `resume` what is there; and the settings.
    """
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--preset")
    early.add_argument("--dataset")
    early.add_argument("--workdir", type=lambda text: Path(text).expanduser())
    early.add_argument("--resume", action="store_true")
    early.add_argument("--resume-or-start", action="store_true")
    known, _ = early.parse_known_args(args)
    if known.resume_or_start and known.workdir is not None:
        known.resume |= (known.workdir / "config.yaml").is_file()
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


def read(default: T, args: Sequence[str], description: str) -> T:
    """Reads a command line: groups of settings, each with a flag, and their defaults."""
    description = f"{description}\n\nPresets: {', '.join(presets())}."
    return parse_args(type(default), args, default=default, description=description)


def parse_args(options: type[T], args: Sequence[str] | None = None, **settings: Any) -> T:
    """`tyro.cli` of a dataclass, whose groups of flags do not have the group's name.

    Args:
      options: What is to be made of the command line.
      args: The command line; None: the process's own.
      **settings: More of `tyro.cli`'s.
    """
    with mistakes(), _printed():
        try:
            return tyro.cli(options, args=args, config=(tyro.conf.OmitArgPrefixes,), **settings)
        except KeyboardInterrupt:
            raise SystemExit(INTERRUPTED) from None


@contextlib.contextmanager
def _printed() -> Iterator[None]:
    """Ends the command without a word where nobody reads its help to the end: `--help | head`."""
    try:
        try:
            yield
        finally:
            print(end="", flush=True)  # Nothing where there is no stdout: `>&-`.
    except BrokenPipeError:
        # What is left is written once more as Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None


@contextlib.contextmanager
def mistakes(kinds: Kinds = (ValueError, OSError)) -> Iterator[None]:
    """Ends the command with one error where files or settings turn out to be wrong; not for code
    in which such an error would be a mistake of ours.

    Args:
      kinds: Of errors.
    """
    try:
        yield
    except kinds as error:
        fail(str(error))


@contextlib.contextmanager
def needs_torch() -> Iterator[None]:
    """Ends the command with one error where PyTorch is not installed."""
    try:
        yield
    except ImportError as error:
        if error.name != "torch":
            raise
        fail('PyTorch is needed for this, and not installed: pip install -e ".[torch]"')


def fail(message: str) -> NoReturn:
    """Prints `message` as an error, and exits with status 2."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)

"""The command line of a preparation, and what follows from it for a training's."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from unet_jax.cli import StartOptions, read, start
from unet_jax.config import DataConfig, PrepareConfig, load

PREPARED = tuple(each.name for each in fields(PrepareConfig))
"""The settings that change what is prepared, or how it is split."""


@dataclass(frozen=True, kw_only=True)
class PrepareOptions(StartOptions):
    """What is done beside preparing; none of these changes what is prepared."""

    download: bool = False
    """Fetch the data set first: into --data-dir if that is given."""

    sheet: Path | None = None
    """PNG file for the contact sheet. Default: contact_sheet.png beside the prepared copy."""


@dataclass(frozen=True, kw_only=True)
class PrepareArguments:
    preparation: PrepareOptions = field(default_factory=PrepareOptions)
    data: PrepareConfig = field(default_factory=PrepareConfig)


def parse_prepare(
    args: Sequence[str] | None = None, *, description: str
) -> tuple[PrepareOptions, DataConfig]:
    """Reads a preparation's command line, as `parse` does a training's.

    Returns:
      What is done beside preparing; and the data's settings, of which those that change nothing
      that is prepared have no flags, and are the preset's.
    """
    args = list(sys.argv[1:] if args is None else args)
    _, config = start(args)
    data = PrepareConfig(**{name: getattr(config.data, name) for name in PREPARED})
    arguments = read(PrepareArguments(data=data), args, description)
    return arguments.preparation, replace(config.data, **vars(arguments.data))


def training_flags(options: PrepareOptions, config: DataConfig) -> list[str]:
    """The flags by which a training opens what was prepared with these settings."""
    preset = options.preset or config.dataset
    flags = ["--preset" if options.preset else "--dataset", preset]
    usual = load(preset).data
    for name in PREPARED:
        value, flag = getattr(config, name), "--" + name.replace("_", "-")
        if value == getattr(usual, name):
            continue
        if isinstance(value, tuple):
            flags += [flag, *map(str, value)]
        else:
            flags.append(f"{flag}={value}")  # After a space, `-mask` would be another flag.
    return flags

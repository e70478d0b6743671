"""The command line of a learning rate range test."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from unet_jax.cli import StartOptions, fail, read, start
from unet_jax.config import Config


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
class RangeTestArguments:
    test: RangeTestOptions = field(default_factory=RangeTestOptions)
    config: Config = field(default_factory=Config)


def parse_range_test(
    args: Sequence[str] | None = None, *, description: str
) -> tuple[RangeTestOptions, Config]:
    """Reads a range test's command line, as `parse` does a training's."""
    args = list(sys.argv[1:] if args is None else args)
    _, config = start(args)
    arguments = read(RangeTestArguments(config=config), args, description)
    test = arguments.test
    if not 0 < test.lowest < test.highest:
        fail(f"--lowest, --highest: {test.lowest} must be above 0 and below {test.highest}")
    if test.steps < 2:
        fail(f"--steps: {test.steps} is less than 2")
    return test, arguments.config

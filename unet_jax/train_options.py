"""The command line of a training."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Literal

from unet_jax.cli import StartOptions, fail, mistakes, read, start
from unet_jax.config import Config
from unet_jax.launch import Launch, read_launch


@dataclass(frozen=True, kw_only=True)
class RunOptions(Launch, StartOptions):
    """Where the run goes; none of these changes what is trained."""

    workdir: Path | None = None
    """Folder of the run. Default: runs/PRESET-DATE-TIME."""

    resume: bool = False
    """Go on from the last checkpoint in --workdir, exactly where it stopped, as it was set up."""

    resume_or_start: bool = False
    """The same if there is a run in --workdir, else start one: for command lines that a scheduler
    runs again."""

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

    @property
    def launch(self) -> Launch:
        """What a resumed run is told, too."""
        return Launch(**{each.name: getattr(self, each.name) for each in fields(Launch)})


@dataclass(frozen=True, kw_only=True)
class Arguments:
    run: RunOptions = field(default_factory=RunOptions)
    config: Config = field(default_factory=Config)


def parse(args: Sequence[str] | None = None, *, description: str) -> tuple[RunOptions, Config]:
    """Reads a training's command line; on a mistake says what is wrong and exits with status 2.

    Returns:
      The options, of which `resume` says whether there is a run to go on with; and the settings.
    """
    args = list(sys.argv[1:] if args is None else args)
    known, config = start(args)
    options = RunOptions()
    if known.workdir is not None and known.resume:
        with mistakes():
            options = RunOptions(**vars(read_launch(known.workdir)))
    arguments = read(Arguments(run=options, config=config), args, description)
    options = replace(arguments.run, workdir=known.workdir, resume=known.resume)
    for name in ("resume", "resume_or_start"):
        if getattr(options, name) and options.workdir is None:
            fail(f"--{name.replace('_', '-')} needs --workdir: the folder of the run to go on with")
    _check_processes(options)
    name = Path(known.preset or arguments.config.data.dataset).stem
    return replace(options, preset=name), arguments.config


def _check_processes(options: RunOptions) -> None:
    if not options.distributed:
        for name in ("coordinator", "processes", "process"):
            if getattr(options, name) is not None:
                fail(f"--{name} needs --distributed")
    elif options.workdir is None:
        fail("--distributed needs --workdir: one folder, which all processes see")

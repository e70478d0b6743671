"""A run's folder, before anything is written to it."""

from pathlib import Path

from unet_jax.config import Config, differences, load
from unet_jax.launch import FILE as LAUNCH
from unet_jax.weights_and_biases import IDENTITY

AT_FIRST = ("config.yaml", LAUNCH, "split.json", "classes.json", IDENTITY)
LATER = ("metrics.jsonl", "summary.json", "curves.png", "confusion.png")
LATER += ("checkpoints", "events", "predictions")
"""What a run writes before the first step, and what it adds later."""


def new_folder(workdir: Path) -> Path:
    """Makes the folder; if another run was as quick, `workdir-2`, or the next one."""
    folder, number = workdir, 1
    while True:
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
            folder = workdir.with_name(f"{workdir.name}-{number}")
        else:
            return folder


def check_free(workdir: Path) -> None:
    """Raises `ValueError` if the folder holds a run, or anything that one would write over."""
    _check_folder(workdir)
    if (workdir / "config.yaml").exists():
        raise ValueError(
            f"--workdir: {workdir} holds a run already; choose another folder, or --resume it"
        )
    taken = [name for name in (*AT_FIRST, *LATER) if (workdir / name).exists()]
    if taken:
        raise ValueError(
            f"--workdir: {workdir} holds {', '.join(taken)}, which a run would write over; choose "
            "another folder"
        )


def check_same(workdir: Path, config: Config) -> None:
    """Raises `ValueError` if the folder holds no run, or one with other settings."""
    _check_folder(workdir)
    if not (workdir / "config.yaml").exists():
        raise ValueError(f"--resume: {workdir} holds no run (no config.yaml)")
    different = differences(load(workdir / "config.yaml"), config)
    if different:
        raise ValueError(
            f"--resume goes on with the settings of {workdir}; not the same: "
            + ", ".join(different)
        )


def _check_folder(workdir: Path) -> None:
    if workdir.exists() and not workdir.is_dir():
        raise ValueError(f"--workdir: {workdir} is a file; a folder is needed")

"""How a run is executed, which changes nothing that it learns."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from unet_jax.draft import draft

FILE = "launch.json"
"""Its name in a run's folder."""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """How a run is executed; a run that is resumed goes on so."""

    remat: bool = False
    """Compute blocks anew in the backward pass: less memory, more time, the same result."""

    wandb: bool = False
    """Log to Weights & Biases, too: pip install -e ".[wandb]". WANDB_MODE, WANDB_PROJECT and its
    other environment variables count."""

    parallel: Literal["auto", "jit", "pmap", "shard"] = "auto"
    """Devices to train on. jit: one; pmap: all of this host; shard: all of all hosts; auto: jit if
    there is one, else shard. The batch is divided among them (train_jax.py only)."""


def read_launch(workdir: Path) -> Launch:
    """How the run in this folder was executed.

    Raises:
      ValueError: The file is damaged.
    """
    path = workdir / FILE
    try:
        return TypeAdapter(Launch).validate_json(path.read_bytes())
    except FileNotFoundError:  # It was killed before it was written.
        return Launch()
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{path}: damaged: {where}{': ' * bool(where)}{first['msg']}") from None


def write_launch(workdir: Path, launch: Launch) -> None:
    """Says so in the run's folder."""
    with draft(workdir / FILE) as part:
        part.write_bytes(TypeAdapter(Launch).dump_json(launch, indent=1))

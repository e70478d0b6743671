"""A trained network, wherever it lies: in a run's folder, or in a file of its own."""

import json
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
from pydantic import TypeAdapter, ValidationError

from unet_jax.checkpoint import Checkpoints
from unet_jax.config import Config
from unet_jax.config import load as load_config
from unet_jax.pipeline import num_logits
from unet_jax.recipe import build_recipe
from unet_jax.step import TrainState
from unet_jax.weights import Colour, Trained, described, load_weights

PICKLED = (".pt", ".pth", ".ckpt", ".bin")
"""Suffixes of PyTorch's files."""
CONVERT = "scripts/convert_weights.py turns it into a file that can be"


def load_trained(place: str | Path, *, last: bool = False, ema: bool = True) -> Trained:
    """Reads a trained network. A damaged state is named on stderr, and the next best one taken.

    Args:
      place: The folder of a run of JAX, or a file of `unet_jax.weights`.
      last: Of a run, the last state and not the best one.
      ema: Of a run that has an average of its weights, whether that is taken.

    Raises:
      ValueError: It is neither, or damaged, or nothing has been saved yet; the message names it.
      OSError: It cannot be read.
    """
    place = Path(place).expanduser()
    if place.is_dir():
        return _from_run(place, last, ema)
    if not place.exists():
        raise ValueError(f"{place}: there is no such run or file")
    if place.suffix in PICKLED:
        raise ValueError(f"{place}: cannot be read as it is; {CONVERT}")
    check_one_state(place, last, ema)
    return load_weights(place)


def check_one_state(file: Path, last: bool, ema: bool) -> None:
    """Raises `ValueError` if of this file, not a run, another state is asked for than it has."""
    if last or not ema:
        raise ValueError(f"{file}: a file has one set of weights; last and ema are for runs")


def _from_run(folder: Path, last: bool, ema: bool) -> Trained:
    if not (folder / "config.yaml").is_file():
        raise ValueError(f"{folder}: not a run (no config.yaml)")
    config = load_config(folder / "config.yaml")
    if any((folder / "checkpoints").glob("*.pt")):
        raise ValueError(f"{folder}: a run of PyTorch cannot be read as it is; {CONVERT}")
    classes, _ = run_classes(folder)
    # What is restored does not depend on how long the run is, nor on the loss' weights.
    recipe = build_recipe(
        config,
        num_classes=num_logits(classes),
        classes=len(classes),
        class_weights=None,
        steps_per_epoch=1,
    )
    template = jax.eval_shape(partial(recipe.init, size=config.data.size), jax.random.key(0))
    state = _restore(folder, config, template, last)
    params = state.evaluated if ema else state.params
    variables = {"params": params, "batch_stats": state.batch_stats}
    return assemble(
        folder,
        jax.device_get({name: part for name, part in variables.items() if part}),
        last=last,
        step=int(state.step),
        ema=ema and state.ema is not None,
    )


def assemble(
    folder: Path, variables: Mapping[str, Any], *, last: bool, step: int, ema: bool
) -> Trained:
    """A run's state, with what the run's folder says of it.

    Args:
      folder: The run's, of either framework.
      variables: The state's, as Flax has them.
      last: Whether it is the last state, and not the best one.
      step: That it was saved at.
      ema: Whether the parameters are an average of the weights.

    Raises:
      ValueError: The run's classes are not known.
    """
    config, (classes, palette) = load_config(folder / "config.yaml"), run_classes(folder)
    return Trained(
        variables=variables,
        model=config.model,
        num_logits=num_logits(classes),
        classes=classes,
        palette=palette,
        mean=config.data.mean,
        std=config.data.std,
        size=config.data.size,
        facts={
            "run": folder.resolve().name,  # No path of this machine.
            "state": "last" if last else f"best by {config.save.best}",
            "step": step,
            "ema": ema,
        },
    )


def largest_layer(
    place: str | Path, size: tuple[int, int] | Literal["native"] | None = None
) -> int | None:
    """Values of an image in the largest of a network's stages; None if they are not known.

    Args:
      place: The folder of a run of either framework, or a file of `unet_jax.weights`.
      size: Height and width that it is shown; None: those that it was trained at.
    """
    place = Path(place).expanduser()
    try:
        if place.is_dir():
            config = load_config(place / "config.yaml")
            model, trained_at = config.model, config.data.size
        else:
            fields = described(place)
            model, trained_at = fields["model"], fields["size"]
    except (ValueError, OSError):  # Whoever reads the network says what is wrong.
        return None
    return None if size == "native" else model.largest_layer(size or trained_at)


def run_classes(folder: Path) -> tuple[tuple[str, ...], tuple[Colour, ...]]:
    """Names and colours of the classes of a run, of either framework.

    Raises:
      ValueError: The run is of an earlier version, or the file damaged.
    """
    path = folder / "classes.json"
    if not path.is_file():
        raise ValueError(
            f"{folder}: its classes are not known (no classes.json), as it is of an earlier "
            "version; the command that trained it adds them when it is run again with --resume "
            f"--workdir {folder}"
        )
    try:
        found = TypeAdapter(dict[str, Any]).validate_python(json.loads(path.read_text("utf-8")))
        names = TypeAdapter(tuple[str, ...]).validate_python(found["classes"])
        palette = TypeAdapter(tuple[Colour, ...]).validate_python(found["palette"])
    except (ValidationError, KeyError, ValueError):
        raise ValueError(f"{path}: damaged; it holds classes and their palette") from None
    return names, palette


def _restore(folder: Path, config: Config, template: TrainState, last: bool) -> TrainState:
    place, save = folder / "checkpoints", config.save
    checkpoints = Checkpoints(place, save.best, lowest=save.lowest, say=_warn)
    try:
        found = checkpoints.restore(template) if last else checkpoints.restore_best(template)
    finally:
        checkpoints.close()
    if found is None:
        raise ValueError(
            f"{folder}: nothing has been saved yet"
            if last
            else f"{folder}: no state has been validated yet; the last one can be had (--last)"
        )
    return found[0]


def _warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)

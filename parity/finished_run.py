"""What a run of either framework has trained, read from its folder."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

import unet_torch_ref.checkpoint
from parity.convert import Variables
from parity.foreign import network_as
from parity.state_file import averaged
from unet_jax.checkpoint import Checkpoints
from unet_jax.config import Config, load
from unet_jax.datasets import class_ids
from unet_jax.datasets.encoding import voc_palette
from unet_jax.pipeline import num_logits
from unet_jax.recipe import build_recipe
from unet_jax.weights import Trained

Say = Callable[[str], object]


def is_run(folder: Path) -> bool:
    """Whether the folder is a run's."""
    return (folder / "config.yaml").is_file()


def described_by(folder: Path) -> dict[str, Any]:
    """What a run says that its checkpoints do not: options of the network, and fields of `Trained`.

    Args:
      folder: The run's.
    """
    config = load(folder / "config.yaml")
    records = _records(folder / "metrics.jsonl")
    facts: dict[str, Any] = {"size_policy": config.model.size_policy, "size": config.data.size}
    facts |= {"mean": config.data.mean, "std": config.data.std}
    if config.model.norm == "group":
        facts["groups"] = config.model.groups
    if records:
        facts["classes"] = tuple(records[-1]["dice_per_class"])
    return facts


def load_run(folder: Path, say: Say = print) -> Trained:
    """The run's best state, or its last if none has been validated.

    Args:
      folder: The run's.
      say: Told of each checkpoint that is damaged.

    Raises:
      ValueError: It holds no whole checkpoint.
    """
    config = load(folder / "config.yaml")
    records = _records(folder / "metrics.jsonl")
    # A run that has not validated yet knows its classes from the data set alone.
    names = tuple(records[-1]["dice_per_class"]) if records else _numbered(config)
    checkpoints = folder / "checkpoints"
    torch = any(checkpoints.glob("*.pt"))
    restored = (_torch if torch else _jax)(config, len(names), checkpoints, say)
    if restored is None:
        raise ValueError(f"{folder}: a run without a checkpoint")
    step, variables = restored
    scores = next((record for record in records if record["step"] == step), {})
    return Trained(
        variables=variables,
        model=config.model,
        num_logits=num_logits(names),
        classes=names,
        palette=voc_palette(len(names)),
        mean=config.data.mean,
        std=config.data.std,
        size=config.data.size,
        facts={
            "framework": "torch" if torch else "jax",
            "step": step,
            "scores": {key: value for key, value in scores.items() if isinstance(value, float)},
        },
    )


def _jax(config: Config, classes: int, folder: Path, say: Say) -> tuple[int, Variables] | None:
    logits = num_logits(range(classes))
    recipe = build_recipe(
        config, num_classes=logits, classes=classes, class_weights=None, steps_per_epoch=1
    )
    template = jax.eval_shape(partial(recipe.init, size=config.data.size), jax.random.key(0))
    save = config.save
    checkpoints = Checkpoints(folder, save.best, lowest=save.lowest, say=say)
    restored = checkpoints.restore_best(template) or checkpoints.restore(template)
    checkpoints.close()
    if restored is None:
        return None
    state, _ = restored
    variables: Variables = {"params": state.evaluated}
    if state.batch_stats:
        variables["batch_stats"] = state.batch_stats
    return int(state.step), jax.tree.map(np.asarray, variables)


def _torch(config: Config, classes: int, folder: Path, say: Say) -> tuple[int, Variables] | None:
    save = config.save
    checkpoints = unet_torch_ref.checkpoint.Checkpoints(
        folder, save.best, lowest=save.lowest, say=say
    )
    restored = checkpoints.restore_best({}) or checkpoints.restore({})
    if restored is None:
        return None
    state, _ = restored
    network = network_as("torch", config.model, num_logits(range(classes)))
    arrays = {name: value.numpy() for name, value in averaged(state).items()}
    return state["step"], network.to_flax(arrays)


def _records(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    # A process killed while writing leaves half a line.
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _numbered(config: Config) -> tuple[str, ...]:
    return class_names(len(class_ids(config.data)))


def class_names(count: int) -> tuple[str, ...]:
    """Names for classes whose own are not known."""
    if count == 2:
        return ("background", "foreground")
    return tuple(f"class {n}" for n in range(count))

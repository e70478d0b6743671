"""Runs to evaluate, with random weights instead of trained ones, and the scores that their own
validation gives."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from drawing import write_kaggle

from parity.convert import to_torch
from parity.twin import build_twin, make_learner
from unet_jax.checkpoint import Checkpoints
from unet_jax.config import Config, DataConfig, ModelConfig, SaveConfig, TrainConfig, dump
from unet_jax.datasets import open_dataset
from unet_jax.metrics import boundary_scores, scores
from unet_jax.pipeline import Pipeline, num_logits
from unet_jax.recipe import build_recipe

SIZE = (16, 24)
MODEL = ModelConfig(architecture="plain", channels=(4,), norm="batch")
CARS, VIEWS = ("a", "b", "c", "d", "e"), ("01", "02", "03")


def make_config(place: Path, dataset: str = "carvana", **data: Any) -> Config:
    """The settings of a run; of Carvana, the files are written.

    Args:
      place: Where data and the prepared copy lie.
      dataset: "carvana" or "shapes".
      data: Settings of the data.
    """
    if dataset == "carvana" and not (place / "data").exists():
        write_kaggle(place / "data", CARS, VIEWS)
    given: dict[str, Any] = {"size": SIZE, "prepared_dir": place / "prepared", "val_fraction": 0.4}
    given |= {"data_dir": place / "data"} if dataset == "carvana" else {"scenes": 8}
    return Config(
        data=DataConfig(dataset=dataset, **given | data),  # type: ignore[arg-type]
        model=MODEL,
        train=TrainConfig(batch_size=2),
        save=SaveConfig(best="dice"),
    )


def write_run(
    folder: Path, config: Config, framework: str = "jax", seed: int = 0
) -> dict[str, Any]:
    """Writes the folder of a run with one state, validated by the code that training has for it.

    Returns:
      The record of its epoch.
    """
    pipeline = Pipeline(open_dataset(config.data), config.data, config.augment, 2, 0)
    classes, logits = len(pipeline.classes), num_logits(pipeline.classes)
    facts: dict[str, Any] = {
        "num_classes": logits,
        "classes": classes,
        "class_weights": None,
        "steps_per_epoch": 1,
    }
    recipe = build_recipe(config, **facts)
    state = recipe.init(jax.random.key(seed), size=config.data.size)
    state = state.replace(params=_undecided(state, recipe, pipeline))
    confusion, boundary = np.zeros((classes, classes), int), np.zeros((classes, 4), int)
    twin = make_learner(config, folder=folder / "checkpoints", **facts)
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    arrays = to_torch(variables, build_twin(config, logits))
    twin.model.load_state_dict({name: torch.from_numpy(x) for name, x in arrays.items()})
    evaluate = jax.jit(recipe.evaluate)
    for batch in pipeline.validation():
        counts = twin.eval_step(batch)[0] if framework == "torch" else evaluate(state, batch)[0]
        confusion += np.asarray(counts["confusion"])
        boundary += np.asarray(counts["boundary"])
    result = {**scores(confusion, pipeline.classes), **boundary_scores(boundary, pipeline.classes)}
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(dump(config))
    write_split(folder, pipeline)
    step = 7
    record = {"epoch": 1, "step": step, "val_loss": 1.0, "train_loss": 1.0, **result}
    (folder / "metrics.jsonl").write_text(json.dumps(record) + "\n")
    metrics = {name: value for name, value in result.items() if isinstance(value, float)}
    if framework == "torch":
        twin.step = step
        twin.save({}, metrics)
    else:
        checkpoints = Checkpoints(folder / "checkpoints", "dice")
        checkpoints.save(state.replace(step=jnp.asarray(step, jnp.int32)), {}, metrics)
        checkpoints.close()
    twin.close()
    return record


def _undecided(state: Any, recipe: Any, pipeline: Pipeline) -> Any:
    """Parameters with which every class is found: logits of a deviation of 1, half of them below 0,
    and 0 in the widest gap there: no two CPUs round a pixel to different sides of it."""
    params = jax.tree.map(np.array, state.params)
    mean, std = (np.array(values, np.float32) for values in recipe.evaluate.keywords["mean_std"])
    variables = {"params": params, "batch_stats": state.batch_stats}
    batches = [(np.asarray(b.image, np.float32) / 255 - mean) / std for b in pipeline.validation()]
    logits = np.concatenate([recipe.model.apply(variables, images) for images in batches])
    ordered = np.sort(logits.reshape(-1, logits.shape[-1]), axis=0)
    middle = ordered[len(ordered) * 2 // 5 : len(ordered) * 3 // 5]
    below = np.diff(middle, axis=0).argmax(axis=0)[None]
    gap = np.take_along_axis(middle, np.concatenate([below, below + 1]), axis=0).mean(axis=0)
    out, deviation = params["conv_out"], logits.std()
    out["kernel"] /= deviation
    out["bias"] = (out["bias"] - gap) / deviation
    return params


def write_split(folder: Path, pipeline: Pipeline) -> None:
    """`split.json` and `classes.json`, as a run writes them."""
    names = {
        "content": pipeline.content,
        "train": [pipeline.names[i] for i in pipeline.split.train],
        "validation": [pipeline.names[i] for i in pipeline.split.validation],
    }
    if pipeline.split.test:
        names["test"] = [pipeline.names[i] for i in pipeline.split.test]
    (folder / "split.json").write_text(json.dumps(names))
    known = {"classes": list(pipeline.classes), "palette": [*map(list, pipeline.palette)]}
    (folder / "classes.json").write_text(json.dumps(known))


def moved(config: Config, **data: Any) -> Config:
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **data))

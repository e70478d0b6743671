"""Where a trained network comes from: what a run's folder says of it, for those who get it."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from unet_jax.config import PLACES, Config, differences, dump, load, presets
from unet_jax.history import read_records
from unet_jax.weights import Trained


def with_provenance(trained: Trained, folder: Path) -> Trained:
    """The network of a run, with all that is known of where it comes from.

    Args:
      trained: Read from the run; its `facts` have the step.
      folder: The run's.

    Raises:
      ValueError: A file is damaged; the message names it.
    """
    facts = {**trained.facts, **provenance(folder, trained.facts["step"])}
    return dataclasses.replace(trained, facts=facts)


def provenance(folder: Path, step: int) -> dict[str, Any]:
    """Gathers it as JSON values, without the paths of whoever trained.

    Args:
      folder: Of a run.
      step: That the state was saved at.

    Returns:
      `dataset`, its name; `split`, the number of samples in each part, and a digest of all;
      `preset`, and the settings that `differ` from it; `config`, all settings; `results`, the
      record of the validation at that step, if there was one; `training`, the run's summary, if it
      is finished.

    Raises:
      ValueError: A file is damaged; the message names it.
    """
    config = load(folder / "config.yaml")
    records = read_records(folder / "metrics.jsonl")
    split = _json(folder / "split.json")
    summary = _json(folder / "summary.json")
    preset = config.data.dataset if config.data.dataset in presets() else "shapes"
    return {
        "dataset": config.data.dataset,
        "split": {k: len(v) if isinstance(v, list) else v for k, v in split.items()},
        "preset": preset,
        "differ": differences(load(preset), config),
        "config": _settings(config),
        "results": next((record for record in records if record.get("step") == step), {}),
        "training": {name: fact for name, fact in summary.items() if name != "best"},
    }


def _settings(config: Config) -> dict[str, Any]:
    groups = yaml.safe_load(dump(config))
    groups["data"] = {k: v for k, v in groups["data"].items() if k not in PLACES}
    return groups


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text("utf-8", "replace"))
        return TypeAdapter(dict[str, Any]).validate_python(found)
    except (json.JSONDecodeError, ValidationError):
        raise ValueError(f"{path}: damaged; it is JSON as runs write it") from None

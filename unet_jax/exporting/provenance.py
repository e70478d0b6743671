"""Where a trained network comes from: what a run's folder says of it, for those who get it."""

import json
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from unet_jax.config import PLACES, Config, differences, dump, load, presets


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
    records = _lines(folder / "metrics.jsonl")
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
    return _checked(path, path.read_text("utf-8", "replace")) if path.is_file() else {}


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    lines = path.read_text("utf-8", "replace").splitlines(keepends=True)
    # A process killed while writing leaves half a line.
    return [_checked(path, line) for line in lines if line.endswith("\n")]


def _checked(path: Path, text: str) -> dict[str, Any]:
    try:
        return TypeAdapter(dict[str, Any]).validate_python(json.loads(text))
    except (json.JSONDecodeError, ValidationError):
        raise ValueError(f"{path}: damaged; it is JSON as runs write it") from None

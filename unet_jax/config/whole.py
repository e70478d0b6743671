"""All groups of settings together, read from YAML and written as such."""

from importlib import resources
from pathlib import Path

import yaml
from pydantic import TypeAdapter, ValidationError, model_validator

from unet_jax.config.augment import AugmentConfig
from unet_jax.config.data import PLACES, DataConfig
from unet_jax.config.loss import LossConfig
from unet_jax.config.model import ModelConfig
from unet_jax.config.optim import OptimConfig
from unet_jax.config.save import SaveConfig
from unet_jax.config.settings import problems, settings
from unet_jax.config.train import TrainConfig


@settings
class Config:
    """Everything that makes one run differ from another."""

    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()
    save: SaveConfig = SaveConfig()

    @model_validator(mode="after")
    def _check(self) -> "Config":
        shortest = self.model.unit
        if min(self.data.size) < shortest:
            raise ValueError(
                f"size: {self.data.size} is too small; {len(self.model.channels)} stages need at "
                f"least {shortest} pixels a side"
            )
        if self.batch_size % self.train.accumulate:
            few = f" with overfit {self.data.overfit}" if self.data.overfit else ""
            raise ValueError(
                f"accumulate: {self.train.accumulate} does not divide batch_size "
                f"{self.batch_size}{few}"
            )
        overlaps = self.loss.dice or self.loss.tversky
        if self.train.accumulate > 1 and overlaps and self.loss.reduction == "batch":
            raise ValueError(
                f"accumulate: {self.train.accumulate} needs reduction image: the overlap of a "
                "whole batch is not known while its parts are computed"
            )
        return self

    @property
    def batch_size(self) -> int:
        """Images a step: with `overfit`, no more than there are."""
        return min(self.train.batch_size, self.data.overfit or self.train.batch_size)

    @property
    def largest_layer(self) -> int:
        """Values of the images that are trained on at once in the largest of the stages."""
        images = self.batch_size // self.train.accumulate
        return images * self.model.largest_layer(self.data.size)


def presets() -> list[str]:
    """Names of the presets that come with the package."""
    folder = resources.files("unet_jax") / "presets"
    return sorted(
        f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")
    )


def load(source: str | Path) -> Config:
    """Reads a preset by its name, or a YAML file by its path.

    Raises:
      ValueError: No such preset or file, or a field in it is unknown or out of range; the message
        has one line for each.
    """
    path = Path(source)
    if str(source) in presets():
        text = (resources.files("unet_jax") / "presets" / f"{source}.yaml").read_text()
    elif path.suffix in (".yaml", ".yml") and path.is_file():
        text = _read_text(path)
    else:
        raise ValueError(
            f"preset {str(source)!r} is neither a YAML file nor one of {', '.join(presets())}"
        )
    try:
        fields = yaml.safe_load(text) or {}
        return TypeAdapter(Config).validate_python(fields)
    except yaml.YAMLError as error:
        raise ValueError(f"{source}: not YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        raise ValueError("\n".join(f"{source}: {line}" for line in problems(error))) from None


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not a text file") from None


def dump(config: Config) -> str:
    """The YAML text that `load` reads back as the same config."""
    fields = TypeAdapter(Config).dump_python(config, mode="json")
    return yaml.safe_dump(fields, sort_keys=False, default_flow_style=None)


def differences(before: Config, now: Config) -> list[str]:
    """The settings that differ and change what is trained or best: `epochs: 10 -> 20`."""
    harmless = (*PLACES, "every_epochs", "every_steps", "keep")
    return [
        f"{name}: {old} -> {getattr(new_group, name)}"
        for old_group, new_group in zip(vars(before).values(), vars(now).values(), strict=True)
        for name, old in vars(old_group).items()
        if name not in harmless and old != getattr(new_group, name)
    ]

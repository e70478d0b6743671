"""A trained network as one file that travels: safetensors, with all that is needed to use it.

The metadata holds, under `unet_jax`, the fields of `Trained` as JSON, but for the variables. Those
are tensors named by their path, `params/encoder_0/conv_1/kernel`, and laid out as Flax has them.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from unet_jax.config import ModelConfig
from unet_jax.draft import draft

KEY = "unet_jax"
VERSION = 1
ASSUMED = "assumed"
"""The fact that lists the fields of `Trained` that a converted file did not tell, nor its user."""

Colour = tuple[int, int, int]
Channels = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A network that can be used.

    Attributes:
      variables: `{"params": …, "batch_stats": …}`; the second is absent without batch norms.
      model: The architecture.
      num_logits: Channels of its logits: 1 (its sigmoid is the last class's probability), or one
        for each class.
      classes: Name of each class id.
      palette: RGB colour of each class id, 0..255.
      mean, std: Of each channel of images in 0..1, which the network takes normalised by them.
      size: Height and width in pixels that it was trained at.
      facts: Whatever else is known, as JSON values: scores, versions, where it comes from.
    """

    variables: Mapping[str, Any]
    model: ModelConfig
    num_logits: int
    classes: tuple[str, ...]
    palette: tuple[Colour, ...]
    mean: Channels
    std: Channels
    size: tuple[int, int]
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises:
        ValueError: Logits, class names and colours are not of the same number.
        """
        count = len(self.classes)
        if count < 2 or self.num_logits not in (count, 1 if count == 2 else count):
            raise ValueError(f"classes: {count} do not go with {self.num_logits} logits a pixel")
        if len(self.palette) != count:
            raise ValueError(f"palette: {len(self.palette)} colours for {count} classes")


def save_weights(trained: Trained, path: Path) -> None:
    """Writes the file, which is whole or not there.

    Args:
      trained: What is written; arrays keep their dtypes.
      path: Its name, by custom with the suffix `.safetensors`.
    """
    fields = {f.name: getattr(trained, f.name) for f in dataclasses.fields(trained)}
    variables, model = fields.pop("variables"), fields.pop("model")
    described = {"version": VERSION, "model": dataclasses.asdict(model), **fields}
    tensors = {
        "/".join(keys): np.asarray(leaf, order="C")
        for keys, leaf in flatten_dict(dict(variables)).items()
    }
    with draft(path) as part:
        part.write_bytes(save(tensors, {KEY: json.dumps(described)}))


def load_weights(path: Path) -> Trained:
    """Reads a file of `save_weights`.

    Raises:
      ValueError: It is not one, or damaged, or of a later version; the message names it.
      OSError: It cannot be read.
    """
    try:
        with safe_open(path, "numpy") as file:
            described = json.loads((file.metadata() or {})[KEY])
            flat = {tuple(name.split("/")): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path}: not a safetensors file, or damaged ({error})") from None
    except KeyError:
        raise ValueError(
            f"{path}: a safetensors file, but not of unet-jax; its weights can perhaps be converted"
        ) from None
    version = described.pop("version")
    if version != VERSION:
        raise ValueError(f"{path}: of version {version}; this program reads version {VERSION}")
    return Trained(
        variables=unflatten_dict(flat),
        model=ModelConfig(**described.pop("model")),
        classes=tuple(described.pop("classes")),
        palette=tuple(tuple(colour) for colour in described.pop("palette")),
        mean=tuple(described.pop("mean")),
        std=tuple(described.pop("std")),
        size=tuple(described.pop("size")),
        **described,
    )

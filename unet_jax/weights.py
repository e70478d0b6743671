"""A trained network as one file that travels: safetensors, with all that is needed to use it.

The metadata holds, under `unet_jax`, the fields of `Trained` as JSON, but for the variables. Those
are tensors named by their path, `params/encoder_0/conv_1/kernel`, and laid out as Flax has them.
"""

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from unet_jax.config import ModelConfig
from unet_jax.config.settings import problems
from unet_jax.draft import draft
from unet_jax.models import build_model

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

    @property
    def parameters(self) -> int:
        """How many there are: numbers that were trained."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.variables["params"]))


def save_weights(trained: Trained, path: Path) -> None:
    """Writes the file, which is whole or not there.

    Args:
      trained: What is written; arrays keep their dtypes.
      path: Its name, by custom with the suffix `.safetensors`.
    """
    fields = {f.name: getattr(trained, f.name) for f in dataclasses.fields(trained)}
    variables, model = fields.pop("variables"), fields.pop("model")
    description = {"version": VERSION, "model": dataclasses.asdict(model), **fields}
    tensors = {
        "/".join(keys): np.asarray(leaf, order="C")
        for keys, leaf in flatten_dict(dict(variables)).items()
    }
    with draft(path) as part:
        part.write_bytes(save(tensors, {KEY: json.dumps(description)}))


def load_weights(path: Path) -> Trained:
    """Reads a file of `save_weights`.

    Raises:
      ValueError: It is not one, or damaged, or of a later version, or its tensors are not those of
        its architecture; the message names it, and all that is wrong.
      OSError: It cannot be read.
    """
    fields = described(path)
    with _opened(path) as file:
        flat = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    variables = unflatten_dict({tuple(name.split("/")): array for name, array in flat.items()})
    try:
        trained = Trained(variables=variables, **fields)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    shapes = {name: array.shape for name, array in flat.items()}
    wrong = mismatches(shapes, _shapes(trained.model, trained.num_logits))
    if wrong:
        lines = "\n".join(f"  {line}" for line in wrong)
        raise ValueError(f"{path}: its tensors are not those of its architecture:\n{lines}")
    return trained


def mismatches(actual: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """A line for each entry, shape by name, that is missing, unexpected or of another shape."""
    problems = [f"missing: {name} {expected[name]}" for name in expected if name not in actual]
    problems += [f"unexpected: {name} {actual[name]}" for name in actual if name not in expected]
    problems += [
        f"shape: {name} is {actual[name]}, expected {expected[name]}"
        for name in expected
        if name in actual and actual[name] != expected[name]
    ]
    return problems


def described(path: Path) -> dict[str, Any]:
    """The fields of `Trained` that are no variables, each checked.

    Args:
      path: A file of `save_weights`.

    Raises:
      ValueError: It is not one, or damaged, or of a later version; the message names it.
      OSError: It cannot be read.
    """
    with _opened(path) as file:
        text = (file.metadata() or {}).get(KEY)
    if text is None:
        raise ValueError(
            f"{path}: a safetensors file, but not of unet-jax; its weights can perhaps be converted"
        )
    try:
        found = TypeAdapter(dict[str, Any]).validate_python(json.loads(text))
    except ValueError:
        raise ValueError(f"{path}: damaged; its description is no JSON of this program") from None
    if found.get("version") != VERSION:
        raise ValueError(
            f"{path}: of version {found.get('version')}; this program reads version {VERSION}"
        )
    del found["version"]
    kinds: dict[str, Any] = {
        f.name: f.type for f in dataclasses.fields(Trained) if f.name != "variables"
    }
    wrong = [f"{name}: is missing" for name in kinds if name not in found]
    wrong += [f"{name}: there is no such field" for name in found if name not in kinds]
    checked = {}
    for name in kinds.keys() & found.keys():
        try:
            checked[name] = TypeAdapter(kinds[name]).validate_python(found[name])
        except ValidationError as error:
            wrong += [f"{name}: {line.removeprefix('the file: ')}" for line in problems(error)]
    if wrong:
        raise ValueError(f"{path}: " + "; ".join(wrong))
    return checked


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, "numpy") as file:
            yield file
    except SafetensorError as error:
        raise ValueError(f"{path}: not a safetensors file, or damaged ({error})") from None


def _shapes(model: ModelConfig, num_logits: int) -> dict[str, tuple[int, ...]]:
    """Of each of the network's variables, by its name in the file."""
    network = build_model(model, num_logits)
    image = np.zeros((1, model.unit, model.unit, 3), np.float32)
    variables: Any = jax.eval_shape(lambda: network.init(jax.random.key(0), image))
    leaves: dict[str, Any] = flatten_dict(dict(variables), sep="/")  # type: ignore[assignment]
    return {name: leaf.shape for name, leaf in leaves.items()}

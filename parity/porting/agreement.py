"""Whether a trained network is the same in both frameworks."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import torch
from flax.traverse_util import flatten_dict

from parity.convert import ConversionError
from parity.row import relative_error
from parity.twin import loaded_twin
from unet_jax.models import build_model
from unet_jax.probabilities import float_variables
from unet_jax.weights import Trained


def disagreement(trained: Trained) -> tuple[float, tuple[int, int]]:
    """How far the logits of Flax's network and of our twin are apart, relatively, in float64.

    Returns:
      ‖a - b‖ / ‖b‖, and the height and width of the image: both odd.
    """
    model, logits = trained.model, trained.num_logits
    unit = model.unit
    size = (2 * unit + 5, 3 * unit + 5)
    image = np.random.default_rng(0).normal(size=(1, *size, 3))
    wide = float_variables(trained.variables, np.float64)
    with jax.enable_x64(True), jax.default_device(jax.local_devices(backend="cpu")[0]):
        ours = np.asarray(jax.jit(build_model(model, logits).apply)(wide, image))

    twin = loaded_twin(trained, torch.float64)
    with torch.no_grad():
        theirs = twin(torch.from_numpy(image).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    return relative_error(ours, theirs.numpy()), size


def check_same(before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Raises `ConversionError` if the arrays of two trees are not the same, to the byte."""
    old, new = _contents(before), _contents(after)
    different = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    if different:
        raise ConversionError(f"not the same there and back: {', '.join(different)}")


def _contents(tree: Mapping[str, Any]) -> dict[str, tuple[Any, ...]]:
    flat: dict[str, np.ndarray] = flatten_dict(dict(tree), sep="/")  # type: ignore[assignment]
    return {name: (leaf.dtype, leaf.shape, leaf.tobytes()) for name, leaf in flat.items()}

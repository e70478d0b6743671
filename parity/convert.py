"""Weights between PyTorch and Flax: exact, strict, by path and layer kind, in NumPy alone."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from torch import nn

from unet_jax.weights import mismatches

Variables = dict[str, Any]
StateDict = dict[str, np.ndarray]
Path = tuple[str, ...]


class Entry(NamedTuple):
    """Where an entry of a PyTorch layer goes in Flax, and the order of its axes there."""

    collection: str
    name: str
    axes: tuple[int, ...] = ()


def _kernel(*axes: int) -> dict[str, Entry]:
    return {"weight": Entry("params", "kernel", axes), "bias": Entry("params", "bias")}


SCALE = {"weight": Entry("params", "scale"), "bias": Entry("params", "bias")}
STATISTICS = {
    "running_mean": Entry("batch_stats", "mean"),
    "running_var": Entry("batch_stats", "var"),
    "num_batches_tracked": Entry("batch_stats", "num_batches_tracked"),
}

LAYERS: dict[type[nn.Module], dict[str, Entry]] = {
    nn.Linear: _kernel(1, 0),  # OI -> IO
    nn.Conv1d: _kernel(2, 1, 0),  # OIL -> LIO
    nn.Conv2d: _kernel(2, 3, 1, 0),  # OIHW -> HWIO
    nn.Conv3d: _kernel(2, 3, 4, 1, 0),  # OIDHW -> DHWIO
    nn.ConvTranspose1d: _kernel(2, 0, 1),  # IOL -> LIO
    nn.ConvTranspose2d: _kernel(2, 3, 0, 1),  # IOHW -> HWIO
    nn.ConvTranspose3d: _kernel(2, 3, 4, 0, 1),  # IODHW -> DHWIO
    nn.Embedding: {"weight": Entry("params", "embedding")},
    nn.LayerNorm: SCALE,
    nn.RMSNorm: SCALE,
    nn.GroupNorm: SCALE,
    nn.BatchNorm1d: SCALE | STATISTICS,
    nn.BatchNorm2d: SCALE | STATISTICS,
    nn.BatchNorm3d: SCALE | STATISTICS,
}
"""What each kind of layer holds. A kernel's axes depend on the kind, not on their number."""


class ConversionError(ValueError):
    """The two trees do not match; the message lists every entry that does not."""


class Place(NamedTuple):
    """An entry of the PyTorch state, and its place in the Flax variables."""

    torch_name: str
    shape: tuple[int, ...]
    path: Path
    axes: tuple[int, ...]

    @property
    def flax_shape(self) -> tuple[int, ...]:
        return tuple(self.shape[axis] for axis in self.axes) if self.axes else self.shape


def module_path(name: str) -> Path:
    """The Flax path of a PyTorch module: `encoder.0.conv_1` is `encoder_0/conv_1`.

    A module that is a list itself has no name to number; Linen's `Sequential` calls that `layers`.
    """
    parts: list[str] = []
    for part in name.split(".") if name else []:
        if not part.isdigit():
            parts.append(part)
        elif parts:
            parts[-1] += f"_{part}"  # Linen numbers the members of a list so.
        else:
            parts.append(f"layers_{part}")
    return tuple(parts)


def places(model: nn.Module) -> list[Place]:
    """Every entry of the model's state, in order.

    Raises:
      ConversionError: A layer that holds parameters or buffers is of a kind not in `LAYERS`.
    """
    found, unknown = [], []
    for name, module in model.named_modules():
        own = dict(module.named_parameters(recurse=False))
        own |= dict(module.named_buffers(recurse=False))
        if not own:
            continue
        entries = LAYERS.get(type(module))
        if entries is None:
            unknown.append(f"{name}: {type(module).__name__} is not a kind of layer known here")
            continue
        for key, value in own.items():
            entry = entries[key]
            path = (entry.collection, *module_path(name), entry.name)
            found.append(Place(f"{name}.{key}", tuple(value.shape), path, entry.axes))
    if unknown:
        raise ConversionError("\n".join(unknown))
    return found


def to_flax(state: Mapping[str, Any], model: nn.Module) -> Variables:
    """A PyTorch state as Flax variables.

    Args:
      state: Entry by name, as of `state_dict()`; tensors or arrays.
      model: A model of that state's architecture; only names, shapes and kinds of layer are read.

    Returns:
      `{"params": …, "batch_stats": …}` of NumPy arrays with the state's dtypes.

    Raises:
      ConversionError: Entries are missing, unexpected or of another shape.
    """
    return unflatten_dict(to_paths(state, places(model)))


def to_torch(variables: Mapping[str, Any], model: nn.Module) -> StateDict:
    """Flax variables as a PyTorch state: the inverse of `to_flax`.

    Args:
      variables: `{"params": …, "batch_stats": …}`; the second may be absent or empty.
      model: A model of the same architecture.

    Returns:
      NumPy arrays by the names of `model.state_dict()`, in its order.

    Raises:
      ConversionError: Entries are missing, unexpected or of another shape.
    """
    return from_paths(flatten_dict(dict(variables)), places(model))


def to_paths(state: Mapping[str, Any], places: Sequence[Place]) -> dict[Path, np.ndarray]:
    """What `to_flax` gives, by path, for entries that go to these places."""
    arrays = {name: np.asarray(value) for name, value in state.items()}
    expected = {place.torch_name: place for place in places}
    check({n: a.shape for n, a in arrays.items()}, {n: p.shape for n, p in expected.items()})
    flat = {}
    for name, place in expected.items():
        array = arrays[name].transpose(place.axes) if place.axes else arrays[name]
        flat[place.path] = np.array(array, order="C")
    return flat


def from_paths(flat: Mapping[Path, Any], places: Sequence[Place]) -> StateDict:
    """What `to_torch` gives: the inverse of `to_paths`."""
    arrays = {path: np.asarray(leaf) for path, leaf in flat.items()}
    expected = {place.path: place for place in places}
    check(
        {"/".join(path): array.shape for path, array in arrays.items()},
        {"/".join(path): place.flax_shape for path, place in expected.items()},
    )
    state = {}
    for path, place in expected.items():
        array = arrays[path]
        if place.axes:
            array = array.transpose(np.argsort(place.axes))
        state[place.torch_name] = np.array(array, order="C")
    return state


def check(actual: Mapping[str, tuple], expected: Mapping[str, tuple]) -> None:
    """Raises `ConversionError` if entries, shape by name, are not those expected."""
    problems = mismatches(actual, expected)
    if problems:
        raise ConversionError("\n".join(problems))

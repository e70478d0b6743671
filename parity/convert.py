"""Weights between PyTorch and Flax: exact, strict, by path and layer kind, in NumPy alone."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from torch import nn

Variables = dict[str, Any]
StateDict = dict[str, np.ndarray]


class Entry(NamedTuple):
    """Where an entry of a PyTorch layer goes in Flax, and the order of its axes there."""

    collection: str
    name: str
    axes: tuple[int, ...] = ()


LAYERS: dict[type[nn.Module], dict[str, Entry]] = {
    nn.Conv2d: {
        "weight": Entry("params", "kernel", (2, 3, 1, 0)),  # OIHW -> HWIO
        "bias": Entry("params", "bias"),
    },
    nn.ConvTranspose2d: {
        "weight": Entry("params", "kernel", (2, 3, 0, 1)),  # IOHW -> HWIO
        "bias": Entry("params", "bias"),
    },
    nn.GroupNorm: {
        "weight": Entry("params", "scale"),
        "bias": Entry("params", "bias"),
    },
    nn.BatchNorm2d: {
        "weight": Entry("params", "scale"),
        "bias": Entry("params", "bias"),
        "running_mean": Entry("batch_stats", "mean"),
        "running_var": Entry("batch_stats", "var"),
        "num_batches_tracked": Entry("batch_stats", "num_batches_tracked"),
    },
}
"""What each kind of layer holds. A kernel's axes depend on the kind, not on their number."""


class ConversionError(ValueError):
    """The two trees do not match; the message lists every entry that does not."""


class Place(NamedTuple):
    """An entry of the PyTorch state, and its place in the Flax variables."""

    torch_name: str
    shape: tuple[int, ...]
    path: tuple[str, ...]
    axes: tuple[int, ...]

    @property
    def flax_shape(self) -> tuple[int, ...]:
        return tuple(self.shape[axis] for axis in self.axes) if self.axes else self.shape


def module_path(name: str) -> tuple[str, ...]:
    """The Flax path of a PyTorch module: `encoder.0.conv_1` is `encoder_0/conv_1`."""
    parts: list[str] = []
    for part in name.split(".") if name else []:
        if part.isdigit():
            parts[-1] += f"_{part}"  # Linen numbers the members of a list so.
        else:
            parts.append(part)
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
    arrays = {name: np.asarray(value) for name, value in state.items()}
    expected = {place.torch_name: place for place in places(model)}
    check({n: a.shape for n, a in arrays.items()}, {n: p.shape for n, p in expected.items()})
    flat = {}
    for name, place in expected.items():
        array = arrays[name].transpose(place.axes) if place.axes else arrays[name]
        flat[place.path] = np.array(array, order="C")
    return unflatten_dict(flat)


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
    flat = {path: np.asarray(leaf) for path, leaf in flatten_dict(dict(variables)).items()}
    expected = {place.path: place for place in places(model)}
    check(
        {"/".join(path): array.shape for path, array in flat.items()},
        {"/".join(path): place.flax_shape for path, place in expected.items()},
    )
    state = {}
    for path, place in expected.items():
        array = flat[path]
        if place.axes:
            array = array.transpose(np.argsort(place.axes))
        state[place.torch_name] = np.array(array, order="C")
    return state


def check(actual: Mapping[str, tuple], expected: Mapping[str, tuple]) -> None:
    """Raises `ConversionError` if entries, shape by name, are not those expected."""
    problems = mismatches(actual, expected)
    if problems:
        raise ConversionError("\n".join(problems))


def mismatches(actual: Mapping[str, tuple], expected: Mapping[str, tuple]) -> list[str]:
    """A line for each entry, shape by name, that is missing, unexpected or of another shape."""
    problems = [f"missing: {name} {expected[name]}" for name in expected if name not in actual]
    problems += [f"unexpected: {name} {actual[name]}" for name in actual if name not in expected]
    problems += [
        f"shape: {name} is {actual[name]}, expected {expected[name]}"
        for name in expected
        if name in actual and actual[name] != expected[name]
    ]
    return problems

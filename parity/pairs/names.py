"""Which leaf of a JAX tree each entry of a PyTorch module is: proposed by kind of layer, strict."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from torch import Tensor, nn

from parity.convert import LAYERS, ConversionError, Entry, Place, module_path

Modules = Callable[[str], str | None] | Mapping[str, str]
"""From the name of a PyTorch module to its JAX path; None, or no entry: as `module_path` has it."""

Names = Callable[[str], str | None] | Mapping[str, str | tuple[str, tuple[int, ...]] | None]
"""Where single entries go. A mapping has PyTorch's names as keys, and as values a path, a path and
the order of the axes, or None for what stays in PyTorch. A function gets the path that is proposed.
"""


def leaves(tree: Any) -> dict[str, Any]:
    """Every leaf by its path, such as `params/conv/kernel`; "" is that of a tree of one leaf."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def entries(module: nn.Module) -> dict[str, Tensor]:
    """Parameters, then buffers of the module's state; what is shared comes once, named first."""
    kept = module.state_dict(keep_vars=True)
    own = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return {name: value for name, value in own.items() if name in kept}


def path_of(name: str, modules: Modules | None = None) -> str:
    """The JAX path of a PyTorch module."""
    renamed = None
    if modules is not None:
        renamed = modules(name) if callable(modules) else modules.get(name)
    return "/".join(module_path(name)) if renamed is None else renamed


def match(
    module: nn.Module, variables: Any, modules: Modules | None = None, names: Names | None = None
) -> list[Place]:
    """Finds the place of every entry of the module among the leaves of `variables`.

    Args:
      module: Its kinds of layer say which axes go where, as `parity.convert.LAYERS` has them.
      variables: Any pytree; of its leaves only the shape is read.
      modules: Module names that differ.
      names: Single entries that differ.

    Raises:
      ConversionError: Entries are missing, unexpected, of another shape or of an unknown kind of
        layer; the message lists them all.
    """
    own, layers = entries(module), dict(module.named_modules())
    expected = {path: tuple(np.shape(leaf)) for path, leaf in leaves(variables).items()}
    exceptions = {} if names is None or callable(names) else names
    problems = [f"names: {n} is no entry of the module's state" for n in exceptions if n not in own]
    found: dict[str, Place] = {}
    for name, value in own.items():
        layer, _, key = name.rpartition(".")
        entry = LAYERS.get(type(layers[layer]), {}).get(key)
        if name in exceptions:
            target = exceptions[name]
        elif entry is None:
            kind = type(layers[layer]).__name__
            problems.append(f"unknown: {name} of {kind}; say in `names` where it goes")
            continue
        else:
            target = _propose(entry, path_of(layer, modules), names if callable(names) else None)
            if key == "num_batches_tracked" and target not in expected:
                continue  # A counter that few JAX libraries keep.
        if target is None:
            continue
        path, axes = target if isinstance(target, tuple) else (target, entry.axes if entry else ())
        if axes and sorted(axes) != list(range(value.ndim)):
            problems.append(f"axes: {name} has {value.ndim}, not {axes}")
            continue
        place = Place(name, tuple(value.shape), tuple(path.split("/")), tuple(axes))
        if path not in expected:
            problems.append(f"unexpected: {path} {place.flax_shape}, from {name}")
        elif path in found:
            problems.append(f"twice: {path}, from {found[path].torch_name} and from {name}")
        elif place.flax_shape != expected[path]:
            problems.append(
                f"shape: {path} is {expected[path]}; from {name} it would be {place.flax_shape}"
            )
        found[path] = place
    absent = [path for path in expected if path not in found]
    problems += [f"missing: {path} {expected[path]}; nothing goes there" for path in absent]
    if problems:
        raise ConversionError("\n".join(problems))
    return list(found.values())


def _propose(entry: Entry, path: str, rename: Callable[[str], str | None] | None) -> str | None:
    proposed = "/".join(part for part in (entry.collection, path, entry.name) if part)
    return proposed if rename is None else rename(proposed)

"""What a state consists of, entry by entry: to compare two of them."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

LISTED = 20
"""Differing entries that are named one by one."""


def forms(state: Mapping[str, Any]) -> dict[str, str]:
    """Type and shape of each tensor by its path: `model/conv_in.bias` is `float32 [64]`."""
    return {
        path: f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
        for path, tensor in tensors(state)
    }


def tensors(state: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Each tensor in nested mappings, with its path."""
    if isinstance(state, Tensor):
        yield path, state
    elif isinstance(state, Mapping):
        for name, part in state.items():
            yield from tensors(part, f"{path}/{name}" if path else str(name))


def differences(saved: Mapping[str, str], expected: Mapping[str, str]) -> list[str]:
    """A line for each entry that is not of one form on both sides, and how many are left out.

    Args:
      saved: As `forms` gives it.
      expected: Likewise.
    """
    both = {path: (saved.get(path), expected.get(path)) for path in {**expected, **saved}}
    lines = [
        f"{path}: {was or 'nothing'} saved, {wanted or 'nothing'} expected"
        for path, (was, wanted) in both.items()
        if was != wanted
    ]
    more = len(lines) - LISTED
    return lines[:LISTED] + ([f"and {more} more"] if more > 0 else [])

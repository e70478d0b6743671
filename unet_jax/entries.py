"""What a state consists of, entry by entry: to compare two of them, and to notice damage."""

import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

LISTED = 20
"""Differing entries that are named one by one."""


def leaves(tree: Any) -> dict[str, Any]:
    """The leaves by their paths: `params/conv_in/bias`."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree.leaves_with_path(tree)
    }


def forms(tree: Any) -> dict[str, str]:
    """Type and shape of each leaf by its path: `params/conv_in/bias` is `float32 [64]`."""
    return {path: f"{leaf.dtype} {list(leaf.shape)}" for path, leaf in leaves(tree).items()}


def checksums(tree: Any) -> dict[str, int]:
    """CRC-32 of each leaf's bytes, by its path."""
    return {path: _checksum(leaf) for path, leaf in leaves(tree).items()}


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


def _checksum(leaf: jax.Array) -> int:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return zlib.crc32(np.asarray(leaf).tobytes())

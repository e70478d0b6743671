"""All parameters, or their gradients, as two vectors, for arithmetic that is the same for all.

An operation for each of some two hundred parameters takes longer to begin than to compute.
"""

from typing import Any

import jax
import jax.numpy as jnp

KERNELS, OTHERS = "kernels", "others"
Vectors = dict[str, jax.Array]


def vectors(tree: Any) -> Vectors:
    """Kernels, which decay, and the rest, which may not, each one after another.

    Args:
      tree: Parameters, or what belongs to them, of one type.

    Returns:
      [N] each; nothing of a kind that there is none of.
    """
    leaves = jax.tree.leaves(tree)
    return {
        kind: jnp.concatenate([leaves[n].reshape(-1) for n in places])
        for kind, places in _grouped(tree).items()
    }


def tree_of(found: Vectors, like: Any) -> Any:
    """Undoes `vectors`: a tree with the structure and the shapes of `like`."""
    leaves, structure = jax.tree.flatten(like)
    for kind, places in _grouped(like).items():
        begin = 0
        for n in places:
            shape, size = leaves[n].shape, leaves[n].size
            leaves[n] = found[kind][begin : begin + size].reshape(shape)
            begin += size
    return structure.unflatten(leaves)


def kernels(tree: Any) -> Any:
    """A tree like this: False for the scales of norms and for biases, True for the rest."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: path[-1].key not in ("scale", "bias"), tree
    )


def _grouped(tree: Any) -> dict[str, list[int]]:
    """Which leaves are of which kind."""
    found: dict[str, list[int]] = {}
    for n, decays in enumerate(jax.tree.leaves(kernels(tree))):
        found.setdefault(KERNELS if decays else OTHERS, []).append(n)
    return found

"""All parameters, or their gradients, as few arrays, for arithmetic that is the same for all.

An operation for each of some two hundred parameters takes longer to begin than to compute; but
those of large ones take longer than that, and so does copying them.
"""

from typing import Any

import jax
import jax.numpy as jnp

from unet_jax.models.passes import written

KERNELS, OTHERS = "kernels", "others"
LARGE = 2**18
"""Values from which on a parameter stays by itself (docs/speed_cpu.md)."""
Vectors = dict[str, jax.Array]


def vectors(tree: Any) -> Vectors:
    """Kernels, which decay, and the rest, which may not, each one after another.

    Args:
      tree: Parameters, or what belongs to them, of one type.

    Returns:
      [N] each; a large parameter, or the only one of its kind, as it is; nothing of a kind that
      there is none of.
    """
    leaves = jax.tree.leaves(tree)
    return {
        kind: leaves[places[0]]
        if len(places) == 1
        else jnp.concatenate([leaves[n].reshape(-1) for n in places])
        for kind, places in _grouped(tree).items()
    }


def tree_of(found: Vectors, like: Any) -> Any:
    """Undoes `vectors`: a tree with the structure and the shapes of `like`.

    On an NVIDIA GPU a vector is in memory before it is cut: else XLA might compute all of it anew
    for each piece.
    """
    leaves, structure = jax.tree.flatten(like)
    for kind, places in _grouped(like).items():
        if len(places) == 1:
            leaves[places[0]] = found[kind]
            continue
        vector, begin = written(found[kind]), 0
        for n in places:
            shape, size = leaves[n].shape, leaves[n].size
            leaves[n] = vector[begin : begin + size].reshape(shape)
            begin += size
    return structure.unflatten(leaves)


def kernels(tree: Any) -> Any:
    """A tree like this: False for the scales of norms and for biases, True for the rest."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: path[-1].key not in ("scale", "bias"), tree
    )


def are_kernels(kind: str) -> bool:
    """Whether a vector of this name holds such."""
    return kind.startswith(KERNELS)


def _grouped(tree: Any) -> dict[str, list[int]]:
    """Which leaves are of which kind; large ones are of one of their own."""
    found: dict[str, list[int]] = {}
    pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(kernels(tree)), strict=True)
    for n, (leaf, decays) in enumerate(pairs):
        kind = KERNELS if decays else OTHERS
        found.setdefault(kind if leaf.size < LARGE else f"{kind}_{n}", []).append(n)
    return found

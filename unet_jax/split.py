"""Which samples are trained on, which validate, and which are kept for a test."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from unet_jax.config import DataConfig
from unet_jax.datasets import DataError


@dataclass(frozen=True)
class Split:
    """Positions in the prepared set, each in one list at most; with `overfit`, the same in two."""

    train: list[int]
    validation: list[int]
    test: list[int] = field(default_factory=list)


def split_samples(
    names: Sequence[str], groups: Sequence[str], splits: Sequence[str], config: DataConfig
) -> Split:
    """The publisher's split; for what it lacks, groups (or samples) are drawn from its training.

    Args:
      names: Of the samples.
      groups: Each sample's group: pictures of one car, frames of one drive.
      splits: Each sample's part by its publisher: "train", "val", "test", or "" if there is none.
      config: `val_fraction`, `test_fraction`, `split_by` and `split_seed` are used.

    Raises:
      DataError: There are too few groups.
    """
    rest = [n for n, split in enumerate(splits) if split in ("train", "")]
    found = {name: [n for n, s in enumerate(splits) if s == name] for name in ("val", "test")}
    wanted = {
        name: fraction
        for name, fraction in (("val", config.val_fraction), ("test", config.test_fraction))
        if fraction and not found[name]
    }
    if wanted:
        unit = groups if config.split_by == "group" else names
        drawn = draw_groups([unit[n] for n in rest], list(wanted.values()), config.split_seed)
        for name, held_out in zip(wanted, drawn, strict=True):
            found[name] = [n for n in rest if unit[n] in held_out]
        rest = [n for n in rest if not any(unit[n] in held_out for held_out in drawn)]
    return Split(rest, found["val"], found["test"])


def draw_groups(groups: Sequence[str], fractions: Sequence[float], seed: int) -> list[set[str]]:
    """Draws disjoint shares of the groups, and leaves at least one group.

    Args:
      groups: Each sample's group.
      fractions: Of the groups, in each share; each has at least one.
      seed: Decides, together with the names of the groups.

    Raises:
      DataError: There are fewer groups than shares, and one to be left.
    """
    unique = sorted(set(groups))
    if len(unique) <= len(fractions):
        parts = "training and validation" + (", and a test" if len(fractions) > 1 else "")
        raise DataError(f"cannot split {len(unique)} group(s) into {parts}")
    rng, shares, left = np.random.default_rng(seed), [], unique
    for n, fraction in enumerate(fractions):
        most = len(left) - (len(fractions) - n)
        count = min(max(round(fraction * len(unique)), 1), most)
        shares.append({left[i] for i in rng.choice(len(left), size=count, replace=False)})
        left = [group for group in left if group not in shares[-1]]
    return shares

"""Which samples are trained on, which validate, and which are kept for a test."""

from typing import Any

import numpy as np
import pytest

from unet_jax.config import DataConfig
from unet_jax.datasets import DataError
from unet_jax.split import Split, split_samples

COUNT = 60
NAMES = [f"car_{n:02}" for n in range(COUNT)]
GROUPS = [f"car_{n // 3}" for n in np.random.default_rng(0).permutation(COUNT)]


def draw(groups: list[str] = GROUPS, names: list[str] | None = None, **settings: Any) -> Split:
    names = names or NAMES[: len(groups)]
    return split_samples(names, groups, [""] * len(groups), DataConfig(**settings))


@pytest.mark.parametrize("fraction", [0.001, 0.25, 0.5, 0.999])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_split_parts_no_group(fraction: float, seed: int):
    split = draw(val_fraction=fraction, split_seed=seed)
    train, validation = ({GROUPS[i] for i in side} for side in (split.train, split.validation))
    assert not train & validation
    assert sorted(split.train + split.validation) == list(range(COUNT))
    # 20 groups; the extremes round to 0 and 20, and are held to one group on the other side.
    assert len(validation) == {0.001: 1, 0.25: 5, 0.5: 10, 0.999: 19}[fraction]


def test_a_test_is_held_out_too():
    split = draw(val_fraction=0.25, test_fraction=0.1)
    sides = [{GROUPS[i] for i in side} for side in (split.train, split.validation, split.test)]
    assert [len(side) for side in sides] == [13, 5, 2]
    assert len(set.union(*sides)) == 20
    assert sorted(split.train + split.validation + split.test) == list(range(COUNT))
    # Whoever asks for a test later validates on the same samples as before.
    assert split.validation == draw(val_fraction=0.25).validation


def test_single_samples_can_be_held_out():
    """As the YAML recipe's 4,988/50/50 pairs of Carvana."""
    names = [f"{n:04}" for n in range(5088)]
    groups = [name[:3] for name in names]
    fraction = 50 / 5088
    split = draw(groups, names, val_fraction=fraction, test_fraction=fraction, split_by="sample")
    assert [len(side) for side in (split.train, split.validation, split.test)] == [4988, 50, 50]
    assert {groups[i] for i in split.validation} & {groups[i] for i in split.train}


def test_a_split_is_drawn_by_its_seed():
    splits = [draw(val_fraction=0.25, split_seed=seed) for seed in (0, 0, 1, 2, 3)]
    assert splits[0] == splits[1]
    # 15,504 choices of 5 groups among 20: four seeds that differ do so by no accident.
    assert len({tuple(split.validation) for split in splits}) == 4


@pytest.mark.parametrize("by", ["group", "sample"])
def test_a_split_does_not_depend_on_the_order_of_the_samples(by: str):
    order = np.random.default_rng(1).permutation(COUNT)
    first = draw(split_by=by)
    second = draw([GROUPS[i] for i in order], [NAMES[i] for i in order], split_by=by)
    assert sorted(int(order[i]) for i in second.validation) == first.validation


@pytest.mark.parametrize("groups", [[], ["one"] * 9], ids=["none", "one"])
def test_a_split_needs_two_groups(groups: list[str]):
    with pytest.raises(DataError, match=rf"cannot split {len(set(groups))} group"):
        draw(groups)


def test_with_a_test_it_needs_three():
    with pytest.raises(DataError, match=r"cannot split 2 .* training and validation, and a test"):
        draw(["a", "b"], test_fraction=0.1)


def test_two_groups_are_enough():
    split = draw(["a", "b", "b"], val_fraction=0.01)
    assert sorted([len(split.train), len(split.validation)]) == [1, 2]


def test_fractions_leave_something_to_train_on():
    with pytest.raises(ValueError, match=r"0.5 and 0.5 leave nothing"):
        DataConfig(val_fraction=0.5, test_fraction=0.5)


def test_a_publishers_parts_are_kept_and_the_others_drawn_from_its_training_samples():
    splits, groups = ["train", "test", "train", "train"], ["a", "b", "c", "d"]
    split = split_samples(groups, groups, splits, DataConfig(val_fraction=0.3, test_fraction=0.3))
    assert sorted(split.train + split.validation) == [0, 2, 3]
    assert len(split.validation) == 1
    assert split.test == [1]

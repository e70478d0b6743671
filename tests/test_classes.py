"""How many classes there are, with or without the files."""

from pathlib import Path

import pytest

from unet_jax.config import DataConfig
from unet_jax.datasets import BUILDERS, DataError, class_ids


@pytest.mark.parametrize(
    ("dataset", "count"), [("shapes", 6), ("carvana", 2), ("ade20k", 150)], ids=str
)
def test_some_sets_are_known(dataset: str, count: int):
    assert list(class_ids(DataConfig(dataset=dataset))) == list(range(count))  # type: ignore[arg-type]


@pytest.mark.parametrize("dataset", BUILDERS)
def test_two_are_left_whatever_the_set(dataset: str):
    assert list(class_ids(DataConfig(dataset=dataset, binary=True))) == [0, 1]  # type: ignore[arg-type]


@pytest.mark.parametrize("dataset", ["camvid", "folder"])
@pytest.mark.parametrize("place", [None, Path("nowhere")], ids=str)
def test_of_others_only_the_files_tell(dataset: str, place: Path | None):
    config = DataConfig(dataset=dataset, data_dir=place)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=f"^how many classes {dataset} has, only its files tell: "):
        class_ids(config)

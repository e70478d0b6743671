"""What is said when a published set is not where it was looked for."""

import shutil
from pathlib import Path

import pytest
from drawing import open_set, refused, write_kaggle

from unet_jax.datasets import BUILDERS
from unet_jax.datasets.published import PublishedBuilder

PUBLISHED = {n: kind for n, kind in BUILDERS.items() if issubclass(kind, PublishedBuilder)}


@pytest.mark.parametrize("dataset", PUBLISHED)
def test_without_a_data_dir(dataset: str, tmp_path: Path):
    message = refused(dataset, None, tmp_path / "prepared")
    for part in (f"--dataset {dataset} needs --data-dir", "--download", "--dataset shapes"):
        assert part in message


@pytest.mark.parametrize("dataset", PUBLISHED)
def test_a_data_dir_that_does_not_exist(dataset: str, tmp_path: Path):
    place = tmp_path / "nowhere"
    message = refused(dataset, place, tmp_path / "prepared")
    looked = [", ".join(names.needed) for names in PUBLISHED[dataset].LAYOUTS]
    for part in (f"{place}, which does not exist", *looked, "--download", "--dataset shapes"):
        assert part in message


# Zips that cannot be read.


def test_a_broken_zip_that_is_not_needed_does_not_matter(tmp_path: Path):
    data = write_kaggle(tmp_path / "data", ["a", "b"], ["01"])
    for name in ("notes.zip", "train.zip", "test_masks.zip"):  # The last is of another layout.
        (data / name).write_bytes(b"broken")
    assert open_set("carvana", data, tmp_path / "prepared").facts.names == ["a_01", "b_01"]


def test_broken_zips_are_named_where_something_needed_is_not_found(tmp_path: Path):
    data = write_kaggle(tmp_path / "data", ["a", "b"], ["01"])
    shutil.rmtree(data / "train")
    for name in ("train.zip", "other.zip"):
        (data / name).write_bytes(b"broken")
    message = refused("carvana", data, tmp_path / "prepared")
    assert message.startswith("no Carvana data: looked for train, train_masks; or ")
    for name in ("train.zip", "other.zip"):
        assert f"\n  {data / name}: File is not a zip file; download it again\n" in message
    assert "--download" in message


def test_a_broken_test_set_is_refused_unless_it_is_there_unpacked(tmp_path: Path):
    kaggle = write_kaggle(tmp_path / "kaggle", ["a", "b", "c"], ["01"])
    data = tmp_path / "own" / "data"
    for n, split in enumerate(("train", "val", "test")):
        for old, new in (("train", "images"), ("train_masks", "masks")):
            (data / f"{split}_{new}").mkdir(parents=True)
            shutil.copy(sorted((kaggle / old).iterdir())[n], data / f"{split}_{new}")
    (data / "test_masks.zip").write_bytes(b"broken")
    splits = open_set("carvana", data, tmp_path / "prepared").facts.splits
    assert splits == ["train", "val", "test"]
    shutil.rmtree(data / "test_masks")
    message = refused("carvana", data, tmp_path / "prepared")
    assert message.startswith(f"{data / 'test_masks.zip'}: File is not a zip file")
    # Beside the folder that holds the set it is of something else.
    (data / "test_masks.zip").rename(data.parent / "test_masks.zip")
    assert open_set("carvana", data.parent, tmp_path / "prepared").facts.splits == ["train", "val"]

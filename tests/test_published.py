"""What is said when a published set is not where it was looked for."""

from pathlib import Path

import pytest
from drawing import refused

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

"""Several hosts, each serving its rows of every batch: together, what one host would serve."""

from typing import Any

import grain
import numpy as np
import pytest
from drawing import open_set

from unet_jax import pipeline as pipeline_module
from unet_jax.batch import Batch
from unet_jax.config import AugmentConfig, DataConfig
from unet_jax.datasets import PairBuilder
from unet_jax.pipeline import Pipeline

SIZE, SCENES, BATCH = (16, 24), 29, 8
AUGMENT = AugmentConfig(rotation=20, crop=0.5, gamma=0.2)


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> PairBuilder:
    return open_set("shapes", None, tmp_path_factory.mktemp("scenes"), SIZE, scenes=SCENES)


def serve(builder: PairBuilder, place: str = "files", **settings: Any) -> Pipeline:
    data = DataConfig(size=SIZE, val_fraction=0.4, overfit=settings.pop("overfit", 0))
    settings = {"batch_size": BATCH, "seed": 5, "border_sigma": 5.0} | settings
    pipeline = Pipeline(builder, data, AUGMENT, **settings)
    if place != "files":
        held = pipeline.hold()
        if place == "device":
            pipeline.fetch_by(lambda index: tuple(array[index] for array in held.arrays))
    return pipeline


def shares(builder: PairBuilder, hosts: int, place: str = "files") -> list[Pipeline]:
    return [serve(builder, place, host=host, hosts=hosts) for host in range(hosts)]


def content(*parts: Batch) -> dict[str, np.ndarray]:
    """The samples of one batch from every host, the first one's first; and which rows are one."""
    found = {"valid": np.concatenate([part.valid for part in parts])}
    for name in ("image", "mask", "border", "geometry", "colour"):
        arrays = [getattr(part, name) for part in parts]
        if arrays[0] is not None:
            found[name] = np.concatenate(
                [array[part.valid] for array, part in zip(arrays, parts, strict=True)]
            )
    return found


def assert_same(ours: list[dict[str, np.ndarray]], theirs: list[dict[str, np.ndarray]]) -> None:
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys()
        for name, array in one.items():
            np.testing.assert_array_equal(array, other[name], name)


@pytest.mark.parametrize("place", ["files", "host", "device"])
@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_together_hosts_serve_what_one_does(hosts: int, place: str, scenes: PairBuilder):
    whole, parts = serve(scenes), shares(scenes, hosts, place)
    for epoch, start in ((0, 0), (3, 1)):
        served = zip(*(part.train(epoch, start) for part in parts), strict=True)
        expected = [content(batch) for batch in whole.train(epoch, start)]
        assert_same([content(*batches) for batches in served], expected)
        assert all(each.keys() >= {"border", "geometry", "colour"} for each in expected)
    served = zip(*(part.validation() for part in parts), strict=True)
    assert_same([content(*batches) for batches in served], [content(b) for b in whole.validation()])


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_threads_change_no_hosts_share(
    threads: int, scenes: PairBuilder, monkeypatch: pytest.MonkeyPatch
):
    [_, part] = shares(scenes, 2)
    expected = [content(batch) for batch in [*part.train(1), *part.validation()]]
    read = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    monkeypatch.setattr(pipeline_module, "READ", read)
    [_, part] = shares(scenes, 2)
    assert_same([content(batch) for batch in [*part.train(1), *part.validation()]], expected)


def test_every_hosts_batches_have_one_size_though_all_may_be_padding(scenes: PairBuilder):
    parts = shares(scenes, 4)
    left = len(parts[0].split.validation) % BATCH
    assert 0 < left <= 4, "the last batch would reach the last host"
    for part in parts:
        for batch in [*part.train(0), *part.validation()]:
            assert batch.image.shape == (BATCH // 4, *SIZE, 3)
            assert batch.mask.shape == (BATCH // 4, *SIZE)
            assert batch.valid.shape == (BATCH // 4,)
    *_, last = parts[-1].validation()
    assert not last.valid.any()


def test_every_host_has_every_picture(scenes: PairBuilder):
    whole = [row for batch in serve(scenes).pictures(5) for row in batch.image[batch.valid]]
    for part in shares(scenes, 4):
        batches = list(part.pictures(5))
        assert [len(batch.valid) for batch in batches] == [2, 2, 2]
        shown = [row for batch in batches for row in batch.image[batch.valid]]
        np.testing.assert_array_equal(shown, whole)


def test_hosts_read_their_own_samples_alone(scenes: PairBuilder):
    read: list[list[int]] = []
    for part in shares(scenes, 2):
        records, seen = part.records, []

        class Noting:
            def __getitem__(self, index: int, records=records, seen=seen):
                seen.append(index)
                return records[index]

        part.records = Noting()  # type: ignore[assignment]
        list(part.train(0))
        read.append(seen)
    one, other = read
    assert len(one) == len(other) == serve(scenes).steps * BATCH // 2
    assert not set(one) & set(other)


@pytest.mark.parametrize(("batch_size", "overfit", "hosts"), [(8, 0, 3), (8, 3, 2)])
def test_a_batch_that_cannot_be_shared_is_refused(
    batch_size: int, overfit: int, hosts: int, scenes: PairBuilder
):
    count = min(batch_size, overfit or batch_size)
    with pytest.raises(ValueError, match=rf"^batch_size: {count} cannot be .* {hosts} hosts; .*$"):
        serve(scenes, batch_size=batch_size, overfit=overfit, hosts=hosts)

"""What reaches the learner: which samples, in which order, drawn how, whatever the threads."""

import json
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import fields
from pathlib import Path
from typing import Any

import grain
import numpy as np
import pytest
import tensorflow_datasets as tfds
from drawing import identity

from unet_jax import pipeline as pipeline_module
from unet_jax.batch import IGNORED
from unet_jax.config import AugmentConfig, Config, DataConfig
from unet_jax.datasets import DataError, PairBuilder
from unet_jax.datasets.builder import Sample, Source
from unet_jax.draws import ONE_PIXEL, draw
from unet_jax.launch import Launch
from unet_jax.pipeline import Batch, Pipeline, num_logits
from unet_jax.run import Run

HEIGHT, WIDTH, SAMPLES, BATCH = 4, 7, 23, 4
NATIVE = (2 * HEIGHT, 3 * WIDTH)
AUGMENT = {field.name for field in fields(AugmentConfig)}


class Numbered(PairBuilder):
    """Sample n shows n in red and its columns in green; its mask follows from the columns, but
    for a last row that is ignored."""

    VERSION = tfds.core.Version("1.0.0")
    CLASSES = ("background", "ball", "box", "triangle", "star", "ring")

    def fingerprint(self) -> Iterable[str]:
        return ["numbered"]

    def source(self) -> Source:
        palette = tuple((n, 0, 0) for n in range(6))
        return Source(self.CLASSES, palette, SAMPLES, self._samples())

    def _samples(self) -> Iterator[Sample]:
        for n in range(SAMPLES):
            image = np.empty((HEIGHT, WIDTH, 3), np.uint8)
            image[..., 0], image[..., 1], image[..., 2] = n, np.arange(WIDTH), 9
            mask = image[..., 1] % 6
            mask[-1] = IGNORED
            # Four groups, interleaved: three of 6 samples and one of 5.
            yield Sample(f"sample_{n}", f"group_{n % 4}", self.split(n), NATIVE, image, mask)

    def split(self, n: int) -> str:
        return ""


class Published(Numbered):
    """The same, with splits of its own."""

    def fingerprint(self) -> Iterable[str]:
        return ["published"]

    def split(self, n: int) -> str:
        return ("train", "train", "val", "test")[n % 4]


def prepared(kind: type[PairBuilder], folder: Path) -> PairBuilder:
    builder = kind(DataConfig(prepared_dir=folder, size=(HEIGHT, WIDTH)))
    builder.prepare()
    return builder


@pytest.fixture(scope="session")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> PairBuilder:
    return prepared(Numbered, tmp_path_factory.mktemp("numbered"))


def serve(
    builder: PairBuilder, batch_size: int = BATCH, seed: int = 0, **settings: Any
) -> Pipeline:
    augment = {name: settings.pop(name) for name in [*settings] if name in AUGMENT}
    data = DataConfig(size=(HEIGHT, WIDTH), **settings)
    return Pipeline(builder, data, AugmentConfig(**augment), batch_size, seed)


def numbers(batches: Iterator[Batch]) -> list[int]:
    """Which samples, in order, are valid."""
    return [int(n) for batch in batches for n in batch.image[batch.valid][:, 0, 0, 0]]


def flipped(batch: Batch) -> list[bool]:
    """For each image, whether it is to be mirrored; nothing else is drawn."""
    if batch.geometry is None:
        return [False] * len(batch.valid)
    backwards = batch.geometry[:, 0, 0] < 0
    mirror = np.array([[-1, 0, WIDTH - 1], [0, 1, 0]]) * ONE_PIXEL
    expected = np.where(backwards[:, None, None], mirror, identity().geometry)
    np.testing.assert_array_equal(batch.geometry, expected)
    return backwards.tolist()


def equal(first: list[Batch], second: list[Batch]) -> bool:
    def contents(batches: list[Batch]) -> list[list[bytes | None]]:
        return [[None if a is None else np.asarray(a).tobytes() for a in b] for b in batches]

    return contents(first) == contents(second)


def test_the_split_is_recorded(numbered: PairBuilder, tmp_path: Path):
    pipeline = serve(numbered)
    with closing(Run(tmp_path / "run", Config(), Launch(), resume=False)) as run:
        run.split(pipeline)
        recorded = json.loads((tmp_path / "run" / "split.json").read_text())
    for side in ("train", "validation"):
        served = numbers(pipeline.validation()) if side == "validation" else pipeline.split.train
        assert recorded[side] == [f"sample_{n}" for n in served]
    assert sorted(recorded["train"] + recorded["validation"]) == sorted(numbered.facts.names)
    group = dict(zip(numbered.facts.names, numbered.facts.groups, strict=True))
    assert not {group[n] for n in recorded["train"]} & {group[n] for n in recorded["validation"]}


def test_split_seed_and_seed_draw_different_things(numbered: PairBuilder):
    first = serve(numbered, seed=0, split_seed=0)
    other_order = serve(numbered, seed=1, split_seed=0)
    assert other_order.split == first.split
    assert any(serve(numbered, split_seed=n).split != first.split for n in range(1, 5))


@pytest.mark.parametrize("threads", [0, 1, 2, 5])
def test_threads_change_nothing(
    threads: int, numbered: PairBuilder, monkeypatch: pytest.MonkeyPatch
):
    expected = list(serve(numbered).train(epoch=3))
    validation = list(serve(numbered).validation())
    read = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    monkeypatch.setattr(pipeline_module, "READ", read)
    assert equal(list(serve(numbered).train(epoch=3)), expected)
    assert equal(list(serve(numbered).validation()), validation)


def test_an_epoch_can_be_served_again(numbered: PairBuilder):
    pipeline = serve(numbered)
    first = list(pipeline.train(epoch=2))
    list(pipeline.train(epoch=0))
    assert equal(list(pipeline.train(epoch=2)), first)


@pytest.mark.parametrize("changed", ["epoch", "seed"])
def test_order_and_flips_change_with(changed: str, numbered: PairBuilder):
    def epoch(n: int) -> list[Batch]:
        pipeline = serve(numbered, seed=n if changed == "seed" else 0)
        return list(pipeline.train(epoch=n if changed == "epoch" else 0))

    epochs = [epoch(n) for n in range(4)]
    orders = {tuple(numbers(iter(batches))) for batches in epochs}
    assert len(orders) == 4
    # About 15 flips an epoch: that a draw repeats another by chance has odds of 2^-15.
    by_place = {tuple(flip for b in batches for flip in flipped(b)) for batches in epochs}
    assert len(by_place) == 4
    by_sample = [
        {int(b.image[i, 0, 0, 0]): flip for b in batches for i, flip in enumerate(flipped(b))}
        for batches in epochs
    ]
    assert any(
        by_sample[0][n] != other[n] for other in by_sample[1:] for n in by_sample[0].keys() & other
    )


def test_an_epoch_holds_no_sample_twice_and_none_of_the_held_out(numbered: PairBuilder):
    pipeline = serve(numbered)
    assert len(pipeline.split.train) % BATCH, "the last batch would be full anyway"
    for epoch in range(5):
        batches = list(pipeline.train(epoch))
        seen = numbers(iter(batches))
        assert len(batches) == pipeline.steps == len(pipeline.split.train) // BATCH
        assert len(set(seen)) == len(seen) == pipeline.steps * BATCH
        assert set(seen) <= set(pipeline.split.train)


def test_what_an_epoch_leaves_over_comes_in_another(numbered: PairBuilder):
    pipeline = serve(numbered, batch_size=10)
    assert pipeline.steps * 10 < len(pipeline.split.train)
    seen = {n for epoch in range(12) for n in numbers(pipeline.train(epoch))}
    assert seen == set(pipeline.split.train)


def test_training_batches_are_full(numbered: PairBuilder):
    for batch in serve(numbered).train(0):
        assert batch.valid.tolist() == [True] * BATCH
        assert batch.image.shape == (BATCH, HEIGHT, WIDTH, 3)
        assert batch.mask.shape == (BATCH, HEIGHT, WIDTH)
        assert batch.image.dtype == batch.mask.dtype == np.uint8
        assert batch.valid.dtype == np.bool_


# One group of four is held out: 17 or 18 samples are left, in 4 batches of 4.
@pytest.mark.parametrize("start", range(5))
@pytest.mark.parametrize("threads", [1, 4])
def test_an_epoch_goes_on_from_any_batch(
    start: int, threads: int, numbered: PairBuilder, monkeypatch: pytest.MonkeyPatch
):
    read = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=8)
    monkeypatch.setattr(pipeline_module, "READ", read)
    pipeline = serve(numbered)
    whole = list(pipeline.train(epoch=1))
    assert len(whole) == pipeline.steps == 4
    assert equal(list(pipeline.train(epoch=1, start=start)), whole[start:])


def test_an_epoch_goes_on_from_its_end_with_nothing(numbered: PairBuilder):
    pipeline = serve(numbered)
    assert list(pipeline.train(epoch=1, start=pipeline.steps)) == []


@pytest.mark.parametrize("batch_size", [1, 2, 4, 5, 17])
def test_every_validation_sample_comes_once(batch_size: int, numbered: PairBuilder):
    pipeline = serve(numbered, batch_size=batch_size)
    expected = pipeline.split.validation
    batches = list(pipeline.validation())
    assert numbers(iter(batches)) == expected
    for batch in batches:
        assert batch.image.shape == (batch_size, HEIGHT, WIDTH, 3)
        assert batch.mask.shape == (batch_size, HEIGHT, WIDTH)
        assert batch.valid.shape == (batch_size,)
        assert batch.geometry is batch.colour is None
    assert all(batch.valid.all() for batch in batches[:-1])
    left = len(expected) - batch_size * (len(batches) - 1)
    assert batches[-1].valid.tolist() == [True] * left + [False] * (batch_size - left)


@pytest.mark.parametrize(("count", "batch_size"), [(1, 4), (3, 4), (99, 4), (99, 9)])
def test_pictures_are_validation_samples_spread_over_the_set(
    count: int, batch_size: int, numbered: PairBuilder
):
    pipeline = serve(numbered, batch_size=batch_size)
    for batch in pipeline.pictures(count):
        assert batch.image.shape == (batch_size, HEIGHT, WIDTH, 3)
    shown = numbers(pipeline.pictures(count))
    assert shown == numbers(pipeline.pictures(count))
    assert len(shown) == len(set(shown)) == min(count, len(pipeline.split.validation))
    assert shown[0] == pipeline.split.validation[0]
    assert set(shown) <= set(pipeline.split.validation)
    if count > 1:
        assert shown[-1] == pipeline.split.validation[-1]


@pytest.mark.parametrize("batch_size", [2, 4, 100])
def test_overfit_repeats_the_first_samples_as_they_are(batch_size: int, numbered: PairBuilder):
    everything = serve(numbered).split.train
    pipeline = serve(numbered, batch_size=batch_size, overfit=4, horizontal_flip=1.0)
    assert pipeline.batch_size == min(batch_size, 4)
    assert pipeline.steps == len(everything) // pipeline.batch_size
    for epoch in range(3):
        batches = list(pipeline.train(epoch))
        assert len(batches) == pipeline.steps
        shown = numbers(iter(batches))
        for start in range(0, len(shown) - 3, 4):
            assert sorted(shown[start : start + 4]) == everything[:4]
        assert not any(flip for batch in batches for flip in flipped(batch))
    assert numbers(pipeline.validation()) == everything[:4]


def test_overfit_on_more_than_there_is_takes_all(numbered: PairBuilder):
    everything = serve(numbered).split.train
    assert serve(numbered, overfit=1000).split.train == everything


@pytest.mark.parametrize("binary", [False, True], ids=["all classes", "binary"])
@pytest.mark.parametrize("held", [False, True], ids=["from disk", "held"])
def test_binary_merges_the_objects(held: bool, binary: bool, numbered: PairBuilder):
    pipeline = serve(numbered, binary=binary)
    if held:
        pipeline.hold()
    for batch in [*pipeline.train(0), *pipeline.validation(), *pipeline.pictures(2)]:
        label = batch.image[..., 1] % 6
        expected = (label > 0) if binary else label
        expected = np.where(np.arange(HEIGHT)[:, None] == HEIGHT - 1, IGNORED, expected)
        np.testing.assert_array_equal(batch.mask[batch.valid], expected[batch.valid])
        assert batch.mask.dtype == np.uint8
    assert pipeline.classes == (["background", "foreground"] if binary else [*Numbered.CLASSES])
    assert len(pipeline.palette) == len(pipeline.classes)
    assert num_logits(pipeline.classes) == (1 if binary else 6)


@pytest.mark.parametrize(("probability", "low", "high"), [(0, 0, 0), (0.5, 0.3, 0.7), (1, 1, 1)])
def test_flips_are_as_frequent_as_asked(
    probability: float, low: float, high: float, numbered: PairBuilder
):
    pipeline = serve(numbered, horizontal_flip=probability)
    flips = [f for epoch in range(10) for batch in pipeline.train(epoch) for f in flipped(batch)]
    # 150 flips or more at 0.5: 0.3 and 0.7 are five standard deviations away.
    assert len(flips) >= 150
    assert low <= np.mean(flips) <= high


def test_what_is_not_drawn_is_left_out(numbered: PairBuilder):
    for batch in serve(numbered, horizontal_flip=0).train(0):
        assert batch.geometry is None
        assert batch.colour is None
    for batch in serve(numbered, horizontal_flip=0, hue=0.1).train(0):
        assert batch.geometry is None
        assert batch.colour is not None


def test_draws_are_those_of_seed_epoch_and_sample(numbered: PairBuilder):
    augment = AugmentConfig(rotation=20, crop=0.5, gamma=0.2)
    pipeline = Pipeline(numbered, DataConfig(size=(HEIGHT, WIDTH)), augment, BATCH, 7)
    for batch in pipeline.train(epoch=3):
        assert batch.geometry is not None
        assert batch.colour is not None
        for place, index in enumerate(numbers(iter([batch]))):
            drawn = draw(augment, seed=7, epoch=3, index=index, size=(HEIGHT, WIDTH), native=NATIVE)
            np.testing.assert_array_equal(batch.geometry[place], drawn.geometry)
            np.testing.assert_array_equal(batch.colour[place], drawn.colour)


@pytest.mark.parametrize("place", ["host", "device"])
def test_where_the_set_lies_changes_nothing(place: str, numbered: PairBuilder):
    settings = {"rotation": 20, "hue": 0.1, "batch_size": 5}
    on_disk, elsewhere = serve(numbered, **settings), serve(numbered, **settings)
    held = elsewhere.hold()
    if place == "device":
        elsewhere.fetch_by(lambda index: (held.image[index], held.mask[index]))
    assert equal(list(elsewhere.train(epoch=1)), list(on_disk.train(epoch=1)))
    assert equal(list(elsewhere.pictures(3)), list(on_disk.pictures(3)))
    for ours, theirs in zip(elsewhere.validation(), on_disk.validation(), strict=True):
        np.testing.assert_array_equal(ours.valid, theirs.valid)
        np.testing.assert_array_equal(ours.image[ours.valid], theirs.image[theirs.valid])
        np.testing.assert_array_equal(ours.mask[ours.valid], theirs.mask[theirs.valid])


def test_the_publishers_split_is_kept(tmp_path: Path):
    split = serve(prepared(Published, tmp_path), split_seed=3).split
    assert split.train == [n for n in range(SAMPLES) if n % 4 in (0, 1)]
    assert split.validation == [n for n in range(SAMPLES) if n % 4 == 2]


def test_a_zoom_that_cannot_be_told_is_refused_before_training(numbered: PairBuilder):
    with pytest.raises(ValueError, match="scale:"):
        serve(numbered, scale=(0.0001, 1))


def test_other_pixels_under_the_same_names_are_refused(numbered: PairBuilder, tmp_path: Path):
    pipeline = serve(numbered)
    with closing(Run(tmp_path / "run", Config(), Launch(), resume=False)) as run:
        run.split(pipeline)
        run.split(pipeline)
        pipeline.content = "0123456789abcdef"
        with pytest.raises(ValueError, match="was it changed"):
            run.split(pipeline)


class Repainted(Numbered):
    """The same names, other masks."""

    def _samples(self) -> Iterator[Sample]:
        for sample in super()._samples():
            yield sample._replace(mask=sample.mask // 2)


def test_the_content_is_that_of_the_samples_not_of_the_place(numbered: PairBuilder, tmp_path: Path):
    again, other = prepared(Numbered, tmp_path / "a"), prepared(Repainted, tmp_path / "b")
    assert again.facts.content == numbered.facts.content != other.facts.content


def test_a_batch_larger_than_the_training_set_is_refused(numbered: PairBuilder):
    count = len(serve(numbered).split.train)
    assert serve(numbered, batch_size=count).steps == 1
    with pytest.raises(DataError, match=rf"{count + 1} .* {count} training images"):
        serve(numbered, batch_size=count + 1)

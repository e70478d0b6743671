"""Border maps from where samples are read to the loss, in both frameworks."""

from typing import Any

import jax
import numpy as np
import pytest
from drawing import open_set

from parity.twin import start_both
from unet_jax import pipeline as pipeline_module
from unet_jax.batch import Batch
from unet_jax.border import border_map
from unet_jax.config import (
    AugmentConfig,
    Config,
    DataConfig,
    LossConfig,
    ModelConfig,
    TrainConfig,
)
from unet_jax.datasets import PairBuilder
from unet_jax.pipeline import Pipeline

SIZE, STORED, SIGMA = (16, 24), (24, 32), 3.0
OFF = AugmentConfig(horizontal_flip=0)
MIRROR = AugmentConfig(horizontal_flip=1)
FLOAT64 = 1e-12
"""Relative, after one step; measured: at most 2e-15."""


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> PairBuilder:
    return open_set("shapes", None, tmp_path_factory.mktemp("scenes"), SIZE, scenes=12)


def serve(builder: PairBuilder, place: str = "files", **settings: Any) -> Pipeline:
    data = DataConfig(
        size=SIZE,
        binary=settings.pop("binary", False),
        stored_size=builder.size if builder.size != SIZE else None,
    )
    settings = {"augment": OFF, "batch_size": 4, "seed": 0, "border_sigma": SIGMA} | settings
    pipeline = Pipeline(builder, data, **settings)
    if place != "files":
        held = pipeline.hold()
        assert sum(array.nbytes for array in held.arrays) == pipeline.bytes
        if place == "device":
            pipeline.fetch_by(lambda index: tuple(array[index] for array in held.arrays))
    return pipeline


@pytest.mark.parametrize("binary", [False, True], ids=["all classes", "binary"])
@pytest.mark.parametrize("place", ["files", "host", "device"])
def test_every_sample_has_its_masks_map(place: str, binary: bool, scenes: PairBuilder):
    pipeline = serve(scenes, place, binary=binary)
    seen = []
    for batch in [*pipeline.train(0), *pipeline.validation(), *pipeline.pictures(3)]:
        assert batch.border is not None
        assert batch.geometry is None
        for mask, border in zip(batch.mask[batch.valid], batch.border[batch.valid], strict=True):
            np.testing.assert_array_equal(border, border_map(mask, SIGMA))
            seen.append(border)
    assert np.any(seen), "no scene had two objects"


@pytest.mark.parametrize("place", ["files", "host"])
def test_it_is_made_only_when_it_is_needed(
    place: str, scenes: PairBuilder, monkeypatch: pytest.MonkeyPatch
):
    def fail(*args: Any) -> None:
        raise AssertionError("made")

    monkeypatch.setattr(pipeline_module, "border_map", fail)
    pipeline = serve(scenes, place, border_sigma=None)
    for batch in [*pipeline.train(0), *pipeline.validation(), *pipeline.pictures(3)]:
        assert batch.border is None
    assert len(list(serve(scenes).train_masks())) == len(pipeline.split.train)


def test_held_it_is_made_once(scenes: PairBuilder, monkeypatch: pytest.MonkeyPatch):
    made = []
    monkeypatch.setattr(
        pipeline_module, "border_map", lambda *args: made.append(None) or border_map(*args)
    )
    pipeline, watched = serve(scenes), []
    pipeline.hold(lambda read: (watched.append(each) for each in read))
    assert len(watched) == len(pipeline.names) - 1
    for epoch in range(2):
        list(pipeline.train(epoch))
        list(pipeline.validation())
    assert len(made) == len(pipeline.names)


def test_the_pictures_of_a_larger_copy_have_it_at_their_size(
    tmp_path_factory: pytest.TempPathFactory,
):
    folder = tmp_path_factory.mktemp("larger")
    builder = open_set("shapes", None, folder, SIZE, scenes=12, stored_size=STORED)
    for batch in serve(builder).pictures(3):
        assert batch.border is not None
        assert batch.border.shape == batch.mask.shape == (4, *SIZE)
        assert batch.border.any()


@pytest.mark.parametrize(("weight", "border"), [(0.0, None), (10.0, SIGMA)], ids=["off", "on"])
def test_the_loss_says_whether_it_is_needed(weight: float, border: float | None):
    sigma = SIGMA if weight else LossConfig().border_sigma
    assert LossConfig(border_weight=weight, border_sigma=sigma).border == border


def test_both_frameworks_steps_move_and_weigh_it(x64: None, scenes: PairBuilder):
    config = Config(
        data=DataConfig(size=SIZE),
        model=ModelConfig(architecture="plain", channels=(2,), norm="none"),
        loss=LossConfig(border_weight=10.0, border_sigma=SIGMA),
        train=TrainConfig(batch_size=4, epochs=1),
    )
    moved = next(serve(scenes, augment=MIRROR).train(0))
    assert moved.border is not None
    assert moved.border.any()
    # The same samples, mirrored beforehand.
    image, mask, border = (
        np.ascontiguousarray(array[:, :, ::-1]) for array in (moved.image, moved.mask, moved.border)
    )
    before = moved._replace(image=image, mask=mask, border=border, geometry=None)
    without = moved._replace(border=np.zeros_like(border))

    def in_torch(batch: Batch) -> float:
        *_, twin = start_both(config, classes=6, steps_per_epoch=5)
        return float(twin.train_step(batch)["loss"])

    recipe, state, _ = start_both(config, classes=6, steps_per_epoch=5)
    step = jax.jit(recipe.train)
    expected = in_torch(before)
    assert in_torch(moved) == pytest.approx(expected, rel=FLOAT64)
    assert float(step(state, moved)[1]["loss"]) == pytest.approx(expected, rel=FLOAT64)
    # Weights along the borders add to what there is.
    assert float(step(state, without)[1]["loss"]) < 0.99 * expected

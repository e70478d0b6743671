"""Many devices compute what one does: the session has 8 virtual ones."""

from functools import partial
from typing import Any

import jax
import numpy as np
import pytest

from unet_jax.batch import IGNORED, Batch
from unet_jax.config import AugmentConfig, Config, DataConfig, LossConfig, ModelConfig, TrainConfig
from unet_jax.parallel import Parallel, choose, connect
from unet_jax.recipe import build_recipe
from unet_jax.rehearsal import random_batch

SIZE = (16, 16)
SIXTEEN = Config(train=TrainConfig(batch_size=16))
STEPS = 3
TOLERANCE = 1e-12
"""Relative, in float64; measured: 4e-15 over parameters, statistics and optimiser together."""

CONFIGS = {
    "batch norm, Dice of the batch": {
        "loss": LossConfig(dice=1.0, reduction="batch"),
        "train": TrainConfig(batch_size=16, ema_decay=0.9),
    },
    "two micro-batches, Dice of each image": {
        "loss": LossConfig(dice=1.0, lovasz=0.5),
        "train": TrainConfig(batch_size=16, accumulate=2),
    },
    "five classes, augmented, border maps": {
        "data": DataConfig(size=SIZE, stored_size=(24, 30)),
        "augment": AugmentConfig(
            rotation=30.0, scale=(0.7, 1.4), crop=0.5, brightness=0.3, hue=0.1, gamma=0.3
        ),
        "loss": LossConfig(border_weight=10.0, focal=0.5, class_weights=(1.0, 2.0, 0.5, 1.0, 3.0)),
        "train": TrainConfig(batch_size=16),
    },
}


def classes_of(config: Config) -> int:
    return 2 if config.loss.class_weights == "none" else len(config.loss.class_weights)


def make_batch(seed: int, config: Config) -> Batch:
    """Images with unequal numbers of ignored pixels; the last one is padding."""
    rng = np.random.default_rng(seed)
    drawn = random_batch(config, classes_of(config))
    places = rng.permutation(len(drawn.valid))
    image, mask, _, geometry, colour, border, _ = (
        None if part is None else part[places] for part in drawn
    )
    assert image is not None
    assert mask is not None
    mask[rng.random(mask.shape) < rng.random((len(mask), 1, 1))] = IGNORED
    valid = np.arange(len(mask)) < len(mask) - 1
    return Batch(image, mask, valid, geometry, colour, border)


def run(config: Config, parallel: Parallel) -> dict[str, Any]:
    """All that a few steps and an evaluation give, in float64."""
    classes, weights = classes_of(config), config.loss.class_weights
    recipe = build_recipe(
        config,
        num_classes=1 if classes == 2 else classes,
        classes=classes,
        class_weights=None if isinstance(weights, str) else weights,
        steps_per_epoch=STEPS,
        axis_name=parallel.axis_name,
    )
    # Compiling the draws in float64 would take longer than all else.
    options = {"xla_backend_optimization_level": 0}
    state = jax.jit(partial(recipe.init, size=SIZE), compiler_options=options)(jax.random.key(0))
    to_double = {"float32": np.float64}
    state = jax.tree.map(lambda x: x.astype(to_double.get(x.dtype.name, x.dtype)), state)
    state = parallel.replicate(state)
    step, evaluate = parallel.train(recipe.train), parallel.evaluate(recipe.evaluate)
    metrics = []
    for n in range(STEPS):
        state, seen = step(state, parallel.divide(make_batch(n, config)))
        metrics.append(seen)
    counts, predicted = evaluate(state, parallel.divide(make_batch(9, config)))
    found = {"state": state, "metrics": metrics, "counts": counts, "predicted": predicted}
    return jax.tree.map(np.asarray, found)


@pytest.fixture(scope="module", params=CONFIGS.values(), ids=list(CONFIGS))
def config(request: pytest.FixtureRequest) -> Config:
    model = ModelConfig(architecture="plain", channels=(4,), norm="batch")
    plain = {"data": DataConfig(size=SIZE), "augment": AugmentConfig(horizontal_flip=0)}
    return Config(model=model, **(plain | request.param))


@pytest.fixture(scope="module")
def alone(config: Config) -> dict[str, Any]:
    with jax.enable_x64():
        return run(config, choose("jit", config))


@pytest.mark.parametrize("mode", ["pmap", "shard"])
def test_devices_give_what_one_gives(mode: Any, config: Config, alone: dict[str, Any]):
    with jax.enable_x64():
        parallel = choose(mode, config)
        assert parallel.devices == 8
        found = run(config, parallel)
    assert alone["metrics"][-1]["skipped_in_row"] == 0
    np.testing.assert_array_equal(found["predicted"], alone["predicted"])
    ours, theirs = (jax.tree_util.tree_leaves_with_path(tree) for tree in (found, alone))
    for (path, a), (_, b) in zip(ours, theirs, strict=True):
        assert a.shape == b.shape, jax.tree_util.keystr(path)
        scale = np.abs(b, where=np.isfinite(b), out=np.zeros(b.shape)).max()
        name = jax.tree_util.keystr(path)
        np.testing.assert_allclose(a, b, rtol=TOLERANCE, atol=TOLERANCE * scale, err_msg=name)


def test_a_batch_that_does_not_divide_among_the_devices_is_refused():
    with pytest.raises(ValueError, match=r"batch_size: 12 does not divide among 8 devices;"):
        choose("pmap", Config(train=TrainConfig(batch_size=12)))
    with pytest.raises(ValueError, match=r"8 does not divide among 8 devices × 2 micro-batches;"):
        choose("shard", Config(train=TrainConfig(batch_size=8, accumulate=2)))
    few = Config(data=DataConfig(overfit=4), train=TrainConfig(batch_size=16))
    with pytest.raises(ValueError, match=r"^batch_size: 4 with overfit 4 does not divide among 8"):
        choose("auto", few)


@pytest.mark.parametrize("mode", ["jit", "pmap"])
def test_what_reaches_one_host_is_refused_where_there_are_more(mode: Any, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(ValueError, match=f"{mode} reaches one host, and there are 2 processes"):
        choose(mode, SIXTEEN)
    assert choose("shard", SIXTEEN).devices == 8


@pytest.mark.parametrize("kind", [ValueError, RuntimeError])
def test_without_the_others_whereabouts_what_is_missing_is_said(kind: type, monkeypatch):
    def initialize(*_):
        raise kind("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(ValueError, match=r"^--distributed: coordinator_.*; give --coordinator, "):
        connect(None, None, None)


def test_one_device_is_jit_and_several_are_shard():
    assert choose("auto", SIXTEEN).devices == 8
    assert choose("jit", SIXTEEN).devices == 1


@pytest.mark.parametrize("mode", ["jit", "pmap", "shard"])
def test_images_held_on_the_devices_are_taken_as_batches_are_divided(mode: Any):
    parallel = choose(mode, SIXTEEN)
    images = np.random.default_rng(0).integers(0, 256, (20, 2, 2, 3), dtype=np.uint8)
    index = np.random.default_rng(1).permutation(20)[:16].astype(np.int32)
    [taken] = parallel.take(parallel.replicate([images]), index)
    divided = parallel.divide(Batch(images[index], images[index, ..., 0], np.ones(16, bool)))
    np.testing.assert_array_equal(np.asarray(taken), np.asarray(divided.image))
    np.testing.assert_array_equal(np.asarray(taken).reshape(16, 2, 2, 3), images[index])

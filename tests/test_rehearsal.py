"""`--dry-run`: what a step takes, from its compiled form and from a few steps."""

import io
import re
import runpy
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from jax.core import Tracer
from rich.console import Console

import parity.rehearsal
from unet_jax import onednn, rehearsal
from unet_jax.config import (
    AugmentConfig,
    Config,
    DataConfig,
    LossConfig,
    ModelConfig,
    TrainConfig,
)
from unet_jax.datasets import open_dataset
from unet_jax.describe import describe
from unet_jax.models import kernel_products, winograd
from unet_jax.parallel import choose
from unet_jax.pipeline import Pipeline
from unet_jax.rehearsal import random_batch, rehearse, time_steps
from unet_jax.state import TrainState, start_state
from unet_torch_ref.cost import cost

ROOT = Path(__file__).parents[1]
SMALL = (
    *("--architecture", "plain", "--channels", "4", "--norm", "none", "--horizontal-flip", "0"),
    *("--size", "16", "24", "--batch-size", "3"),
)
TINY = Config(
    data=DataConfig(size=(32, 48)),
    augment=AugmentConfig(horizontal_flip=0),
    model=ModelConfig(architecture="plain", channels=(16,), groups=4),
    train=TrainConfig(batch_size=8),
)
JIT = choose("jit", TINY)
REHEARSE = {
    "jax": partial(rehearsal.rehearse_training, parallel=JIT),
    "torch": parity.rehearsal.rehearse_training,
}


@pytest.fixture(autouse=True)
def compiled_quickly():
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


# Compiled.


def matrix_step(state: TrainState, batch: rehearsal.Batch) -> tuple[TrainState, dict]:
    """A step whose cost is known: one product of [500, 200] and [200, 300], used twice."""
    image = jnp.asarray(batch.image).reshape(-1, 200)[:500].astype(jnp.float32)
    product = image @ state.params["kernel"]
    # The sort needs all of it at once.
    loss = jnp.sort(product.ravel())[0]
    params = {"kernel": state.params["kernel"] + loss}
    return state.replace(params=params, step=state.step + 1), {"loss": loss}


def first_state() -> TrainState:
    return start_state({"kernel": jnp.ones((200, 300))}, {}, optimizer=optax.scale_by_adam())


def batch() -> rehearsal.Batch:
    config = Config(data=DataConfig(size=(200, 500)), train=TrainConfig(batch_size=1))
    return random_batch(config, classes=2)


def test_a_step_of_known_cost():
    result = rehearse(
        jax.jit(matrix_step, donate_argnums=0), first_state, batch(), parallel=JIT, seconds=0.0
    )
    product = 2 * 500 * 200 * 300
    # Beside the product: conversions, additions and comparisons, a few for each number.
    assert product <= result.flops < 1.3 * product
    assert result.parameter_bytes == 4 * 200 * 300
    # Adam keeps two moments; and there are a few counts.
    assert 0 < result.state_bytes - 3 * 4 * 200 * 300 < 64
    assert result.activation_bytes >= 4 * 500 * 300
    assert result.free_bytes > 1e6
    assert result.speed is not None
    assert result.speed.steps == 1


def test_what_does_not_fit_is_not_run(monkeypatch: pytest.MonkeyPatch):
    ran = []

    def init() -> TrainState:
        state = first_state()
        if not isinstance(state.step, Tracer):
            ran.append(state)
        return state

    step = jax.jit(matrix_step)
    whole = rehearse(step, init, batch(), parallel=JIT, seconds=0.0)
    needed = whole.state_bytes + whole.activation_bytes
    assert len(ran) == 1
    for free, fits in ((needed, True), (needed - 1, False)):
        monkeypatch.setattr(rehearsal, "free_memory", lambda free=free: free)
        ran.clear()
        result = rehearse(step, init, batch(), parallel=JIT, seconds=0.0)
        assert result.free_bytes == free
        assert (result.speed is not None) == bool(ran) == fits
    assert "not measured: it does not fit" in printed(result)[-3]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Callable[..., rehearsal.Rehearsal]:
    """Rehearses a training, and gives what would be printed."""
    for module in (rehearsal, parity.rehearsal):
        monkeypatch.setattr(module, "rehearsal_table", lambda result, *_, **__: result)
        monkeypatch.setattr(module, "time_steps", lambda step, n, _=0: time_steps(step, n, 0.0))

    def measured(framework: str, config: Config, **options: Any) -> Any:
        return REHEARSE[framework](config, num_classes=5, **options)

    return measured


@pytest.mark.parametrize("framework", ["jax", "torch"])
def test_a_training_step_costs_about_three_forward_passes(framework, measured):
    result = measured(framework, TINY)
    network = describe(TINY, num_classes=5)
    # A gradient costs a product for the input and one for the weights. XLA leaves out what the
    # padding of a convolution multiplies, and counts norms and the update too; PyTorch does not
    # count them, and its first layer needs no gradient for the images.
    assert 2.5 < result.flops / (8 * network.flops) < 4
    assert result.parameter_bytes == 4 * network.size
    # AdamW keeps two moments; and a few counts, in PyTorch one for each parameter.
    assert 0 < result.state_bytes - 3 * result.parameter_bytes < 64 + 4 * len(network.parameters)
    # At the least, the gradients and each layer's output until the backward pass has used it.
    outputs = sum(4 * np.prod(layer.output) for layer in network.layers)
    assert result.activation_bytes > result.parameter_bytes + outputs
    assert result.free_bytes > 1e6
    assert result.speed is not None


@pytest.mark.parametrize(
    ("module", "limit", "way"),
    [(kernel_products, "WHOLE", "_over_bands"), (winograd, "FEWEST_CHANNELS", "_inverse")],
    ids=["in a loop", "fewer"],
)
def test_products_are_counted_by_definition(module, limit: str, way: str, measured, monkeypatch):
    monkeypatch.setattr(onednn, "available", lambda: False)
    whole = measured("jax", TINY).flops
    monkeypatch.setattr(module, limit, 0)
    taken = Mock(wraps=getattr(module, way))
    monkeypatch.setattr(module, way, taken)
    assert measured("jax", TINY).flops == whole
    assert taken.called


@pytest.mark.parametrize("framework", ["jax", "torch"])
def test_blocks_computed_anew_cost_another_forward_pass(framework, measured):
    stored, anew = measured(framework, TINY), measured(framework, TINY, remat=True)
    forward = 8 * describe(TINY, num_classes=5).flops
    # All but the last layer is in blocks; the padding of convolutions is not counted by XLA.
    assert 0.8 * forward < anew.flops - stored.flops < 1.2 * forward
    if framework == "torch":  # The CPU's compiler keeps what it likes.
        assert anew.activation_bytes < stored.activation_bytes


@pytest.mark.parametrize("mode", ["pmap", "shard"])
def test_all_devices_together_do_the_work_of_one(mode, measured):
    alone, divided = (measured("jax", TINY, parallel=choose(each, TINY)) for each in ("jit", mode))
    # Each of the eight devices adds up the gradients, and updates all parameters.
    assert alone.flops <= divided.flops < 1.2 * alone.flops
    assert divided.activation_bytes < alone.activation_bytes / 2
    assert divided.state_bytes == alone.state_bytes


def printed(result: rehearsal.Rehearsal, **train: Any) -> list[str]:
    file = io.StringIO()
    config = Config(train=TrainConfig(batch_size=8, **train))
    table = rehearsal.rehearsal_table(result, config, "a device", remat="accumulate" in train)
    Console(width=120, file=file).print(table)
    return file.getvalue().splitlines()


def test_what_is_measured_is_printed():
    speed = rehearsal.Speed(images_per_second=12.34, steps=20)
    result = rehearsal.Rehearsal(2.5e9, 4_000_000, 12_100_000, 3_000_000, 10**10, speed)
    title, _, *rows, _, _ = printed(result)
    assert title.strip() == "A training step of 8 images, float32: a device"
    assert [[cell.strip() for cell in row.split("│")[1:3]] for row in rows] == [
        ["arithmetic", "2.500 GFLOP"],
        ["parameters", "4.0 MB"],
        ["parameters, optimiser, statistics", "12.1 MB"],
        ["activations and gradients", "3.0 MB"],
        ["free memory", "10,000.0 MB"],
        ["speed", "12.3 images/s, measured over 20 steps"],
    ]
    title = " ".join(" ".join(printed(result, precision="bfloat16", accumulate=4)[:2]).split())
    assert title.startswith(
        "A training step of 8 images in 4 parts, bfloat16, blocks computed anew in the backward "
        "pass: a device"
    )


# Counted, of PyTorch.


def test_what_is_held_at_once_is_counted():
    given = torch.ones(1000)
    view = given.view(10, 100)

    def run() -> None:
        twice = 2 * view  # 4,000 bytes; `given` and views of it were there before.
        more = twice + 1  # And 4,000.
        del twice
        more.t().add_(given.view(100, 10))
        less = more[:5].clone()  # 2,000, while `more` is held.
        del more, less
        _ = torch.ones(1, 500) @ torch.ones(500, 1)  # 4,004 at most.

    assert cost(run) == (1000, 8000)
    assert cost(lambda: None) == (0, 0)


# Timed.


def clock(monkeypatch: pytest.MonkeyPatch, seconds: list[float]) -> Callable[[], None]:
    """Steps that take so long, one after another; the last of them again and again."""
    now = 0.0
    monkeypatch.setattr(rehearsal.time, "monotonic", lambda: now)

    def step() -> None:
        nonlocal now
        now += seconds.pop(0) if len(seconds) > 1 else seconds[0]

    return step


@pytest.mark.parametrize(
    ("seconds", "steps", "speed"),
    [
        pytest.param([2.0], 5, 4.0, id="for-ten-seconds"),
        pytest.param([50.0], 1, 8 / 50, id="one-at-least"),
        pytest.param([0.125], 20, 64.0, id="twenty-at-most"),
        pytest.param([1.0, 9.0, 5.0], 2, 1.6, id="the-mean"),
    ],
)
def test_steps_are_timed(seconds, steps, speed, monkeypatch):
    step = clock(monkeypatch, seconds)
    assert time_steps(step, images=8, seconds=10.0) == (speed, steps)


# On random data.


@pytest.mark.parametrize(
    ("augment", "stored"),
    [
        (AugmentConfig(horizontal_flip=0), None),
        (AugmentConfig(rotation=20), None),
        (AugmentConfig(horizontal_flip=0, brightness=0.5), None),
        (AugmentConfig(hue=0.1), None),
        (AugmentConfig(horizontal_flip=0), (32, 36)),
    ],
    ids=["none", "moved", "coloured", "both", "stored-larger"],
)
def test_a_random_batch_is_like_one_in_training(augment, stored, tmp_path: Path):
    config = Config(
        data=DataConfig(size=(16, 24), stored_size=stored, scenes=8, prepared_dir=tmp_path),
        augment=augment,
        train=TrainConfig(batch_size=3),
    )
    builder = open_dataset(config.data)
    pipeline = Pipeline(builder, config.data, augment, config.train.batch_size, config.train.seed)
    real, made = next(pipeline.train(0, 0)), random_batch(config, classes=6)
    shapes = [[(a.shape, a.dtype) if a is not None else None for a in b] for b in (real, made)]
    assert shapes[0] == shapes[1]
    assert made.mask.max() == 5
    assert made.valid.all()


def test_a_random_batch_has_a_border_where_the_loss_needs_one():
    batch = random_batch(Config(loss=LossConfig(border_weight=10)), classes=2)
    assert batch.border is not None
    assert (batch.border.shape, batch.border.dtype) == (batch.mask.shape, np.uint8)
    assert len(random_batch(Config(), classes=2, hosts=4).valid) == 2


# As a command.


def dry_run(framework: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["train", "--dry-run", *SMALL, "--parallel", "jit"]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROOT / f"scripts/train_{framework}.py"), run_name="__main__")
    assert stop.value.code == 0


@pytest.mark.parametrize("framework", ["jax", "torch"])
def test_a_dry_run_says_what_training_takes_and_writes_nothing(
    framework, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    dry_run(framework, monkeypatch)
    text = capsys.readouterr().out
    assert re.search(r"PlainUNet, [\d,]+ parameters, 0\.\d{3} GFLOP an image, forward", text)
    assert re.search(r"[\d.]+ images/s, measured over \d+ steps?", text)
    for name in ("arithmetic", "parameters, optimiser", "activations and gradients", "free memory"):
        assert name in text
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_names_settings_that_do_not_go_with_the_data(monkeypatch, capsys):
    command = ["train", "--dry-run", *SMALL, "--parallel", "jit", "--pos-weight", "2"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROOT / "scripts/train_jax.py"), run_name="__main__")
    assert stop.value.code == 2
    assert "pos_weight: 2.0 needs two classes, and there are 6" in capsys.readouterr().err

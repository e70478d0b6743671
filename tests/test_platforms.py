"""For which devices what differs between them is traced."""

from functools import partial
from typing import Literal
from unittest.mock import Mock

import jax
import pytest

from unet_jax.config import Config, ModelConfig, TrainConfig
from unet_jax.models.platforms import by_platform, cpu_alone, for_default_device
from unet_jax.parallel import Mode, choose
from unet_jax.recipe import build_recipe
from unet_jax.rehearsal import random_batch

CHOICE = "platform_index"
"""JAX' operation by which a program for several kinds of devices chooses."""


def doubled(x: jax.Array) -> jax.Array:
    return by_platform(x, cpu=lambda x: x + x, default=lambda x: 2 * x)


@pytest.mark.parametrize(("platform", "operation"), [("cpu", "add"), ("cuda", "multiply")])
def test_each_platform_has_its_own(platform: str, operation: str):
    text = jax.jit(doubled).trace(1.0).lower(lowering_platforms=(platform,)).as_text()
    assert f"stablehlo.{operation}" in text


def test_a_cpu_computes_what_most_devices_do_unless_it_is_an_exception():
    def squared(x: jax.Array) -> jax.Array:
        return by_platform(x, cuda=lambda x: x + x, default=lambda x: x * x)

    for platform, operation in (("cpu", "multiply"), ("tpu", "multiply"), ("cuda", "add")):
        text = jax.jit(squared).trace(1.0).lower(lowering_platforms=(platform,)).as_text()
        assert f"stablehlo.{operation}" in text
    with cpu_alone():
        alone = jax.make_jaxpr(squared)(1.0)
    assert [equation.primitive.name for equation in alone.eqns] == ["mul"]


def test_what_other_devices_compute_is_not_traced_for_a_cpu():
    assert CHOICE in str(jax.make_jaxpr(doubled)(1.0))
    with cpu_alone():
        alone = jax.make_jaxpr(doubled)(1.0)
    assert [equation.primitive.name for equation in alone.eqns] == ["add"]


def test_a_function_is_traced_for_each_of_them():
    function = jax.jit(doubled)
    for _ in range(2):
        assert CHOICE in str(function.trace(1.0).jaxpr)
        with cpu_alone():
            assert CHOICE not in str(function.trace(1.0).jaxpr)


def test_it_keeps_its_name_in_profiles():
    def train_step(x: float, *, more: float) -> float:
        return x + more

    function = jax.jit(for_default_device(partial(train_step, more=1.0)))
    assert "@jit_train_step" in function.lower(1.0).as_text()


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_elsewhere_both_are_traced(platform: str, monkeypatch: pytest.MonkeyPatch):
    """Also where the default backend is a CPU's, and the default device is not."""
    devices = {Mock(platform=platform)}
    monkeypatch.setattr(jax, "device_put", lambda value: Mock(devices=lambda: devices))
    assert for_default_device(doubled) is doubled


@pytest.mark.parametrize("mode", ["jit", "pmap", "shard"])
@pytest.mark.parametrize("architecture", ["residual", "plain"])
def test_steps_on_a_cpu_are_traced_for_it_alone(
    mode: Mode, architecture: Literal["residual", "plain"]
):
    """Else they take an eighth longer to start."""
    model = ModelConfig(architecture=architecture, channels=(8, 16), groups=4)
    config = Config(model=model, train=TrainConfig(batch_size=8))
    parallel = choose(mode, config)
    recipe = build_recipe(
        config,
        num_classes=1,
        classes=2,
        class_weights=None,
        steps_per_epoch=1,
        axis_name=parallel.axis_name,
    )
    start = partial(recipe.init, jax.random.key(0), config.data.size)
    assert CHOICE not in str(jax.make_jaxpr(start)())
    state = jax.eval_shape(start)
    batch = parallel.divide(random_batch(config, classes=2))
    for step in (parallel.train(recipe.train), parallel.evaluate(recipe.evaluate)):
        assert CHOICE not in str(jax.make_jaxpr(step)(state, batch))

"""One step in both frameworks: micro-batches, averages, precision, and steps that are skipped."""

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from parity.components.steps import (
    CONFIGS,
    FLOAT64,
    GROUP_NORM,
    SIZE,
    compare_loss_scale,
    compare_steps,
    make_batch,
    make_config,
)
from parity.row import first_divergence, relative_error
from parity.twin import flax_variables, start_both
from unet_jax import onednn
from unet_jax.batch import Batch
from unet_jax.config import LossConfig, OptimConfig
from unet_jax.losses import Loss, Sums
from unet_jax.recipe import build_recipe


def spoiled(batch: Batch) -> Batch:
    """A batch whose loss is not a number."""
    return batch._replace(colour=np.full((len(batch.valid), 5), np.nan, np.float32))


def plain(batch: Batch) -> Batch:
    """A batch whose colours stay, with the fields of a spoiled one: it compiles once for both."""
    same = np.array([1, 1, 1, 0, 1], np.float32)
    return batch._replace(colour=np.tile(same, (len(batch.valid), 1)))


def leaves(tree: Any) -> Iterator[tuple[str, np.ndarray]]:
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        yield jax.tree_util.keystr(path), np.asarray(leaf)


def same(a: Any, b: Any) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True))


def assert_close(ours: Any, theirs: Any, limit: float) -> None:
    for (name, a), (_, b) in zip(leaves(ours), leaves(theirs), strict=True):
        assert relative_error(a, b) <= limit, name


@pytest.mark.parametrize("name", CONFIGS)
def test_steps_agree_in_float64(x64: None, name: str):
    assert first_divergence(compare_steps(name)) is None


@pytest.mark.parametrize("name", CONFIGS)
def test_evaluation_after_steps_agrees_in_float64(x64: None, name: str):
    recipe, state, twin = start_both(CONFIGS[name], classes=2, steps_per_epoch=5)
    state, _ = jax.jit(recipe.train)(state, make_batch(0))
    twin.train_step(make_batch(0))
    ours, predicted = jax.jit(recipe.evaluate)(state, make_batch(9))
    theirs, ids = twin.eval_step(make_batch(9))
    np.testing.assert_array_equal(predicted, ids)
    np.testing.assert_array_equal(ours["confusion"], theirs["confusion"])
    np.testing.assert_array_equal(ours["boundary"], theirs["boundary"])
    for entry, value in ours["sums"].items():
        assert relative_error(value, theirs["sums"][entry]) <= FLOAT64, entry


def test_choices_between_old_and_new_read_one_array_on_a_gpu():
    """So that XLA has one operation for all arrays of a shape (docs/speed_gpu.md)."""
    recipe, state, _ = start_both(make_config(ema_decay=0.9), classes=2, steps_per_epoch=5)
    traced = jax.jit(recipe.train).trace(state, make_batch(0))
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    # Of both flags in memory.
    assert text.count(": tensor<2xi1>\n      stablehlo.return") == 1
    read = set(
        re.findall(r"(%\d+) = stablehlo.reshape %\d+ : \(tensor<1xi1>\) -> tensor<i1>", text)
    )
    chosen = re.findall(r"call @_where\w*\((%\d+), %[\w#]+, %arg\d+\)", text)
    kept = state.params, state.batch_stats, state.opt_state, state.ema
    assert len(chosen) == len(jax.tree.leaves(kept))
    assert len(read) == 2
    assert set(chosen) == read


class Endless(Loss):
    """Infinite, with a gradient that is not."""

    def total(self, sums: Sums) -> jax.Array:
        return super().total(sums) + jnp.inf


def test_a_step_of_infinite_loss_is_skipped_whatever_its_gradients_are():
    recipe, state, _ = start_both(make_config(), classes=2, steps_per_epoch=5)
    after, metrics = jax.jit(partial(recipe.train, loss=Endless()))(state, make_batch(0))
    assert np.isinf(metrics["loss"])
    assert np.isfinite(metrics["grad_norm"])
    assert metrics["skipped_in_row"] == 1
    kept = "params", "batch_stats", "opt_state"
    assert all(same(getattr(after, name), getattr(state, name)) for name in kept)


def test_micro_batches_give_the_gradient_of_the_whole(x64: None):
    """With a norm that does not mix images, and although they hold unequal numbers of pixels."""
    loss = LossConfig(dice=1.0, lovasz=0.5)
    whole, parts = (make_config(GROUP_NORM, loss, accumulate=n) for n in (1, 4))
    states = []
    for config in (whole, parts):
        recipe, state, _ = start_both(config, classes=2, steps_per_epoch=5)
        state, metrics = jax.jit(recipe.train)(state, make_batch(0))
        states.append((state.params, metrics["loss"], metrics["grad_norm"]))
    assert_close(states[0], states[1], FLOAT64)


def test_what_is_not_finite_changes_nothing_but_the_count(x64: None):
    recipe, state, twin = start_both(make_config(ema_decay=0.9), classes=2, steps_per_epoch=9)
    step = jax.jit(recipe.train)
    seen, theirs = [], []
    for n, bad in enumerate((False, True, True, False)):
        batch = (spoiled if bad else plain)(make_batch(n))
        before = state
        state, metrics = step(state, batch)
        seen.append(int(metrics["skipped_in_row"]))
        theirs.append(twin.train_step(batch)["skipped_in_row"])
        if bad:
            assert np.isnan(metrics["loss"])
            kept = ("params", "batch_stats", "opt_state", "ema")
            for name in kept:
                assert same(getattr(before, name), getattr(state, name)), name
    assert seen == theirs == [0, 1, 2, 0]
    assert (int(state.step), int(state.skipped)) == (4, 2) == (twin.step, twin.skipped)
    # The schedule went on in both, or the last update would differ.
    assert_close(state.params, flax_variables(twin.model)["params"], FLOAT64)


def test_loss_scale_is_that_of_grad_scaler():
    """Over overflows in a row, a lone one, and enough finite steps to grow twice."""
    assert first_divergence(compare_loss_scale()) is None


def test_float16_skips_steps_that_overflow_as_pytorch_does():
    """The loss is so heavy that gradients overflow until the scale has been halved often enough."""
    config = make_config(GROUP_NORM, LossConfig(cross_entropy=2.0**12), precision="float16")
    config = replace(config, optim=OptimConfig(learning_rate=1e-4))
    recipe, state, twin = start_both(config, classes=2, steps_per_epoch=20, dtype=torch.float32)
    step = jax.jit(recipe.train)
    ours, theirs = [], []
    for _ in range(20):
        before = state.params
        state, metrics = step(state, make_batch(0))
        reference = twin.train_step(make_batch(0))
        ours.append((float(metrics["scale"]), int(metrics["skipped_in_row"])))
        theirs.append((reference["scale"], reference["skipped_in_row"]))
        assert same(before, state.params) == (ours[-1][1] > 0)
    assert ours == theirs
    assert 0 < int(state.skipped) < 20


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_convolutions_alone_are_in_half_precision(precision: str):
    recipe = build_recipe(
        make_config(precision=precision),
        num_classes=1,
        classes=2,
        class_weights=None,
        steps_per_epoch=5,
    )
    state = recipe.init(jax.random.key(0), SIZE)
    jaxpr = jax.make_jaxpr(recipe.train)(state, make_batch(0))
    types = {
        str(equation.outvars[0].aval.dtype)
        for equation in every_equation(jaxpr.jaxpr)
        if equation.primitive.name == "conv_general_dilated"
    }
    assert types == {precision}
    after, metrics = jax.eval_shape(recipe.train, state, make_batch(0))
    assert metrics["loss"].dtype == jnp.float32
    floats = (leaf.dtype for leaf in jax.tree.leaves(after) if leaf.dtype.kind not in "iu")
    assert set(floats) == {jnp.dtype("float32")}
    sums, _ = jax.eval_shape(recipe.evaluate, state, make_batch(0))
    assert sums["sums"]["cross_entropy"].dtype == jnp.float32


def every_equation(jaxpr: Any) -> Iterator[Any]:
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from every_equation(inner)


def test_fresh_weights_need_no_library(monkeypatch):
    def fail(*_: object) -> None:
        raise AssertionError("oneDNN is got ready for convolutions that nobody uses")

    monkeypatch.setattr(onednn, "available", fail)
    recipe = build_recipe(
        make_config(), num_classes=1, classes=2, class_weights=None, steps_per_epoch=5
    )
    with pytest.raises(AssertionError, match="oneDNN"):
        jax.eval_shape(recipe.model.init, jax.random.key(0), jnp.zeros((1, *SIZE, 3)))
    jax.eval_shape(recipe.first(0, SIZE))

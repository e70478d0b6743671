"""First weights' random numbers, which are JAX' own, drawn by other code."""

import contextlib
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from unet_jax.config import load
from unet_jax.recipe import build_recipe
from unet_jax.threefry import key

FOLDED = (0, 5, 2**32 - 1)


@pytest.mark.parametrize("seed", [0, -1, 2**31 - 1])
@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (3, 3, 4, 8)])
@pytest.mark.parametrize("bits", [8, 32, 64])
def test_bits_are_those_of_jax(seed: int, shape: tuple[int, ...], bits: int):
    with jax.enable_x64(True) if bits == 64 else contextlib.nullcontext():
        for data in FOLDED:
            theirs, ours = (
                jax.random.bits(jax.random.fold_in(made, data), shape, f"uint{bits}")
                for made in (jax.random.key(seed), key(seed))
            )
            np.testing.assert_array_equal(ours, theirs)


def test_keys_are_split_and_mapped_as_those_of_jax():
    @jax.vmap
    def drawn(key: jax.Array) -> jax.Array:
        return jax.random.bits(jax.random.fold_in(key, 1), (5,))

    ours, theirs = (drawn(jax.random.split(made(3), 4)) for made in (key, jax.random.key))
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("option", "value"), [("jax_default_prng_impl", "rbg"), ("jax_threefry_partitionable", False)]
)
def test_other_numbers_that_jax_is_told_to_draw_are_drawn(option: str, value: Any):
    before = jax.config.values[option]
    jax.config.update(option, value)
    try:
        assert jax.random.key_impl(key(3)) == jax.random.key_impl(jax.random.key(3))
    finally:
        jax.config.update(option, before)


def test_first_weights_are_those_of_jax_and_drawn_without_a_loop():
    config = load("shapes")
    config = replace(config, model=replace(config.model, channels=(8, 16)))
    recipe = build_recipe(config, num_classes=6, classes=6, class_weights=None, steps_per_epoch=1)
    options = {"xla_backend_optimization_level": 0}
    usual = partial(recipe.init, jax.random.key(7), (16, 16))
    rolled = jax.jit(usual, compiler_options=options)
    first: Any = recipe.first(7, (16, 16))
    weights: list[Any] = [flatten_dict(made().params) for made in (first, rolled)]
    ours, theirs = weights
    assert ours.keys() == theirs.keys()
    for path, drawn in theirs.items():
        # Of 2 b u - b, below b, the product is rounded, by at most b 2^-23, or is not, and then
        # the sum, by half of that. The kernel's largest draw stands for b, which it falls short of.
        bound = np.abs(theirs.get((*path[:-1], "kernel"), 0.0)).max()
        np.testing.assert_allclose(ours[path], drawn, rtol=0, atol=2**-22 * bound)
    assert "while" in rolled.lower().as_text()
    assert "while" not in first.lower().as_text()

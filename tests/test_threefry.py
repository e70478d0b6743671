"""First weights' random numbers, which are JAX' own, drawn by other code."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unet_jax.config import load
from unet_jax.recipe import build_recipe
from unet_jax.threefry import key


@pytest.mark.parametrize("seed", [0, 7, 2**31 - 1])
@pytest.mark.parametrize("shape", [(), (5,), (3, 3, 4, 8)])
@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.uint16, jnp.uint32])
def test_bits_are_those_of_jax(seed: int, shape: tuple[int, ...], dtype: type):
    for data in (0, 5, 2**32 - 1):
        theirs, ours = (
            jax.random.bits(jax.random.fold_in(made, data), shape, dtype)
            for made in (jax.random.key(seed), key(seed))
        )
        np.testing.assert_array_equal(ours, theirs)


def test_a_key_can_be_split_as_jax_splits_it():
    ours, theirs = (jax.random.key_data(jax.random.split(k(3), 4)) for k in (key, jax.random.key))
    np.testing.assert_array_equal(ours, theirs)


def test_first_weights_are_those_of_jax_and_drawn_without_a_loop():
    config = load("shapes")
    config = replace(config, model=replace(config.model, channels=(8, 16)))
    recipe = build_recipe(config, num_classes=6, classes=6, class_weights=None, steps_per_epoch=1)
    options = {"xla_backend_optimization_level": 0}
    given = jax.random.key(7), jnp.zeros((1, 16, 16, 3))
    theirs = jax.jit(recipe.model.init, compiler_options=options)(*given)["params"]
    first: Any = recipe.first(7, (16, 16))
    jax.tree.map(check_uniform_alike, first().params, theirs)
    assert "while" not in first.lower().as_text()


def check_uniform_alike(ours: jax.Array, theirs: jax.Array):
    # Of 2 b u - b, below b, the product is rounded, by at most b 2^-23, or is not, and then the
    # sum, by half of that. The largest draw stands for b, which it falls short of.
    bound = float(jnp.abs(theirs).max())
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2**-22 * bound)

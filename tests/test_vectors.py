"""Parameters as few arrays, and back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unet_jax import vectors as module
from unet_jax.optim import decaying
from unet_jax.vectors import tree_of, vectors

TREE = {
    "a": {"kernel": jnp.arange(6.0).reshape(1, 2, 3), "bias": jnp.array([6.0, 7.0])},
    "b": {"scale": jnp.array([8.0]), "kernel": jnp.array([[9.0]])},
}


def test_kernels_are_one_vector_and_the_rest_another():
    found = vectors(TREE)
    assert found.keys() == {"kernels", "others"}
    np.testing.assert_array_equal(found["kernels"], [0, 1, 2, 3, 4, 5, 9])
    np.testing.assert_array_equal(found["others"], [6, 7, 8])


def test_large_norms_and_biases_do_not_decay(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "LARGE", 1)
    assert decaying(vectors(TREE)) == {
        "others_0": False,
        "kernels_1": True,
        "kernels_2": True,
        "others_3": False,
    }


def test_the_tree_comes_back():
    other = jax.tree.map(lambda x: x + 10, TREE)
    back = tree_of(vectors(other), TREE)
    assert jax.tree.structure(back) == jax.tree.structure(TREE)
    jax.tree.map(np.testing.assert_array_equal, back, other)


@pytest.mark.parametrize(("platform", "barriers"), [("cpu", 0), ("cuda", 2), ("tpu", 0)])
def test_what_is_cut_is_written_on_a_gpu_alone(platform: str, barriers: int):
    traced = jax.jit(tree_of).trace(vectors(TREE), TREE)
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert text.count("stablehlo.optimization_barrier") == barriers  # Of kernels and the rest.


def test_of_a_kind_that_is_missing_there_is_no_vector():
    tree = {"kernel": jnp.ones((2, 2))}
    assert vectors(tree).keys() == {"kernels"}
    np.testing.assert_array_equal(tree_of(vectors(tree), tree)["kernel"], tree["kernel"])


def test_large_parameters_stay_as_they_are(monkeypatch: pytest.MonkeyPatch):
    """Leaves are a's bias and kernel, then b's kernel and scale: the second is the largest."""
    monkeypatch.setattr(module, "LARGE", TREE["a"]["kernel"].size)
    found = vectors(TREE)
    assert found.keys() == {"kernels_1", "kernels", "others"}
    assert found["kernels_1"] is TREE["a"]["kernel"]
    assert decaying(found) == {"kernels_1": True, "kernels": True, "others": False}
    back = tree_of(jax.tree.map(lambda x: x + 10, found), TREE)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x + 10, y), TREE, back)

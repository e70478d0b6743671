"""Sums over pixels, and what is written to memory for them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unet_jax.models import ResidualUNet, passes
from unet_jax.models.passes import pixel_sums, written
from unet_jax.models.residual import encoder_stages
from unet_jax.models.standardise import Alike, standardise

PLATFORMS = pytest.mark.parametrize(
    ("platform", "barriers"), [("cpu", 0), ("cuda", 2), ("tpu", 2)], ids=["cpu", "cuda", "tpu"]
)


def lowered(function, *args, platform: str) -> str:
    return jax.jit(function).trace(*args).lower(lowering_platforms=(platform,)).as_text()


@PLATFORMS
def test_sums_are_kept_apart_but_on_a_cpu(platform: str, barriers: int):
    text = lowered(pixel_sums, jnp.ones((2, 3, 4, 5)), platform=platform)
    assert text.count("stablehlo.optimization_barrier") == barriers
    assert text.count("stablehlo.reduce(") == max(barriers, 1)


@PLATFORMS
def test_several_sums_are_one_operation_but_on_a_cpu(platform: str, barriers: int):
    x = jnp.ones((2, 3, 4, 5))
    text = lowered(lambda x: pixel_sums(x, x * x), x, platform=platform)
    assert text.count("stablehlo.reduce(") == 2  # On a CPU one each; else of pieces, and of those.
    assert text.count(", (%") == barriers


@PLATFORMS
def test_values_are_written_but_on_a_cpu(platform: str, barriers: int):
    text = lowered(written, jnp.ones(3), platform=platform)
    assert ("stablehlo.optimization_barrier" in text) is (barriers > 0)


@PLATFORMS
def test_the_decoders_tensors_are_written_but_on_a_cpu(platform: str, barriers: int):
    model = ResidualUNet(channels=(2, 4), norm="none")
    image = jnp.ones((1, 8, 8, 3))
    text = lowered(model.init_with_output, jax.random.key(0), image, platform=platform)
    blocks = len(encoder_stages((2, 4), 1)) + 1
    assert text.count("stablehlo.optimization_barrier") == (blocks if barriers else 0)


@PLATFORMS
def test_a_norms_sums_are_kept_apart_but_on_a_cpu(platform: str, barriers: int):
    def gradient(x):
        return jax.grad(lambda x: standardise(x, x[0, 0, 0], x[0, 0, 0], Alike(), 1e-5)[0].sum())(x)

    text = lowered(gradient, jnp.ones((2, 8, 8, 3)), platform=platform)
    # Of a sixteenth, of all, and of the gradient, for which the input is set apart.
    assert text.count("stablehlo.optimization_barrier") == 3 * barriers + (barriers > 0)


@pytest.mark.parametrize("code", [passes._at_once, passes._by_pieces])
@pytest.mark.parametrize("piece", [1, 40, 2**15], ids=["a row", "some rows", "all"])
@pytest.mark.parametrize("height", [6, 7])
def test_sums_are_of_each_image_and_channel(height: int, piece: int, code, monkeypatch):
    monkeypatch.setattr(passes, "_at_once", code)  # Which a CPU runs.
    monkeypatch.setattr(passes, "PIECE", piece)
    x = np.random.default_rng(0).normal(size=(2, height, 5, 3)).astype(np.float32)
    one, two = pixel_sums(jnp.asarray(x), jnp.asarray(2 * x))
    # Of at most 35 numbers, in another order.
    np.testing.assert_allclose(one, x.astype(np.float64).sum((1, 2)), atol=1e-5)
    np.testing.assert_allclose(two, 2 * x.astype(np.float64).sum((1, 2)), atol=2e-5)


@pytest.mark.parametrize(
    ("shape", "pieces"),
    [
        ((1, 256, 256, 64), 128),  # Two rows of 2¹⁴ values each.
        ((1, 320, 480, 64), 320),
        ((1, 16, 16, 1024), 8),
        ((1, 7, 16, 1024), 7),  # Two would not divide it.
        ((1, 9, 2**15, 3), 9),
    ],
    ids=str,
)
def test_a_piece_is_of_whole_rows_and_no_larger_than_a_row_must_be(shape, pieces: int):
    assert passes._cut(jnp.zeros(shape, jnp.int8)).shape[1] == pieces


def test_what_is_written_can_be_differentiated():
    gradient = jax.grad(lambda x: jnp.sum(written(x) ** 2))(jnp.arange(3.0))
    np.testing.assert_array_equal(gradient, [0, 2, 4])

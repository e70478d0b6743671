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
    ("platform", "barriers"), [("cpu", 0), ("cuda", 2), ("tpu", 0)], ids=["cpu", "cuda", "tpu"]
)


def lowered(function, *args, platform: str) -> str:
    return jax.jit(function).trace(*args).lower(lowering_platforms=(platform,)).as_text()


@PLATFORMS
def test_sums_are_kept_apart_on_a_gpu_alone(platform: str, barriers: int):
    text = lowered(pixel_sums, jnp.ones((2, 3, 4, 5)), platform=platform)
    assert text.count("stablehlo.optimization_barrier") == barriers
    assert text.count("stablehlo.reduce(") == max(barriers, 1)


@PLATFORMS
def test_two_sums_are_one_of_complex_numbers_on_a_gpu_alone(platform: str, barriers: int):
    x = jnp.ones((2, 3, 4, 5))
    text = lowered(lambda x: pixel_sums(x, x * x), x, platform=platform)
    assert text.count("stablehlo.reduce(") == 2  # On a GPU of pieces, and of those; else one each.
    assert text.count("stablehlo.complex") == (barriers > 0)


@PLATFORMS
def test_values_are_written_on_a_gpu_alone(platform: str, barriers: int):
    text = lowered(written, jnp.ones(3), platform=platform)
    assert text.count("stablehlo.optimization_barrier") == (barriers > 0)


@PLATFORMS
def test_the_decoders_tensors_are_written_on_a_gpu_alone(platform: str, barriers: int):
    model = ResidualUNet(channels=(2, 4), norm="none")
    image = jnp.ones((1, 8, 8, 3))
    text = lowered(model.init_with_output, jax.random.key(0), image, platform=platform)
    blocks = len(encoder_stages((2, 4), 1)) + 1
    assert text.count("stablehlo.optimization_barrier") == (blocks if barriers else 0)


def norms_gradient(x: jax.Array) -> jax.Array:
    return jax.grad(lambda x: standardise(x, x[0, 0, 0], x[0, 0, 0], Alike(), 1e-5)[0].sum())(x)


def test_a_norms_gradient_is_summed_in_pieces_of_half_the_size(monkeypatch):
    monkeypatch.setattr(passes, "PIECE", 32)
    monkeypatch.setattr(passes, "SUMS", 1)
    text = lowered(norms_gradient, jnp.ones((2, 8, 8, 3)), platform="cuda")
    assert "tensor<2x2x32x3xcomplex<f32>>" in text  # Forward.
    assert "tensor<2x4x16x3xcomplex<f32>>" in text  # Backward, of x and its gradient.


@PLATFORMS
def test_a_norms_sums_are_kept_apart_on_a_gpu_alone(platform: str, barriers: int):
    text = lowered(norms_gradient, jnp.ones((2, 8, 8, 3)), platform=platform)
    # Of a sixteenth, of all, and of the gradient.
    assert text.count("stablehlo.optimization_barrier") == 3 * barriers


@pytest.mark.parametrize("code", [passes._at_once, passes._by_pieces])
@pytest.mark.parametrize("piece", [1, 20, 2**10], ids=["a row", "some rows", "all"])
@pytest.mark.parametrize("height", [6, 7])
def test_sums_are_of_each_image_and_channel(height: int, piece: int, code, monkeypatch):
    monkeypatch.setattr(passes, "_at_once", code)  # Which a CPU runs.
    monkeypatch.setattr(passes, "PIECE", piece)
    monkeypatch.setattr(passes, "SUMS", 1)
    x = np.random.default_rng(0).normal(size=(2, height, 5, 3)).astype(np.float32)
    one, two = pixel_sums(jnp.asarray(x), jnp.asarray(2 * x))
    # Of at most 35 numbers, in another order.
    np.testing.assert_allclose(one, x.astype(np.float64).sum((1, 2)), atol=1e-5)
    np.testing.assert_allclose(two, 2 * x.astype(np.float64).sum((1, 2)), atol=2e-5)
    [alone] = pixel_sums(jnp.asarray(x))
    np.testing.assert_allclose(alone, one, atol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16], ids=["bfloat16", "float16"])
def test_sums_of_half_precision_are_added_up_in_more(dtype):
    ones = jnp.ones((1, 15, 2055, 1), dtype)  # Neither type has 2055, or counts so far one by one.
    one, two = passes._by_pieces(ones, 2 * ones)
    [alone] = passes._by_pieces(ones)
    assert one.dtype == two.dtype == alone.dtype == dtype
    right = jnp.asarray([30825.0, 61650.0, 30825.0], dtype)
    np.testing.assert_array_equal(jnp.stack([one, two, alone]).ravel(), right)


@pytest.mark.parametrize(
    ("shape", "most", "pieces"),
    [
        ((16, 256, 256, 64), 1024, 64),
        ((16, 256, 256, 64), 512, 128),
        ((16, 320, 480, 64), 1024, 160),
        ((16, 40, 60, 512), 1024, 4),  # 17 rows would not divide 40.
        ((16, 32, 32, 512), 1024, 2),  # Of one piece an image there would be 2¹³ sums, not 2¹⁴.
        ((16, 4, 4, 1024), 1024, 1),
        ((1, 7, 3, 2), 1024, 7),
        ((1, 8, 2**15, 3), 1024, 8),  # A row is longer.
    ],
    ids=str,
)
def test_a_piece_is_of_whole_rows(shape: tuple[int, ...], most: int, pieces: int):
    cut = jax.eval_shape(lambda x: passes._cut(x, most), jnp.zeros(shape, jnp.int8))
    assert cut.shape[1] == pieces


@pytest.mark.parametrize(("read", "pieces"), [(1, 2), (2, 4)])
def test_a_piece_is_half_as_large_where_two_tensors_are_read(read: int, pieces: int, monkeypatch):
    monkeypatch.setattr(passes, "PIECE", 16)
    monkeypatch.setattr(passes, "SUMS", 1)
    x = jnp.ones((3, 8, 4, 5))
    text = lowered(lambda x: pixel_sums(x, read=read), x, platform="cuda")
    assert f"tensor<3x{pieces}x{32 // pieces}x5xf32>" in text


def test_what_is_written_can_be_differentiated():
    gradient = jax.grad(lambda x: jnp.sum(written(x) ** 2))(jnp.arange(3.0))
    np.testing.assert_array_equal(gradient, [0, 2, 4])

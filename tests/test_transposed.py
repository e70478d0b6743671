"""A transposed convolution, as a TPU computes it and as other devices do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from unet_jax.models import transposed
from unet_jax.models.transposed import transposed_convolve

CODE = pytest.mark.parametrize("code", [transposed._by_pixels, transposed._directly])


def drawn() -> list[np.ndarray]:
    """Images, kernel, bias, and the output's gradient."""
    rng = np.random.default_rng(0)
    return [rng.normal(size=size) for size in ((2, 3, 5, 4), (2, 2, 4, 6), (6,), (2, 6, 10, 6))]


@CODE
def test_result_and_gradients_are_pytorchs(code):
    *given, g = drawn()
    with jax.enable_x64(True):
        y, back = jax.vjp(code, *map(jnp.asarray, given))
        ours = [np.asarray(each) for each in (y, *back(jnp.asarray(g)))]

    x, kernel, bias = (torch.tensor(each, requires_grad=True) for each in given)
    theirs = torch.nn.functional.conv_transpose2d(
        x.permute(0, 3, 1, 2), kernel.permute(2, 3, 0, 1), bias, stride=2
    ).permute(0, 2, 3, 1)
    theirs.backward(torch.tensor(g))
    right = [theirs.detach(), x.grad, kernel.grad, bias.grad]
    for one, other in zip(ours, right, strict=True):  # Sums of at most 120 products.
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-13)


@CODE
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16], ids=["bfloat16", "float16"])
def test_half_precision_stays_half(code, dtype):
    *given, g = (jnp.asarray(each, dtype) for each in drawn())
    y, back = jax.vjp(code, *given)
    assert {each.dtype for each in (y, *back(g))} == {jnp.dtype(dtype)}


@CODE
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16], ids=["bfloat16", "float16"])
def test_a_biass_gradient_is_summed_in_more_than_half_precision(code, dtype):
    """Of 30,000 ones: either type counts no further than to 2,048, one by one."""
    given = jnp.zeros((1, 75, 100, 1)), jnp.zeros((2, 2, 1, 1)), jnp.zeros(1)
    x, kernel, bias = (each.astype(dtype) for each in given)
    back = jax.vjp(code, x, kernel, bias)[1]
    [by_bias] = back(jnp.ones((1, 150, 200, 1), dtype))[2]
    assert by_bias == jnp.asarray(30000, dtype)


@pytest.mark.parametrize(("platform", "windows"), [("cpu", 0), ("cuda", 0), ("tpu", 3)])
def test_a_tpu_moves_no_pixels(platform: str, windows: int):
    """It has three convolutions: of the images, and of both gradients."""
    *given, g = (jnp.asarray(each, jnp.float32) for each in drawn())

    def gradients(g: jax.Array, *given: jax.Array):
        y, back = jax.vjp(transposed_convolve, *given)
        return y, back(g)

    text = jax.jit(gradients).trace(g, *given).lower(lowering_platforms=(platform,)).as_text()
    assert text.count("stablehlo.convolution") == windows
    pixels = "x2x2x6xf32>"  # The four that one becomes, beside each other.
    assert (pixels in text) is (windows == 0)

"""Max pooling against PyTorch's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.nn.functional import max_pool2d

from unet_jax.models.pooling import _by_quarters, _by_windows, max_pool

CODE = pytest.mark.parametrize("code", [_by_quarters, _by_windows])


@CODE
@pytest.mark.parametrize("size", [(8, 12), (9, 13), (2, 3)], ids=str)
@pytest.mark.parametrize("values", [2, 1000], ids=["many alike", "few alike"])
def test_it_is_torchs(values: int, size: tuple[int, int], code):
    rng = np.random.default_rng(0)
    x = rng.integers(values, size=(2, *size, 3)).astype(np.float32)
    theirs = torch.from_numpy(x.transpose(0, 3, 1, 2)).requires_grad_()
    expected = max_pool2d(theirs, 2)
    g = rng.normal(size=(2, size[0] // 2, size[1] // 2, 3)).astype(np.float32)
    expected.backward(torch.from_numpy(g.transpose(0, 3, 1, 2)))
    assert theirs.grad is not None

    y, pull = jax.vjp(code, jnp.asarray(x))
    (by_x,) = pull(jnp.asarray(g))
    np.testing.assert_array_equal(y, expected.detach().permute(0, 2, 3, 1))
    np.testing.assert_array_equal(by_x, theirs.grad.permute(0, 2, 3, 1))


@CODE
@pytest.mark.parametrize("place", range(4))
def test_what_is_not_a_number_stays_so(place: int, code):
    x = np.zeros((1, 2, 2, 1), np.float32)
    x.flat[place] = np.nan
    y, pull = jax.vjp(code, jnp.asarray(x))
    [by_x] = pull(jnp.ones_like(y))
    assert np.isnan(y)
    if code is _by_quarters:
        np.testing.assert_array_equal(by_x.ravel(), [0, 0, 0, 1])
    assert np.sort(by_x.ravel()).tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize(("platform", "windows"), [("cpu", 0), ("cuda", 0), ("tpu", 1)])
def test_a_tpu_has_xlas_own(platform: str, windows: int):
    def pulled(x: jax.Array, g: jax.Array) -> jax.Array:
        return jax.vjp(max_pool, x)[1](g)[0]

    given = jnp.zeros((1, 4, 4, 3)), jnp.zeros((1, 2, 2, 3))
    text = jax.jit(pulled).trace(*given).lower(lowering_platforms=(platform,)).as_text()
    assert text.count("stablehlo.select_and_scatter") == windows

"""Max pooling against PyTorch's."""

import jax
import numpy as np
import pytest
import torch
from torch.nn.functional import max_pool2d

from unet_jax.models.pooling import max_pool


@pytest.mark.parametrize("size", [(8, 12), (9, 13), (2, 3)], ids=str)
@pytest.mark.parametrize("values", [2, 1000], ids=["many alike", "few alike"])
def test_it_is_torchs(values: int, size: tuple[int, int]):
    rng = np.random.default_rng(0)
    x = rng.integers(values, size=(2, *size, 3)).astype(np.float32)
    theirs = torch.from_numpy(x.transpose(0, 3, 1, 2)).requires_grad_()
    expected = max_pool2d(theirs, 2)
    g = rng.normal(size=(2, size[0] // 2, size[1] // 2, 3)).astype(np.float32)
    expected.backward(torch.from_numpy(g.transpose(0, 3, 1, 2)))
    assert theirs.grad is not None

    y, pull = jax.vjp(max_pool, x)
    (by_x,) = pull(g)
    np.testing.assert_array_equal(y, expected.detach().permute(0, 2, 3, 1))
    np.testing.assert_array_equal(by_x, theirs.grad.permute(0, 2, 3, 1))


@pytest.mark.parametrize("place", range(4))
def test_what_is_not_a_number_stays_so(place: int):
    x = np.zeros((1, 2, 2, 1), np.float32)
    x.flat[place] = np.nan
    y, pull = jax.vjp(max_pool, x)
    (by_x,) = pull(np.ones_like(y))
    assert np.isnan(y)
    np.testing.assert_array_equal(np.asarray(by_x).ravel(), [0, 0, 0, 1])

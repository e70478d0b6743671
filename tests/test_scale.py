"""The scale of a float16 loss follows the rule of `torch.amp.GradScaler`."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from unet_jax.scale import BACKOFF, GROWTH, INTERVAL, LossScale


@pytest.mark.parametrize("steps", [0, INTERVAL - 2, INTERVAL - 1])
@pytest.mark.parametrize("factor", [2.0**-100, 1.0, 2.0**16, 2.0**126, 2.0**127, 3e38])
@pytest.mark.parametrize("finite", [True, False], ids=["finite", "overflow"])
def test_the_next_scale_is_pytorchs(finite: bool, factor: float, steps: int):
    scale, tracker = torch.tensor(factor), torch.tensor(steps, dtype=torch.int32)
    found = torch.tensor(0.0 if finite else 1.0)
    vars(torch)["_amp_update_scale_"](scale, tracker, found, GROWTH, BACKOFF, INTERVAL)
    before = LossScale(jnp.asarray(factor, jnp.float32), jnp.asarray(steps, jnp.int32))
    after = before.update(jnp.asarray(finite))
    assert (after.factor.dtype, after.finite_steps.dtype) == (jnp.float32, jnp.int32)
    np.testing.assert_array_equal(after.factor, scale.numpy())
    np.testing.assert_array_equal(after.finite_steps, tracker.numpy())

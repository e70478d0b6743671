"""Blocks that are computed anew in the backward pass change nothing but memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from unet_jax.config import ModelConfig
from unet_jax.models import build_model
from unet_torch_ref.models import build_model as build_torch

CONFIGS = {
    "residual": ModelConfig(channels=(8,), groups=4),
    "residual, batch norm": ModelConfig(channels=(8,), norm="batch"),
    "plain": ModelConfig(architecture="plain", channels=(8,), norm="batch"),
}


@pytest.mark.parametrize(
    "config", [CONFIGS["residual"], CONFIGS["plain"]], ids=["residual", "plain"]
)
def test_flax(config: ModelConfig):
    model = build_model(config, 1)
    x = jax.random.normal(jax.random.key(0), (2, 16, 16, 3))
    variables = model.init(jax.random.key(1), x)
    state = {name: tree for name, tree in variables.items() if name != "params"}

    def run(remat: bool):
        network = build_model(config, 1, remat=remat)

        def loss(params):
            logits, updates = network.apply(
                {"params": params, **state}, x, train=True, mutable=["batch_stats"]
            )
            return jnp.sum(jnp.sin(logits)), updates

        return jax.grad(loss, has_aux=True)(variables["params"])

    stored, again = run(False), run(True)
    text = jax.make_jaxpr(lambda p: build_model(config, 1, remat=True).apply(p, x, train=False))
    assert "remat" in str(text(variables))
    assert jax.tree.structure(stored) == jax.tree.structure(again)
    for a, b in zip(jax.tree.leaves(stored), jax.tree.leaves(again), strict=True):
        # The second pass is compiled otherwise: the last bits of sums of 512 values differ.
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-5 * np.abs(a).max())


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_torch(config: ModelConfig):
    torch.manual_seed(0)
    arguments = config.arguments()
    model = build_torch(config.architecture, num_classes=1, remat=True, **arguments).double()
    stored = build_torch(config.architecture, num_classes=1, **arguments).double()
    stored.load_state_dict(model.state_dict())
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    saved = [0, 0]
    for n, network in enumerate((stored, model)):

        def count(tensor: torch.Tensor, n: int = n) -> torch.Tensor:
            saved[n] += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            network(x).sin().sum().backward()
    assert saved[1] < saved[0] / 2
    for (name, a), b in zip(stored.named_parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=0, msg=name)
    for (name, a), b in zip(stored.named_buffers(), model.buffers(), strict=True):
        assert torch.equal(a, b), name

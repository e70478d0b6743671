"""First weights: every kind of convolution draws from PyTorch's default distribution.

That is U(-b, b), b = 1 / √fan_in, with mean 0 and variance b² / 3. Of n draws, the mean strays by
b / √(3 n) and the variance by b² √(4 / (45 n)), one standard deviation each (the fourth moment is
b⁴ / 5, so that a square strays by √(b⁴ / 5 - b⁴ / 9)). The largest of n falls short of b by a share
t with a probability of (1 - t)ⁿ ≈ exp(-n t).
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax.traverse_util import flatten_dict

from parity.components.initialisation import (
    KINDS,
    ROUNDING,
    compare_initialisation,
    flax_draws,
    torch_draws,
)
from parity.convert import places
from parity.row import first_divergence
from unet_jax.models import PlainUNet, ResidualUNet
from unet_jax.models.layers import Conv
from unet_torch_ref.models import build_model

SIGMAS = 5.0  # A correct draw strays further once in 1.7 million times; these keys never do.
SHORTFALL = 14.3  # exp(-14.3) is as rare on one side.


def check_uniform(draws: np.ndarray, bound: float) -> None:
    draws = draws.astype(np.float64)
    n = draws.size
    assert abs(draws.mean()) < SIGMAS * bound / math.sqrt(3 * n)
    assert abs(draws.var() - bound**2 / 3) < SIGMAS * bound**2 * math.sqrt(4 / (45 * n))
    largest = np.abs(draws).max()
    assert bound * (1 - SHORTFALL / n) < largest <= bound * (1 + ROUNDING)


@pytest.mark.parametrize("entry", ["weight", "bias"])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_both_frameworks_draw_the_documented_distribution(kind, entry):
    bound = 1 / math.sqrt(kind.fan_in)
    check_uniform(flax_draws(kind)[entry], bound)
    check_uniform(torch_draws(kind)[entry], bound)


@pytest.mark.parametrize("entry", ["weight", "bias"])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_moments_are_those_of_the_layer_pytorch_draws(kind, entry):
    ours, theirs = (d(kind)[entry].astype(np.float64) for d in (flax_draws, torch_draws))
    assert ours.size == theirs.size
    # Both samples stray: √2 times one sample's deviation, estimated from PyTorch's alone.
    spread, n = theirs.std(), theirs.size
    squares = np.square(theirs).std()
    assert abs(ours.mean() - theirs.mean()) < SIGMAS * spread * math.sqrt(2 / n)
    assert abs(ours.var() - theirs.var()) < SIGMAS * squares * math.sqrt(2 / n)
    bounds = np.abs(ours).max(), np.abs(theirs).max()
    assert bounds[0] == pytest.approx(bounds[1], rel=SHORTFALL / n + ROUNDING)


@pytest.mark.parametrize("name", KINDS)
def test_whole_distributions_agree(name):
    assert first_divergence(compare_initialisation((name,))) is None


def both_networks(architecture: Any, **options: Any) -> tuple[nn.Module, torch.nn.Module]:
    network = {"residual": ResidualUNet, "plain": PlainUNet}[architecture]
    return network(**options), build_model(architecture, **options)


def first_variables(model: nn.Module) -> dict[str, np.ndarray]:
    """Every entry by collection/path/name."""
    # This generator compiles in a fraction of the default's time.
    key = jax.random.key(1, impl="unsafe_rbg")
    variables = jax.jit(model.init)(key, jnp.zeros((1, 2, 2, 3)))
    leaves: dict[str, Any] = flatten_dict(variables, sep="/")
    return {path: np.asarray(leaf) for path, leaf in leaves.items()}


@pytest.mark.parametrize(
    ("architecture", "upsample"),
    [("residual", "transposed"), ("residual", "bilinear"), ("plain", "transposed")],
)
def test_every_convolution_of_a_network_keeps_to_its_own_bound(architecture, upsample):
    model, twin = both_networks(architecture, channels=(16,), norm="none", upsample=upsample)
    variables, layers = first_variables(model), dict(twin.named_modules())
    scaled: dict[str, np.ndarray] = {}
    for place in places(twin):
        layer, entry = place.torch_name.rsplit(".", 1)
        weight = layers[layer].weight
        assert isinstance(weight, torch.nn.Parameter)
        fan_in = weight[0].numel()  # Of [out, in, k, k] and of [in, out, k, k] alike.
        draws = scaled[place.torch_name] = variables["/".join(place.path)] * math.sqrt(fan_in)
        assert np.abs(draws).max() <= 1 + ROUNDING, place.torch_name
        if entry == "weight":
            check_uniform(draws, 1.0)
    # The biases of a network this small are too few, each layer for itself.
    check_uniform(np.concatenate([d.ravel() for d in scaled.values() if d.ndim == 1]), 1.0)
    assert len({draws.tobytes() for draws in scaled.values()}) == len(scaled), "two drew the same"


def test_a_key_decides_the_weights():
    layer, images = Conv(4), jnp.zeros((1, 1, 1, 3))
    first, again, other = (
        np.asarray(layer.init(jax.random.key(n), images)["params"]["kernel"]) for n in (0, 0, 1)
    )
    assert np.array_equal(first, again)
    assert not np.any(first == other)


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_norms_start_as_the_identity_in_both_frameworks(norm):
    model, twin = both_networks("plain", channels=(4,), groups=2, norm=norm)
    variables, state, seen = first_variables(model), twin.state_dict(), 0
    for place in places(twin):
        if "norm" in place.torch_name:
            first = 1 if place.path[-1] in ("scale", "var") else 0
            assert np.all(variables["/".join(place.path)] == first), place.torch_name
            assert np.all(state[place.torch_name].numpy() == first), place.torch_name
            seen += 1
    assert seen == 6 * (5 if norm == "batch" else 2)  # Three blocks, two norms in each.

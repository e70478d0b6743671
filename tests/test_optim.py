"""Every optimiser against PyTorch's, over a hundred updates; clipping; what decays."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax.traverse_util import flatten_dict
from torch import nn

import unet_jax.vectors
import unet_torch_ref.optim
from parity.cases import CASES, Case
from parity.components.optimisers import (
    OPTIMISERS,
    STEPS,
    by_path,
    compare_optimisers,
    jax_path,
    make_config,
    network,
    parameters,
    random_gradients,
    random_rates,
    torch_path,
)
from parity.convert import places, to_flax
from parity.row import first_divergence
from unet_jax.config import OptimConfig
from unet_jax.optim import clip_grad_norm
from unet_jax.vectors import kernels
from unet_torch_ref.models import build_model

ROUNDING = 1e-14
"""Relative, in float64: a dozen operations of 1e-16 each."""

pytestmark = pytest.mark.usefixtures("x64")


# Clipping.


@pytest.mark.parametrize(
    ("max_norm", "scale"),
    [
        pytest.param(1.0, 1 / (5 + 1e-6), id="above"),
        pytest.param(5.1, 1, id="below"),
        pytest.param(math.inf, 1, id="never"),
    ],
)
def test_gradients_are_clipped_by_their_global_norm(max_norm, scale):
    gradients = {"a": np.array([3.0]), "b": np.array([[0.0, -4.0]])}  # Of norm 5.
    transform = clip_grad_norm(max_norm)
    clipped: Any = transform.update(jax.tree.map(jnp.asarray, gradients), transform.init({}))[0]
    tensors = {name: nn.Parameter(torch.zeros(g.shape)) for name, g in gradients.items()}
    for name, tensor in tensors.items():
        tensor.data, tensor.grad = torch.tensor(gradients[name]), torch.tensor(gradients[name])
    nn.utils.clip_grad_norm_(tensors.values(), max_norm)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(clipped[name], gradient * scale, rtol=ROUNDING)
        theirs: Any = tensors[name].grad
        np.testing.assert_allclose(clipped[name], theirs, rtol=ROUNDING)
    if scale == 1:
        assert all(np.array_equal(clipped[name], gradients[name]) for name in gradients)


# Updates.


@pytest.mark.parametrize("name", OPTIMISERS)
def test_a_hundred_updates_agree(name):
    assert first_divergence(compare_optimisers((name,))) is None


@pytest.mark.parametrize("name", ["adamw-masked", "sgd-nesterov-masked"])
def test_they_agree_where_all_parameters_are_large(name, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(unet_jax.vectors, "LARGE", 1)
    assert first_divergence(compare_optimisers((name,))) is None


@pytest.mark.parametrize("name", ["adamw-no-decay", "adam", "sgd-momentum", "rmsprop"])
def test_the_updates_that_are_compared_move_what_has_a_gradient(name):
    config, module = make_config(name), network()
    gradients, before = random_gradients(module), parameters(module)
    clipped = [math.hypot(*(np.linalg.norm(g) for g in step.values())) > 1 for step in gradients]
    assert 0.2 * STEPS < sum(clipped) < 0.8 * STEPS
    path = jax_path(config, module, gradients, random_rates())
    assert len(path) == STEPS
    # A comparison of parameters that do not move would pass, too: 1e-12 is 1e-9 of what these do.
    for entry in before:
        moved = np.linalg.norm(path[-1][entry] - before[entry]) / np.linalg.norm(before[entry])
        assert moved > 1e-3, f"{entry}: {moved:.1e}"
    sums = {n: np.sum([np.abs(g[n]) for g in gradients], axis=0) for n in gradients[0]}
    total = by_path(sums, module)
    assert sum(int(np.sum(sizes == 0)) for sizes in total.values()) > 10
    for entry, sizes in total.items():
        np.testing.assert_array_equal(path[-1][entry][sizes == 0], before[entry][sizes == 0])


def test_the_first_step_by_hand():
    # Adam's first step is the rate times g / (|g| + eps), so of the gradient's sign alone; the
    # decay takes rate × decay off the weight.
    config = OptimConfig(weight_decay=0.01, clip_norm=math.inf)
    module = nn.ModuleDict({"norm": nn.GroupNorm(1, 3)}).double()
    start = {"norm.weight": np.array([2.0, -1.0, 3.0]), "norm.bias": np.zeros(3)}
    module.load_state_dict({name: torch.tensor(value) for name, value in start.items()})
    gradient = {"norm.weight": np.array([5.0, -0.001, 0.0]), "norm.bias": np.zeros(3)}
    rate, g = 0.01, gradient["norm.weight"]
    expected = start["norm.weight"] * (1 - rate * 0.01) - rate * g / (np.abs(g) + 1e-8)
    for path in (jax_path, torch_path):  # PyTorch changes the module, so it comes last.
        [after] = path(config, module, [gradient], np.array([rate]))
        np.testing.assert_allclose(after["norm/scale"], expected, rtol=ROUNDING)


# What decays.


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_both_frameworks_let_the_same_parameters_decay(case: Case):
    config = OptimConfig(decay_norms_and_biases=False)
    arguments = case.model.arguments()
    module = build_model(case.model.architecture, num_classes=case.num_classes, **arguments)
    state = {name: value.numpy() for name, value in module.state_dict().items()}
    ours = flatten_dict(kernels(to_flax(state, module)["params"]))

    optimizer = unet_torch_ref.optim.build_optimizer(module, **config.optimizer_arguments())
    decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    by_name = {name: decay.pop(id(p)) for name, p in module.named_parameters()}
    assert not decay
    assert set(by_name.values()) == {0.0, config.weight_decay}
    paths = {place.torch_name: place.path for place in places(module)}
    theirs = {paths[name][1:]: value > 0 for name, value in by_name.items()}
    assert ours == theirs
    # What is meant: kernels alone.
    assert {path[-1] for path, decays in ours.items() if decays} == {"kernel"}
    assert "kernel" not in {path[-1] for path, decays in ours.items() if not decays}


def test_all_parameters_decay_unless_told_otherwise():
    arguments = OptimConfig(weight_decay=0.25).optimizer_arguments()
    optimizer = unet_torch_ref.optim.build_optimizer(network(), **arguments)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.25]


@pytest.mark.parametrize("kind", ["adamw", "adam", "sgd", "rmsprop"])
def test_one_kernel_for_all_parameters_takes_the_same_steps(kind):
    momentum = 0.9 if kind == "sgd" else 0.0
    settings = OptimConfig(optimizer=kind, momentum=momentum).optimizer_arguments()
    modules = [network(), network()]
    modules[1].load_state_dict(modules[0].state_dict())
    optimizers = [
        unet_torch_ref.optim.build_optimizer(module, **settings, fused=fused)
        for module, fused in zip(modules, (False, True), strict=True)
    ]
    assert [bool(each.defaults.get("fused")) for each in optimizers] == [False, kind != "rmsprop"]
    rng = np.random.default_rng(0)
    for _ in range(10):
        for pair in zip(*(module.parameters() for module in modules), strict=True):
            gradient = torch.from_numpy(rng.standard_normal(pair[0].shape))
            for parameter in pair:
                parameter.grad = gradient.to(parameter.dtype).clone()
        for optimizer in optimizers:
            optimizer.step()
    for alone, fused in zip(*(module.parameters() for module in modules), strict=True):
        np.testing.assert_allclose(fused.detach(), alone.detach(), rtol=1e-6, atol=1e-12)

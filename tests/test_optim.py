"""Every optimiser against PyTorch's, over a hundred updates; clipping; what decays."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax.traverse_util import flatten_dict, unflatten_dict
from torch import nn

import unet_torch_ref.optim
from parity.cases import CASES, Case
from parity.convert import places, to_flax
from unet_jax.config import OptimConfig
from unet_jax.optim import build_optimizer, clip_grad_norm, kernels
from unet_torch_ref.models import build_model

ROUNDING = 1e-14
"""Relative, in float64: a dozen operations of 1e-16 each."""
STRICT = 1e-12
"""Relative, in float64, after 100 updates: their roundings add up, and no more."""

Arrays = dict[str, np.ndarray]
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

STEPS = 100


def network() -> nn.Module:
    """One of every kind of layer, in float64; all its parameters away from 0 and 1."""
    layers = {"conv": nn.Conv2d(4, 5, 3), "norm": nn.GroupNorm(1, 5)}
    module = nn.ModuleDict({**layers, "up": nn.ConvTranspose2d(5, 6, 2)}).double()
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data.normal_(generator=generator)
    return module


def random_gradients(module: nn.Module) -> list[Arrays]:
    """For each step, of each parameter: entries and norms of widely different sizes, and zeros."""
    rng = np.random.default_rng(0)
    sizes = {name: 10 ** rng.uniform(-4, 0, p.shape) for name, p in module.named_parameters()}
    still = {name: rng.random(size.shape) < 0.1 for name, size in sizes.items()}
    # Adam forgets a constant scale, so it must vary for clipping to show.
    scales = 10 ** rng.uniform(-3, 2, STEPS)
    scales[[0, 50]] = 0  # Nothing at all, also where no average has a past.
    return [
        {
            name: scale
            * size
            * rng.normal(size=size.shape)
            * (rng.random(size.shape) < 0.8)
            * ~still[name]
            for name, size in sizes.items()
        }
        for scale in scales
    ]


def by_path(values: Arrays, module: nn.Module) -> Arrays:
    """Values of the module's parameters as Flax has them."""
    flat: Any = flatten_dict(to_flax(values, module)["params"], sep="/")
    return flat


def parameters(module: nn.Module) -> Arrays:
    return by_path({name: p.detach().numpy() for name, p in module.named_parameters()}, module)


def jax_path(
    config: OptimConfig, module: nn.Module, gradients: list[Arrays], rates: np.ndarray
) -> list[Arrays]:
    """The parameters after each update, by their paths."""
    optimizer = build_optimizer(config)

    def update(carry: Any, gradient_and_rate: Any) -> tuple[Any, Any]:
        params, state = carry
        gradient, rate = gradient_and_rate
        direction, state = optimizer.update(gradient, state, params)
        params = jax.tree.map(lambda p, d: p - rate * d, params, direction)
        return (params, state), params

    tree = unflatten_dict(jax.tree.map(jnp.asarray, parameters(module)), sep="/")
    per_step = [unflatten_dict(by_path(gradient, module), sep="/") for gradient in gradients]
    stacked = jax.tree.map(lambda *steps: np.stack(steps), *per_step)
    _, path = jax.lax.scan(update, (tree, optimizer.init(tree)), (stacked, jnp.asarray(rates)))
    flat = {name: np.asarray(values) for name, values in flatten_dict(path, sep="/").items()}
    return [{name: values[n] for name, values in flat.items()} for n in range(len(rates))]


def torch_path(
    config: OptimConfig, module: nn.Module, gradients: list[Arrays], rates: np.ndarray
) -> list[Arrays]:
    optimizer = unet_torch_ref.optim.build_optimizer(module, **config.optimizer_arguments())
    path = []
    for gradient, rate in zip(gradients, rates, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = float(rate)
        for name, parameter in module.named_parameters():
            parameter.grad = torch.tensor(gradient[name])
        nn.utils.clip_grad_norm_(module.parameters(), config.clip_norm)  # As the step does.
        optimizer.step()
        path.append(parameters(module))
    return path


ADAM = {"betas": (0.8, 0.95), "eps": 1e-4}
SGD = {"optimizer": "sgd", "weight_decay": 0.0}
RMSPROP = {"optimizer": "rmsprop", "weight_decay": 0.0}
BARE = {"decay_norms_and_biases": False}


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="adamw"),
        pytest.param({"weight_decay": 0.0}, id="adamw-no-decay"),
        pytest.param({"weight_decay": 0.5, **BARE}, id="adamw-masked"),
        pytest.param({"clip_norm": math.inf, **ADAM}, id="adamw-betas-eps-no-clipping"),
        pytest.param({"optimizer": "adam", "weight_decay": 0.0}, id="adam"),
        pytest.param({"optimizer": "adam", "weight_decay": 0.1, **ADAM}, id="adam-decay"),
        pytest.param({"optimizer": "adam", "weight_decay": 0.1, **BARE}, id="adam-masked"),
        pytest.param(SGD, id="sgd"),
        pytest.param({**SGD, "weight_decay": 0.1}, id="sgd-decay"),
        pytest.param({**SGD, "momentum": 0.9}, id="sgd-momentum"),
        pytest.param({**SGD, "momentum": 0.9, "nesterov": True}, id="sgd-nesterov"),
        pytest.param(
            {**SGD, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1, **BARE},
            id="sgd-nesterov-masked",
        ),
        pytest.param(RMSPROP, id="rmsprop"),
        pytest.param({**RMSPROP, "weight_decay": 0.1}, id="rmsprop-decay"),
        pytest.param({**RMSPROP, "rmsprop_alpha": 0.9, "eps": 1e-3}, id="rmsprop-alpha-eps"),
        pytest.param({**RMSPROP, "weight_decay": 1e-8, "momentum": 0.999}, id="rmsprop-R2e"),
        pytest.param(
            {**RMSPROP, "momentum": 0.9, "weight_decay": 0.1, **BARE}, id="rmsprop-momentum-masked"
        ),
    ],
)
def test_a_hundred_updates_agree(options):
    config = OptimConfig(**{"weight_decay": 0.1, **options})
    module = network()
    gradients = random_gradients(module)
    clipped = [math.hypot(*(np.linalg.norm(g) for g in step.values())) > 1 for step in gradients]
    assert 0.2 * STEPS < sum(clipped) < 0.8 * STEPS
    # A hundredfold up and down between steps, so that what a rate multiplies shows.
    rates = 10 ** np.random.default_rng(1).uniform(-3, -1, STEPS)

    before = parameters(module)
    ours = jax_path(config, module, gradients, rates)
    theirs = torch_path(config, module, gradients, rates)
    assert len(ours) == len(theirs) == STEPS
    for step, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        assert a.keys() == b.keys()
        for name in b:
            assert a[name].dtype == np.float64
            distance = np.linalg.norm(a[name] - b[name]) / np.linalg.norm(b[name])
            assert distance <= STRICT, f"step {step}, {name}: {distance:.1e}"
    # A test of parameters that do not move would pass, too: 1e-12 is 1e-9 of what these do.
    for name in before:
        moved = np.linalg.norm(ours[-1][name] - before[name]) / np.linalg.norm(before[name])
        assert moved > 1e-3, f"{name}: {moved:.1e}"
    if config.weight_decay == 0:
        sums = {n: np.sum([np.abs(g[n]) for g in gradients], axis=0) for n in gradients[0]}
        total = by_path(sums, module)
        assert sum(int(np.sum(sizes == 0)) for sizes in total.values()) > 10
        for name, sizes in total.items():
            np.testing.assert_array_equal(ours[-1][name][sizes == 0], before[name][sizes == 0])


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

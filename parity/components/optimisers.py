"""Every optimiser over a hundred updates, whose learning rate changes each time."""

import math
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax.traverse_util import flatten_dict, unflatten_dict
from torch import nn

import unet_jax.optim
import unet_torch_ref.optim
from parity.convert import to_flax
from parity.row import Row, relative_error
from unet_jax.config import OptimConfig
from unet_jax.vectors import tree_of, vectors

STRICT = 1e-12
"""Relative, in float64, after 100 updates: their roundings add up, and no more."""
STEPS = 100
Arrays = dict[str, np.ndarray]

ADAM = {"betas": (0.8, 0.95), "eps": 1e-4}
SGD = {"optimizer": "sgd", "weight_decay": 0.0}
RMSPROP = {"optimizer": "rmsprop", "weight_decay": 0.0}
BARE = {"decay_norms_and_biases": False}
OPTIMISERS: dict[str, dict[str, Any]] = {
    "adamw": {},
    "adamw-no-decay": {"weight_decay": 0.0},
    "adamw-masked": {"weight_decay": 0.5, **BARE},
    "adamw-betas-eps-no-clipping": {"clip_norm": math.inf, **ADAM},
    "adam": {"optimizer": "adam", "weight_decay": 0.0},
    "adam-decay": {"optimizer": "adam", "weight_decay": 0.1, **ADAM},
    "adam-masked": {"optimizer": "adam", "weight_decay": 0.1, **BARE},
    "sgd": SGD,
    "sgd-decay": {**SGD, "weight_decay": 0.1},
    "sgd-momentum": {**SGD, "momentum": 0.9},
    "sgd-nesterov": {**SGD, "momentum": 0.9, "nesterov": True},
    "sgd-nesterov-masked": {
        **SGD,
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": 0.1,
        **BARE,
    },
    "rmsprop": RMSPROP,
    "rmsprop-decay": {**RMSPROP, "weight_decay": 0.1},
    "rmsprop-alpha-eps": {**RMSPROP, "rmsprop_alpha": 0.9, "eps": 1e-3},
    "rmsprop-R2e": {**RMSPROP, "weight_decay": 1e-8, "momentum": 0.999},
    "rmsprop-momentum-masked": {**RMSPROP, "momentum": 0.9, "weight_decay": 0.1, **BARE},
}
"""Settings that differ from the default; the decay is 0.1 where it is not said."""


def make_config(name: str) -> OptimConfig:
    return OptimConfig(**{"weight_decay": 0.1, **OPTIMISERS[name]})


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


def random_rates() -> np.ndarray:
    """A hundredfold up and down between steps, so that what a rate multiplies shows."""
    return 10 ** np.random.default_rng(1).uniform(-3, -1, STEPS)


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
    optimizer = unet_jax.optim.build_optimizer(config)

    def update(carry: Any, gradient_and_rate: Any) -> tuple[Any, Any]:
        params, state = carry
        gradient, rate = gradient_and_rate
        before = vectors(params)
        direction, state = optimizer.update(vectors(gradient), state, before)
        after = jax.tree.map(lambda p, d: p - rate * d, before, direction)
        params = tree_of(after, params)
        return (params, state), params

    tree = unflatten_dict(jax.tree.map(jnp.asarray, parameters(module)), sep="/")
    per_step = [unflatten_dict(by_path(gradient, module), sep="/") for gradient in gradients]
    stacked = jax.tree.map(lambda *steps: np.stack(steps), *per_step)
    _, path = jax.lax.scan(
        update, (tree, optimizer.init(vectors(tree))), (stacked, jnp.asarray(rates))
    )
    flat = {name: np.asarray(values) for name, values in flatten_dict(path, sep="/").items()}
    return [{name: values[n] for name, values in flat.items()} for n in range(len(rates))]


def torch_path(
    config: OptimConfig, module: nn.Module, gradients: list[Arrays], rates: np.ndarray
) -> list[Arrays]:
    """As `jax_path`; the module changes."""
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


def compare_optimisers(names: Iterable[str] = OPTIMISERS) -> list[Row]:
    """Compares parameters after each of 100 updates; an error is that of the worst update.

    Args:
      names: Of `OPTIMISERS`.
    """
    rows = []
    for name in names:
        config, module = make_config(name), network()
        gradients, rates = random_gradients(module), random_rates()
        ours = jax_path(config, module, gradients, rates)
        theirs = torch_path(config, module, gradients, rates)
        for entry in theirs[0]:
            pairs = zip(ours, theirs, strict=True)
            error = max(relative_error(a[entry], b[entry]) for a, b in pairs)
            rows.append(Row("optimisers", "float64", f"optimiser: {name}", entry, error, STRICT))
    return rows

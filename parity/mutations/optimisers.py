"""Faults of optimisers."""

import dataclasses
from functools import partial
from typing import Any
from unittest.mock import patch

import jax
import jax.numpy as jnp
import optax

import unet_jax.optim
from parity.components.optimisers import compare_optimisers
from parity.mutations.mutation import Mutation


def _optimiser_fault(name: str, optimiser: str, plant: Any, entry: str = "conv/kernel") -> Mutation:
    compare = partial(compare_optimisers, (optimiser,))
    return Mutation(name, "optimiser", (f"optimiser: {optimiser}", entry), compare, plant)


def _clip_each(max_norm: float) -> optax.GradientTransformation:
    return optax.stateless(
        lambda updates, _: jax.tree.map(
            lambda g: g * jnp.minimum(1.0, max_norm / (optax.tree.norm(g) + 1e-6)), updates
        )
    )


build_optimizer = unet_jax.optim.build_optimizer
adam, rms, trace = optax.scale_by_adam, optax.scale_by_rms, optax.trace
OPTIMISERS = [
    _optimiser_fault(
        "decay coupled to the gradient",
        "adamw",
        partial(
            patch.object,
            unet_jax.optim,
            "build_optimizer",
            lambda config: build_optimizer(dataclasses.replace(config, optimizer="adam")),
        ),
    ),
    _optimiser_fault(
        "norms and biases decay, too",
        "adamw-masked",
        partial(
            patch.object,
            unet_jax.optim,
            "decaying",
            lambda params: dict.fromkeys(params, True),
        ),
        "conv/bias",
    ),
    _optimiser_fault(
        "eps inside of Adam's root",
        "adamw-betas-eps-no-clipping",
        partial(
            patch.object,
            optax,
            "scale_by_adam",
            lambda b1, b2, eps: adam(b1, b2, eps=0.0, eps_root=eps**2),
        ),
    ),
    _optimiser_fault(
        "every tensor clipped by itself",
        "adam",
        partial(patch.object, unet_jax.optim, "clip_grad_norm", _clip_each),
    ),
    _optimiser_fault(
        "momentum that dampens the gradient",
        "sgd-momentum",
        partial(
            patch.object,
            optax,
            "trace",
            lambda decay, nesterov: optax.chain(optax.scale(1 - decay), trace(decay, nesterov)),
        ),
    ),
    _optimiser_fault(
        "momentum that does not look ahead",
        "sgd-nesterov",
        partial(patch.object, optax, "trace", lambda decay, nesterov: trace(decay, False)),
    ),
    _optimiser_fault(
        "eps inside of RMSprop's root",
        "rmsprop-alpha-eps",
        partial(
            patch.object,
            optax,
            "scale_by_rms",
            lambda decay, eps, eps_in_sqrt: rms(decay, eps, eps_in_sqrt=True),
        ),
    ),
]

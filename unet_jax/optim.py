"""Optimisers with the arithmetic of PyTorch's; the learning rate is `unet_jax.schedule`'s."""

import jax
import jax.numpy as jnp
import optax

from unet_jax.config import OptimConfig
from unet_jax.vectors import Vectors, are_kernels


def build_optimizer(config: OptimConfig) -> optax.GradientTransformation:
    """From gradients to directions: parameters change by minus the learning rate times these.

    All are `unet_jax.vectors`.

    The learning rate stays outside. So it is not in the momentum, as it is not in PyTorch's, and a
    step that is left out leaves this state alone while the schedule goes on.

    Args:
      config: Its settings. Gradients are clipped to `clip_norm` first.

    References:
      Kingma and Ba, 2015 (Adam). https://arxiv.org/abs/1412.6980
      Loshchilov and Hutter, 2019 (AdamW). https://arxiv.org/abs/1711.05101
      Sutskever et al., 2013 (Nesterov). https://proceedings.mlr.press/v28/sutskever13.html
      Tieleman and Hinton, 2012 (RMSprop), as in `torch.optim.RMSprop`.
    """
    mask = None if config.decay_norms_and_biases else decaying
    decay = optax.add_decayed_weights(config.weight_decay, mask)
    momentum = (
        optax.trace(config.momentum, config.nesterov) if config.momentum else optax.identity()
    )
    match config.optimizer:
        case "adamw":
            parts = (optax.scale_by_adam(*config.betas, config.eps), decay)
        case "adam":  # The decay is part of the gradient, and so of its averages.
            parts = (decay, optax.scale_by_adam(*config.betas, config.eps))
        case "sgd":
            parts = (decay, momentum)
        case "rmsprop":
            rms = optax.scale_by_rms(config.rmsprop_alpha, config.eps, eps_in_sqrt=False)
            parts = (decay, rms, momentum)
    return optax.chain(clip_grad_norm(config.clip_norm), *parts)


def clip_grad_norm(max_norm: float) -> optax.GradientTransformation:
    """`torch.nn.utils.clip_grad_norm_`: scales by max_norm / (norm + 1e-6) if that is below 1."""

    def update(updates, state, params=None):
        scale = jnp.minimum(1.0, max_norm / (optax.tree.norm(updates) + 1e-6))
        return jax.tree.map(lambda g: g * scale.astype(g.dtype), updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def decaying(params: Vectors) -> dict[str, bool]:
    """Which vectors decay where norms and biases do not."""
    return {kind: are_kernels(kind) for kind in params}

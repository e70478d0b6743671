"""AdamW under warm-up and cosine decay, with the arithmetic of PyTorch's."""

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from unet_jax.config import OptimConfig


def warmup_cosine(step: ArrayLike, config: OptimConfig, total_steps: int) -> jax.Array:
    """The learning rate of step 0, 1, …: up in a straight line, down in a half cosine to 0.

    References:
      Goyal et al., 2017 (warm-up). https://arxiv.org/abs/1706.02677
      Loshchilov and Hutter, 2017 (cosine). https://arxiv.org/abs/1608.03983
    """
    step = jnp.asarray(step, float)  # In x64, int32 / int is float32 all the same.
    warmup = round(config.warmup * total_steps)
    rise = (step + 1) / max(warmup, 1)
    fall = 0.5 * (1 + jnp.cos(jnp.pi * (step - warmup) / max(total_steps - warmup, 1)))
    return config.learning_rate * jnp.where(step < warmup, rise, fall)


def clip_grad_norm(max_norm: float) -> optax.GradientTransformation:
    """`torch.nn.utils.clip_grad_norm_`: scales by max_norm / (norm + 1e-6) if that is below 1."""

    def update(updates, state, params=None):
        scale = jnp.minimum(1.0, max_norm / (optax.tree.norm(updates) + 1e-6))
        return jax.tree.map(lambda g: g * scale.astype(g.dtype), updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def build_optimizer(config: OptimConfig, total_steps: int) -> optax.GradientTransformation:
    """Clipping, then AdamW with decoupled weight decay on every parameter.

    Args:
      config: Its settings.
      total_steps: Steps of the whole run, over which the learning rate falls to 0.

    References:
      Loshchilov and Hutter, 2019 (AdamW). https://arxiv.org/abs/1711.05101
    """
    return optax.chain(
        clip_grad_norm(config.clip_norm),
        optax.adamw(
            lambda step: warmup_cosine(step, config, total_steps),
            b1=0.9,
            b2=0.999,
            eps=1e-8,
            weight_decay=config.weight_decay,
        ),
    )

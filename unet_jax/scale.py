"""Loss scaling for float16, whose gradients would underflow."""

import jax
import jax.numpy as jnp
from flax import struct

INITIAL, GROWTH, BACKOFF, INTERVAL = 2.0**16, 2.0, 0.5, 2000


class LossScale(struct.PyTreeNode):
    """A factor that falls when gradients overflow, and rises when they have not for long.

    Attributes:
      factor: float32 [], what the loss is multiplied by.
      finite_steps: int32 [], steps without overflow since it last changed.

    References:
      Micikevicius et al., 2018. https://arxiv.org/abs/1710.03740
      torch.amp.GradScaler, whose constants and rule these are.
    """

    factor: jax.Array
    finite_steps: jax.Array

    @classmethod
    def start(cls) -> "LossScale":
        return cls(jnp.asarray(INITIAL, jnp.float32), jnp.zeros((), jnp.int32))

    def update(self, finite: jax.Array) -> "LossScale":
        """The scale after a step whose gradients were all `finite`, or were not."""
        steps = jnp.where(finite, self.finite_steps + 1, 0)
        grows = steps == INTERVAL
        grown = self.factor * GROWTH
        grown = jnp.where(grows & jnp.isfinite(grown), grown, self.factor)
        factor = jnp.where(finite, grown, self.factor * BACKOFF)
        return LossScale(factor, jnp.where(grows, 0, steps))

"""What a training step takes, and gives back."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from unet_jax.scale import LossScale
from unet_jax.schedule import Plateau
from unet_jax.vectors import vectors


class TrainState(struct.PyTreeNode):
    """What a step takes and gives back: all that a resumed run needs.

    Attributes:
      step: int32 [], steps taken, skipped ones included.
      params: Parameters.
      batch_stats: Running statistics of the batch norms; empty without them.
      opt_state: The optimiser's, of `unet_jax.vectors`.
      plateau: The factor that validation has brought the learning rate to.
      skipped: int32 [], steps that changed no parameter, since something was not finite.
      skipped_in_row: int32 [], of these, the last ones without another between.
      ema: Exponential moving average of the parameters, which is what is evaluated; or None.
      scale: Of the loss, in float16; or None.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    plateau: Plateau
    skipped: jax.Array
    skipped_in_row: jax.Array
    ema: Any = None
    scale: LossScale | None = None

    @property
    def evaluated(self) -> Any:
        """The parameters that are validated and predicted with."""
        return self.params if self.ema is None else self.ema


def start_state(
    params: Any,
    batch_stats: Any,
    *,
    optimizer: optax.GradientTransformation,
    ema: bool = False,
    scaled: bool = False,
) -> TrainState:
    """The state before the first step.

    Args:
      params: The network's parameters.
      batch_stats: Its running statistics.
      optimizer: Its state is made for the vectors of `params`.
      ema: Whether an average of the parameters is kept.
      scaled: Whether the loss is scaled.
    """
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=batch_stats,
        opt_state=optimizer.init(vectors(params)),
        plateau=Plateau.start(),
        skipped=jnp.zeros((), jnp.int32),
        skipped_in_row=jnp.zeros((), jnp.int32),
        # A copy: a donated state must not hold one buffer twice.
        ema=jax.tree.map(jnp.copy, params) if ema else None,
        scale=LossScale.start() if scaled else None,
    )

"""What a config makes of a network: its steps, ready to be compiled."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from unet_jax.config import Config
from unet_jax.losses import Loss, build_loss
from unet_jax.models import UNet, build_model
from unet_jax.models.convolution import xla_alone
from unet_jax.models.platforms import cpu_alone
from unet_jax.optim import build_optimizer
from unet_jax.schedule import learning_rate
from unet_jax.state import TrainState, start_state
from unet_jax.step import eval_step, train_step
from unet_jax.threefry import key

DTYPES = {"float32": None, "bfloat16": jnp.bfloat16, "float16": jnp.float16}


class Recipe(NamedTuple):
    """A network and how it is trained.

    Attributes:
      model, loss, optimizer: Its parts.
      start: (params, batch_stats) -> the state before the first step.
      train: (state, batch) -> (state, metrics), as `unet_jax.step.train_step`.
      evaluate: (state, batch) -> (counts, predicted), as `unet_jax.step.eval_step`.
    """

    model: UNet
    loss: Loss
    optimizer: optax.GradientTransformation
    start: Callable[[Any, Any], TrainState]
    train: Callable[..., Any]
    evaluate: Callable[..., Any]

    def first(self, seed: int, size: tuple[int, int]) -> Callable[[], TrainState]:
        """Makes a state with fresh weights when it is called; can be traced, too."""
        # It runs once: optimising its code takes ten times as long as running it as it is.
        options = {"xla_backend_optimization_level": 0}
        return jax.jit(partial(self.init, key(seed), size), compiler_options=options)

    def init(self, key: jax.Array, size: tuple[int, int]) -> TrainState:
        """A state with fresh weights for images of this height and width."""
        one_device = self.model.clone(axis_name=None)
        # What layers compute is not used: no library need be got ready, and no GPU's part traced.
        with xla_alone(), cpu_alone():
            variables = one_device.init(key, jnp.zeros((1, *size, 3)))
        return self.start(variables["params"], variables.get("batch_stats", {}))


def build_recipe(
    config: Config,
    *,
    num_classes: int,
    classes: int,
    class_weights: tuple[float, ...] | None,
    steps_per_epoch: int,
    axis_name: str | None = None,
    remat: bool = False,
) -> Recipe:
    """Puts together what a config says.

    Args:
      config: The run's.
      num_classes: Channels of the logits.
      classes: Classes in the masks.
      class_weights: Of the loss; None: all the same.
      steps_per_epoch: Training steps.
      axis_name: Mapped axis of the devices, where steps are to sum over them by themselves.
      remat: Whether blocks are computed anew in the backward pass, which saves memory.
    """
    settings = config.train
    model = build_model(
        config.model,
        num_classes,
        dtype=DTYPES[settings.precision],
        axis_name=axis_name,
        remat=remat,
    )
    optimizer = build_optimizer(config.optim)
    loss = build_loss(config.loss, class_weights)
    shared = {
        "model": model,
        "loss": loss,
        "mean_std": (config.data.mean, config.data.std),
        "size": config.data.size,
        "axis_name": axis_name,
    }
    return Recipe(
        model=model,
        loss=loss,
        optimizer=optimizer,
        start=partial(
            start_state,
            optimizer=optimizer,
            ema=settings.ema_decay > 0,
            scaled=settings.precision == "float16",
        ),
        train=partial(
            train_step,
            optimizer=optimizer,
            learning_rate=partial(
                learning_rate,
                config=config.optim,
                total_steps=settings.epochs * steps_per_epoch,
                steps_per_epoch=steps_per_epoch,
            ),
            fill=config.augment.fill(classes),
            accumulate=settings.accumulate,
            # In a loop, XLA's convolutions take four times as long on a CPU; elsewhere it saves
            # memory.
            unroll=jax.default_backend() == "cpu",
            ema_decay=settings.ema_decay,
            **shared,
        ),
        evaluate=partial(eval_step, classes=classes, **shared),
    )

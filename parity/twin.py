"""The PyTorch twin of what a config describes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import torch
from torch import nn

from parity.convert import Variables, to_flax, to_torch
from unet_jax.config import Config
from unet_jax.recipe import Recipe, build_recipe
from unet_jax.state import TrainState
from unet_jax.weights import Trained
from unet_torch_ref.checkpoint import Checkpoints
from unet_torch_ref.learner import TorchLearner
from unet_torch_ref.losses import Loss
from unet_torch_ref.models import build_model


def build_twin(config: Config, num_classes: int, *, remat: bool = False) -> nn.Module:
    """The network, with PyTorch's initial weights, drawn from the config's seed.

    Args:
      config: The run's.
      num_classes: Channels of the logits.
      remat: Whether blocks are computed anew in the backward pass, which saves memory.
    """
    torch.manual_seed(config.train.seed)
    arguments: dict[str, Any] = config.model.arguments() | {"remat": remat}
    return build_model(config.model.architecture, num_classes=num_classes, **arguments)


def loaded_twin(trained: Trained, dtype: torch.dtype = torch.float32) -> nn.Module:
    """The twin of a trained network, with its weights and running statistics, set to evaluate.

    Args:
      trained: The network.
      dtype: Of all that is floating; counters keep theirs.

    Raises:
      ConversionError: Its variables are not those of its architecture.
    """
    model = trained.model
    twin = build_model(model.architecture, num_classes=trained.num_logits, **model.arguments()).to(
        dtype
    )
    state = to_torch(trained.variables, twin)
    twin.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
    return twin.eval()


def make_learner(
    config: Config,
    *,
    num_classes: int,
    classes: int,
    class_weights: tuple[float, ...] | None,
    steps_per_epoch: int,
    folder: Path,
    say: Callable[[str], object] = print,
    remat: bool = False,
    dtype: torch.dtype = torch.float32,
) -> TorchLearner:
    """The twin's learner.

    Args:
      config: The run's.
      num_classes: Channels of the logits.
      classes: Classes in the masks.
      class_weights: Of the loss; None: all the same.
      steps_per_epoch: Training steps.
      folder: Where checkpoints go.
      say: Told of each checkpoint that is damaged.
      remat: As `build_twin` has it.
      dtype: Of the parameters.
    """
    train, save, length = config.train, config.save, steps_per_epoch
    return TorchLearner(
        build_twin(config, num_classes, remat=remat).to(dtype),
        loss=Loss(**config.loss.arguments(class_weights)),
        optimizer=config.optim.optimizer_arguments(),
        schedule={
            **config.optim.schedule_arguments(),
            "total_steps": train.epochs * length,
            "steps_per_epoch": length,
        },
        clip_norm=config.optim.clip_norm,
        precision=train.precision,
        accumulate=train.accumulate,
        ema_decay=train.ema_decay,
        mean_std=(config.data.mean, config.data.std),
        fill=config.augment.fill(classes),
        size=config.data.size,
        classes=classes,
        checkpoints=Checkpoints(folder, save.best, lowest=save.lowest, keep=save.keep, say=say),
    )


def flax_variables(model: nn.Module) -> Variables:
    """The twin's weights and running statistics, copied into what Flax's model takes."""
    state = {
        name: value.detach().cpu().numpy().copy() for name, value in model.state_dict().items()
    }
    return jax.tree.map(jnp.asarray, to_flax(state, model))


def start_both(
    config: Config,
    *,
    classes: int,
    steps_per_epoch: int,
    class_weights: tuple[float, ...] | None = None,
    dtype: torch.dtype = torch.float64,
) -> tuple[Recipe, TrainState, TorchLearner]:
    """Both frameworks before the first step, with the same weights.

    Args:
      config: The run's.
      classes: Classes in the masks.
      steps_per_epoch: Training steps.
      class_weights: Of the loss; None: all the same.
      dtype: Of the parameters; JAX needs x64 for float64.
    """
    facts: dict[str, Any] = {
        "num_classes": 1 if classes == 2 else classes,
        "classes": classes,
        "class_weights": class_weights,
        "steps_per_epoch": steps_per_epoch,
    }
    twin = make_learner(config, folder=Path(), dtype=dtype, **facts)
    variables = flax_variables(twin.model)
    recipe = build_recipe(config, **facts)
    state = recipe.start(variables["params"], variables.get("batch_stats", {}))
    return recipe, state, twin

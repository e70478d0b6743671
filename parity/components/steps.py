"""Whole steps: micro-batches, averages, running statistics, and a scaled loss that overflows."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax.traverse_util import flatten_dict

import unet_jax.scale
from parity.convert import places
from parity.device import compiled_quickly
from parity.row import Row, count_row, relative_error
from parity.twin import flax_variables, start_both
from unet_jax.batch import IGNORED, Batch
from unet_jax.config import Config, DataConfig, LossConfig, ModelConfig, OptimConfig, TrainConfig
from unet_jax.recipe import Recipe
from unet_jax.state import TrainState
from unet_torch_ref.learner import TorchLearner

SIZE = (16, 16)
BATCH_NORM = ModelConfig(architecture="plain", channels=(4,), norm="batch")
GROUP_NORM = ModelConfig(architecture="plain", channels=(4,), norm="group", groups=2)
FLOAT64 = 1e-12
"""Relative, after five steps; measured: at most 4e-15."""
STEPS = 5


def make_config(
    model: ModelConfig = BATCH_NORM, loss: LossConfig | None = None, **train: Any
) -> Config:
    return Config(
        model=model,
        data=DataConfig(size=SIZE),
        loss=loss or LossConfig(),
        train=TrainConfig(**{"batch_size": 8, "epochs": 1, **train}),
    )


CONFIGS = {
    "4 micro-batches, average": make_config(accumulate=4, ema_decay=0.9),
    "2 micro-batches, several losses": make_config(
        GROUP_NORM, LossConfig(dice=1.0, focal=0.5), accumulate=2
    ),
    "Dice of the batch": make_config(GROUP_NORM, LossConfig(dice=1.0, reduction="batch")),
}


def make_batch(seed: int, count: int = 8) -> Batch:
    """Images with unequal numbers of ignored pixels; the last one is padding."""
    rng = np.random.default_rng(seed)
    mask = rng.integers(0, 2, (count, *SIZE), dtype=np.uint8)
    mask[rng.random(mask.shape) < rng.random((count, 1, 1))] = IGNORED
    image = rng.integers(0, 256, (count, *SIZE, 3), dtype=np.uint8)
    return Batch(image, mask, np.arange(count) < count - 1)


def start_training(
    config: Config, classes: int, steps: int, dtype: torch.dtype = torch.float64
) -> tuple[Recipe, TrainState, TorchLearner]:
    """Both frameworks before the first of `steps` steps; class weights, where wanted, are 1."""
    weights = None if config.loss.class_weights == "none" else (1.0,) * classes
    return start_both(
        config, classes=classes, steps_per_epoch=steps, class_weights=weights, dtype=dtype
    )


def compare_training(
    case: str, config: Config, classes: int, batches: Sequence[Batch], limit: float
) -> list[Row]:
    """Compares float64 steps, one on each batch, and what they leave behind.

    Args:
      case: What the rows are of.
      config: The network and how it is trained, in float32 as far as it says.
      classes: In the masks.
      batches: The same for both.
      limit: Relative error of each tensor.
    """
    recipe, state, twin = start_training(config, classes, len(batches))
    step, rows = jax.jit(recipe.train, compiler_options=compiled_quickly()), []

    def add(stage: str, quantity: str, ours: Any, theirs: Any) -> None:
        error = relative_error(np.asarray(ours), np.asarray(theirs))
        rows.append(Row(case, "float64", stage, quantity, error, limit))

    for n, batch in enumerate(batches, start=1):
        state, ours = step(state, batch)
        theirs = {name: float(value) for name, value in twin.train_step(batch).items()}
        for quantity in ("loss", "grad_norm", "learning_rate"):
            add(f"step {n}", quantity, ours[quantity], theirs[quantity])
    reference = flax_variables(twin.model)
    pairs = {
        f"parameters after {len(batches)} steps": (state.params, reference["params"]),
        f"statistics after {len(batches)} steps": (
            state.batch_stats,
            reference.get("batch_stats", {}),
        ),
    }
    if twin.ema is not None:
        pairs["EMA"] = state.ema, flax_variables(twin.ema.module)["params"]
    for stage, trees in pairs.items():
        a, b = (flatten_dict(dict(tree)) for tree in trees)
        for place in places(twin.model):  # In the order in which layers run.
            path = place.path[1:]
            if path in b:
                add(stage, "/".join(path), a[path], b[path])
    return rows


def compare_steps(name: str) -> list[Row]:
    """Compares five steps.

    Args:
      name: Of `CONFIGS`.
    """
    batches = [make_batch(seed) for seed in range(STEPS)]
    return compare_training(f"steps: {name}", CONFIGS[name], 2, batches, FLOAT64)


def compare_loss_scale() -> list[Row]:
    """Compares the scale with `GradScaler`'s: three overflows in a row, a lone one, and growing."""
    interval = 2000  # PyTorch's; not the constant that is compared.
    overflows = {0, 1, 2, 500, *range(4700, 4703)}
    steps = range(2 * interval + 800)
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer, scaler = torch.optim.SGD([weight], 0.0), torch.amp.GradScaler("cpu")
    theirs = []
    for n in steps:
        weight.grad = torch.full((1,), np.inf if n in overflows else 1.0)
        scaler.scale(torch.ones(()))  # Which makes its state.
        scaler.step(optimizer)
        scaler.update()
        theirs.append(scaler.get_scale())

    def update(scale: unet_jax.scale.LossScale, finite: jax.Array) -> tuple[Any, jax.Array]:
        scale = scale.update(finite)
        return scale, scale.factor

    finite = jnp.asarray([n not in overflows for n in steps])
    _, ours = jax.lax.scan(update, unet_jax.scale.LossScale.start(), finite)
    return [count_row("steps", "loss scale", "of every step", np.asarray(ours), np.array(theirs))]


def compare_overflows() -> list[Row]:
    """Compares which float16 steps are skipped, of a loss so heavy that gradients overflow."""
    config = make_config(GROUP_NORM, LossConfig(cross_entropy=2.0**12), precision="float16")
    config = replace(config, optim=OptimConfig(learning_rate=1e-4))
    recipe, state, twin = start_both(config, classes=2, steps_per_epoch=20, dtype=torch.float32)
    step, ours, theirs = jax.jit(recipe.train), [], []
    for _ in range(20):
        state, metrics = step(state, make_batch(0))
        reference = twin.train_step(make_batch(0))
        ours.append((float(metrics["scale"]), int(metrics["skipped_in_row"])))
        theirs.append((reference["scale"], reference["skipped_in_row"]))
    row = count_row("steps", "loss scale", "steps that overflow", np.array(ours), np.array(theirs))
    return [row._replace(precision="float16")]

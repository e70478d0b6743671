"""Every preset's recipe: its network, narrow, trained for a few steps by all that its file says."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax.traverse_util import flatten_dict

from parity.components.steps import compare_training, start_training
from parity.convert import to_flax
from parity.device import compiled_quickly, torch_device
from parity.reduced import reduce
from parity.row import Row, relative_error
from parity.tolerances import FLOAT32
from unet_jax.batch import IGNORED, Batch
from unet_jax.config import Config
from unet_jax.draws import draw
from unet_jax.gradients import loss_and_grads
from unet_torch_ref.batch import to_tensors
from unet_torch_ref.losses import Loss as TorchLoss
from unet_torch_ref.step import accumulate_gradients

STEPS = 3
STRICT = 1e-11
"""Relative, in float64, after three steps: 1e-12 each, and Adam's first steps divide gradients by
their own size, however small."""
STAGES = 2
"""Of the network; every further one is more of the same, and takes seconds to compile."""
SCALE = 2.0**10
"""Of float16's loss here, where one gradient is looked at and none is to overflow."""
CLASSES = {"ade20k": 150, "camvid": 11, "shapes": 6, "folder": 3}


def class_count(config: Config) -> int:
    """Classes in the masks; those of data that is not here, as it is published."""
    return 2 if config.data.binary else CLASSES.get(config.data.dataset, 2)


def random_batch(config: Config, classes: int, seed: int) -> Batch:
    """Noise, augmented as the config says; a tenth is ignored."""
    rng, size = np.random.default_rng(seed), config.data.prepared_size
    count = config.train.batch_size
    image = rng.integers(0, 256, (count, *size, 3), np.uint8)
    mask = rng.integers(0, classes, (count, *size), np.uint8)
    mask[rng.random(mask.shape) < 0.1] = IGNORED
    where = {"seed": seed, "epoch": 0, "size": config.data.size, "native": (300, 200)}
    drawn = [draw(config.augment, index=n, stored=size, **where) for n in range(count)]
    geometry, colour = (np.stack(column) for column in zip(*drawn, strict=True))
    border = rng.integers(0, 256, mask.shape, np.uint8) if config.loss.border else None
    return Batch(image, mask, np.ones(count, bool), geometry, colour, border)


def compare_recipe(name: str, config: Config) -> list[Row]:
    """Compares three float64 steps; and the first gradient in the recipe's own precision.

    Args:
      name: The preset's.
      config: Its settings.
    """
    config = reduce(config, stages=STAGES)
    classes = class_count(config)
    batches = [random_batch(config, classes, seed) for seed in range(STEPS)]
    case = f"preset: {name}"
    steps = compare_training(case, _exact(config), classes, batches, STRICT)
    return [*steps, _compare_gradients(case, config, classes, batches[0])]


def _exact(config: Config) -> Config:
    """The config without half precision, to be computed in float64."""
    return replace(config, train=replace(config.train, precision="float32"))


def _compare_gradients(case: str, config: Config, classes: int, batch: Batch) -> Row:
    """The distance to float64's gradient, of all parameters together.

    Of one alone, whose gradient nearly cancels, PyTorch's may be all rounding.
    """
    truth = _torch_gradients(_exact(config), classes, batch, torch.float64)
    precision, accumulate = config.train.precision, config.train.accumulate
    recipe, state, twin = start_training(config, classes, STEPS, torch.float32)
    scale = jnp.asarray(SCALE, jnp.float32) if precision == "float16" else None

    @partial(jax.jit, compiler_options=compiled_quickly())
    def gradients(params: Any, batch_stats: Any, batch: Batch) -> Any:
        return loss_and_grads(
            recipe.model,
            recipe.loss,
            params,
            batch_stats,
            batch,
            mean_std=(config.data.mean, config.data.std),
            fill=twin.fill,
            size=twin.size,
            accumulate=accumulate,
            scale=scale,
        ).grads

    found = gradients(state.params, state.batch_stats, batch)
    ours = {path: np.asarray(leaf) for path, leaf in flatten_dict(found, sep="/").items()}
    theirs = _torch_gradients(config, classes, batch, torch.float32)
    a, b, right = (
        np.concatenate([side[path].ravel() for path in truth]) for side in (ours, theirs, truth)
    )
    limit = FLOAT32 * relative_error(b, right)
    return Row(case, precision, "step 1", "gradients", relative_error(a, right), limit)


def _torch_gradients(
    config: Config, classes: int, batch: Batch, dtype: torch.dtype
) -> dict[str, np.ndarray]:
    _, _, twin = start_training(config, classes, STEPS, dtype)
    half = config.train.precision == "float16"
    # A factor of all terms does what a scale does.
    scale = SCALE if half else 1.0
    terms = ("cross_entropy", "dice", "tversky", "focal", "lovasz")
    fields = vars(twin.loss) | {term: scale * getattr(twin.loss, term) for term in terms}
    accumulate_gradients(
        twin.model.train(),
        TorchLoss(**fields),
        to_tensors(batch, torch_device()),
        mean_std=twin.mean_std,
        fill=twin.fill,
        size=twin.size,
        accumulate=twin.accumulate,
        dtype=twin.dtype,
    )
    named = dict(twin.model.named_parameters())
    state = {n: v.detach().cpu().numpy() for n, v in twin.model.state_dict().items()}
    state |= {n: p.grad.cpu().numpy() / scale for n, p in named.items() if p.grad is not None}
    flat: Any = flatten_dict(to_flax(state, twin.model)["params"], sep="/")
    return flat

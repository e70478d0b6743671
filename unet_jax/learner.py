"""The JAX side of a run: compiled steps, their state, and its checkpoints."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np

from unet_jax.batch import Batch
from unet_jax.cache import Fetch
from unet_jax.checkpoint import Checkpoints
from unet_jax.config import Config
from unet_jax.entries import leaves
from unet_jax.memory import free_device_memory
from unet_jax.parallel import Jit, Parallel, named
from unet_jax.recipe import build_recipe
from unet_jax.schedule import Plateau

T = TypeVar("T")


class JaxLearner:
    """Trains the Flax network; see `unet_jax.framework.Learner`."""

    framework = "jax"

    def __init__(
        self,
        config: Config,
        *,
        num_classes: int,
        classes: int,
        class_weights: tuple[float, ...] | None,
        steps_per_epoch: int,
        folder: Path,
        say: Callable[[str], object] = print,
        parallel: Parallel | None = None,
        remat: bool = False,
    ) -> None:
        """Args:
        config: The run's.
        num_classes: Channels of the logits.
        classes: Classes in the masks.
        class_weights: Of the loss; None: all the same.
        steps_per_epoch: Training steps.
        folder: Where checkpoints go.
        say: Told of each checkpoint that is damaged.
        parallel: Which devices; by default one.
        remat: Whether blocks are computed anew in the backward pass, which saves memory.
        """
        self.parallel = parallel or Jit()
        recipe = build_recipe(
            config,
            num_classes=num_classes,
            classes=classes,
            class_weights=class_weights,
            steps_per_epoch=steps_per_epoch,
            axis_name=self.parallel.axis_name,
            remat=remat,
        )
        self._loss = recipe.loss
        self._train = self.parallel.train(recipe.train)
        self._eval = self.parallel.evaluate(recipe.evaluate)
        self.state = self.parallel.replicate(recipe.first(config.train.seed, config.data.size)())
        waits = config.optim.schedule == "plateau"
        self._plateau = jax.jit(partial(Plateau.update, config=config.optim)) if waits else None
        save = config.save
        self.checkpoints = Checkpoints(
            folder, save.best, lowest=save.lowest, keep=save.keep, say=say
        )

    @property
    def step(self) -> int:
        return int(self.state.step)

    @property
    def skipped(self) -> int:
        return int(self.state.skipped)

    @property
    def parameters(self) -> int:
        return sum(leaf.size for leaf in jax.tree.leaves(self.state.params))

    def weights(self) -> dict[str, np.ndarray]:
        return leaves(jax.device_get(self.state.params))

    @property
    def device(self) -> str:
        return f"{jax.devices()[0].platform}: {named(self.parallel.devices)}"

    @property
    def free_memory(self) -> int | None:
        return free_device_memory()

    def hold(self, *arrays: np.ndarray) -> Fetch:
        return partial(self.parallel.take, self.parallel.replicate(arrays))

    def train_step(self, batch: Batch) -> Mapping[str, Any]:
        self.state, metrics = self._train(self.state, self.parallel.divide(batch))
        return metrics

    def eval_step(self, batch: Batch) -> tuple[Mapping[str, Any], Any]:
        return self._eval(self.state, self.parallel.divide(batch))

    def read(self, values: T) -> T:
        return jax.device_get(values)

    def total(self, sums: Any) -> float:
        return float(self._loss.total(sums))

    def validated(self, metrics: Mapping[str, float]) -> None:
        if self._plateau is not None:
            plateau = self._plateau(self.state.plateau, metrics["dice"])
            self.state = self.state.replace(plateau=plateau)

    def save(self, position: Mapping[str, Any], metrics: Mapping[str, float] | None) -> None:
        self.checkpoints.save(self.state, position, metrics)

    def restore(self) -> dict[str, Any] | None:
        restored = self.checkpoints.restore(self.state)
        if restored is None:
            return None
        self.state, position = restored
        return position

    def close(self) -> None:
        self.checkpoints.close()

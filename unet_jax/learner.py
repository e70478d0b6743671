"""The JAX side of a run: compiled steps, their state, and its checkpoints."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from unet_jax.batch import Batch
from unet_jax.cache import Fetch
from unet_jax.checkpoint import Checkpoints
from unet_jax.config import Config
from unet_jax.models import build_model
from unet_jax.optim import build_optimizer
from unet_jax.step import eval_step, init_state, train_step


class JaxLearner:
    """Trains the Flax network, one jitted step at a time; see `unet_jax.loop.Learner`."""

    framework = "jax"

    def __init__(
        self, config: Config, *, num_classes: int, classes: int, total_steps: int, folder: Path
    ) -> None:
        """Args:
        config: The run's.
        num_classes: Channels of the logits.
        classes: Classes in the masks.
        total_steps: Steps of the whole run.
        folder: Where checkpoints go.
        """
        mean_std = (config.data.mean, config.data.std)
        model = build_model(config.model, num_classes)
        optimizer = build_optimizer(config.optim, total_steps)
        # It runs once: optimising its code takes ten times as long as running it as it is.
        init = jax.jit(
            partial(init_state, model, optimizer, (*config.data.size, 3)),
            compiler_options={"xla_backend_optimization_level": 0},
        )
        self.state = init(jax.random.key(config.train.seed))
        self.checkpoints = Checkpoints(folder, metric="dice")
        self._train = jax.jit(
            partial(
                train_step,
                model=model,
                optimizer=optimizer,
                mean_std=mean_std,
                fill=config.augment.fill(classes),
            ),
            donate_argnums=0,
        )
        self._eval = jax.jit(partial(eval_step, model=model, mean_std=mean_std, classes=classes))

    @property
    def step(self) -> int:
        return int(self.state.step)

    @property
    def parameters(self) -> int:
        return sum(leaf.size for leaf in jax.tree.leaves(self.state.params))

    @property
    def device(self) -> str:
        device = jax.devices()[0]
        return f"{device.platform}: {device.device_kind}"

    @property
    def free_memory(self) -> int | None:
        stats = jax.local_devices()[0].memory_stats()
        return stats and stats["bytes_limit"] - stats["bytes_in_use"]

    def hold(self, image: np.ndarray, mask: np.ndarray) -> Fetch:
        held = jax.device_put((image, mask))
        take = jax.jit(lambda held, index: jax.tree.map(lambda array: array[index], held))
        return partial(take, held)

    def train_step(self, batch: Batch) -> Mapping[str, Any]:
        self.state, metrics = self._train(self.state, batch)
        return metrics

    def eval_step(self, batch: Batch) -> tuple[Mapping[str, Any], Any]:
        return self._eval(self.state, batch)

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

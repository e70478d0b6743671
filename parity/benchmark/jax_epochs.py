"""JAX' training as it is run: batches from prepared records, and steps."""

from collections.abc import Iterator
from itertools import chain, count
from pathlib import Path

import jax
import numpy as np

from parity.benchmark.contender import Contender
from parity.benchmark.jax_contestant import JaxContestant
from parity.benchmark.task import Task
from unet_jax.batch import Batch
from unet_jax.datasets import open_dataset
from unet_jax.learner import JaxLearner
from unet_jax.pipeline import Pipeline
from unet_jax.train import settle


class JaxEpochs(JaxContestant):
    """Whole epochs, without validation; a sample is one."""

    def __init__(self, task: Task, contender: Contender, *, held: bool) -> None:
        """Args:
        task: What is to be run.
        contender: How.
        held: Whether the set lies in memory, where `data.cache` says; else it is read anew.

        Raises:
          ValueError: There is no room for it.
        """
        super().__init__(task, contender)
        config = self.config
        pipeline = Pipeline.of(config, open_dataset(config.data))
        self.steps = pipeline.steps
        self._learner = JaxLearner(
            config,
            num_classes=task.num_classes,
            classes=task.classes,
            class_weights=task.class_weights,
            steps_per_epoch=1,
            folder=Path(task.folder, "checkpoints"),  # Nothing is saved.
            parallel=self.parallel,
        )
        self._learner.state = self.started()
        place = settle(pipeline, self._learner, config.data.cache if held else "none", 1, iter)
        if held and place == "none":
            raise ValueError("data.cache: none, or no room for the set in memory")
        self._batches: Iterator[Batch] = chain.from_iterable(map(pipeline.train, count()))

    def step(self) -> None:
        self.follow(self._learner.train_step(next(self._batches)))

    def wait(self) -> None:
        jax.block_until_ready((self._learner.state, self.metrics))

    def outcome(self) -> np.ndarray:
        return np.asarray(self.metrics["loss"])

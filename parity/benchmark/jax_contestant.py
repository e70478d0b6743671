"""JAX as it trains and predicts here."""

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict
from jax.stages import Compiled

from parity.benchmark import memory
from parity.benchmark.contender import Contender
from parity.benchmark.contestant import WHOLE_SAMPLE, Contestant
from parity.benchmark.task import BATCH, JAX, SAMPLED, Task
from unet_jax.augment import normalise
from unet_jax.batch import Batch
from unet_jax.metrics import predict_classes
from unet_jax.models.platforms import for_default_device
from unet_jax.onednn.cores import share_cores
from unet_jax.onednn.library import SWITCH
from unet_jax.parallel import Mode, choose
from unet_jax.recipe import build_recipe
from unet_jax.state import TrainState


class JaxContestant(Contestant):
    """What training and inference share: devices, network, batch, memory.

    Attributes:
      trained: Whether there is a backward pass.
      metrics: The last training step's.
    """

    least = WHOLE_SAMPLE
    trained = True
    metrics: Any = None

    def __init__(self, task: Task, contender: Contender) -> None:
        """Args:
        task: What is to be run.
        contender: How.

        Raises:
          ValueError: JAX computes elsewhere than PyTorch does.
        """
        os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # Others want memory, too.
        jax.config.update("jax_enable_compilation_cache", False)  # The time to compile is shown.
        fast = contender.precision == "tf32"
        jax.config.update("jax_default_matmul_precision", "tensorfloat32" if fast else "highest")
        if contender.how == "jit, XLA alone":
            os.environ[SWITCH] = "0"
        half = contender.precision in ("bfloat16", "float16")
        precision = contender.precision if half else "float32"
        share_cores(task.config.largest_layer, precision, trained=self.trained)
        backend, expected = jax.default_backend(), "gpu" if task.gpu else "cpu"
        if backend != expected:
            raise ValueError(f"JAX computes on {backend}, PyTorch on {expected}")
        mode: Mode = "pmap" if contender.how == "pmap" else "jit"
        self.parallel = choose(mode, task.config)
        self._before = memory.resident()
        train = replace(task.config.train, precision=precision)
        self.config = replace(task.config, train=train)
        self.recipe = build_recipe(
            self.config,
            num_classes=task.num_classes,
            classes=task.classes,
            class_weights=task.class_weights,
            steps_per_epoch=1,
            axis_name=self.parallel.axis_name,
        )
        weights: Mapping[str, Any] = unflatten_dict(task.load(JAX), sep="/")
        self.variables = {name: weights.get(name, {}) for name in ("params", "batch_stats")}
        self.batch = Batch(**task.load(BATCH))

    def started(self) -> TrainState:
        """The state before the first step, on all devices, in place of the host's variables."""
        given, self.variables = self.variables, {}
        start = jax.jit(self.recipe.start)
        return self.parallel.replicate(start(given["params"], given["batch_stats"]))

    def placed(self, arrays: Any) -> Any:
        """Arrays on the devices, divided by their first axis."""
        if self.parallel.axis_name is None:
            return jax.device_put(arrays)
        return jax.pmap(lambda x: x)(self.parallel.divide(arrays))

    def follow(self, metrics: Any) -> None:
        """Waits for the step before the one whose metrics these are, as training does.

        XLA hangs where 32 steps of several devices of a CPU are under way: one more takes the
        thread that the first needs to be done on all of them.
        """
        jax.block_until_ready(self.metrics)
        self.metrics = metrics

    def program(self) -> Compiled | None:
        """What a step runs, once it has run; None: it is not at hand."""
        return None

    def peak(self) -> int | None:
        """On a GPU what is held between steps, and what the program takes beside that.

        JAX' own counter cannot forget what compilation took; it is asked where there is no program.
        """
        stats, program = jax.local_devices()[0].memory_stats(), self.program()
        if stats and program:
            return stats["bytes_in_use"] + taken(program)
        if stats:
            return stats["peak_bytes_in_use"]
        most = memory.peak()
        return None if most is None else most - self._before

    def room(self) -> tuple[int, int]:
        stats = jax.local_devices()[0].memory_stats()
        if stats:
            held = stats.get("pool_bytes", stats["peak_bytes_in_use"])
            return held, stats["bytes_limit"] - stats["bytes_in_use"]
        return super().room()


def taken(program: Compiled) -> int:
    """Bytes that a program takes as it runs, beside its arguments, by XLA's account."""
    sizes = program.memory_analysis()
    assert sizes is not None
    return sizes.temp_size_in_bytes + sizes.output_size_in_bytes - sizes.alias_size_in_bytes


class JaxTraining(JaxContestant):
    """Whole training steps, by the code that training runs."""

    def __init__(self, task: Task, contender: Contender) -> None:
        super().__init__(task, contender)
        self.state = self.started()
        self._step = self.parallel.train(self.recipe.train)
        self.batch = self.placed(self.batch)

    def step(self) -> None:
        self.state, metrics = self._step(self.state, self.batch)
        self.follow(metrics)

    def program(self) -> Compiled:
        return self._step.lower(self.state, self.batch).compile()

    def wait(self) -> None:
        jax.block_until_ready((self.state, self.metrics))

    def outcome(self) -> np.ndarray:
        return np.asarray(self.metrics["loss"])


class JaxInference(JaxContestant):
    """From uint8 images to class ids."""

    trained = False

    def __init__(self, task: Task, contender: Contender) -> None:
        super().__init__(task, contender)
        data = task.config.data
        self._mean_std, (height, width) = (data.mean, data.std), data.size
        image = np.ascontiguousarray(self.batch.image[:, :height, :width])
        self.variables = self.parallel.replicate(self.variables)
        predict = for_default_device(self.predict)
        if self.parallel.axis_name is None:
            self._predict = jax.jit(predict)
        else:
            self._predict = jax.pmap(predict, self.parallel.axis_name, in_axes=(None, 0))
        self._image = self.placed(image)

    def predict(self, variables: Any, image: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Class ids [B, H, W], and some of the logits."""
        normal = normalise(image, self._mean_std, jnp.float32)
        logits = self.recipe.model.apply(variables, normal)
        assert isinstance(logits, jax.Array)
        return predict_classes(logits), logits[0, ::SAMPLED, ::SAMPLED]

    def step(self) -> None:
        self.last = self._predict(self.variables, self._image)

    def program(self) -> Compiled:
        return self._predict.lower(self.variables, self._image).compile()

    def wait(self) -> None:
        jax.block_until_ready(self.last)

    def outcome(self) -> np.ndarray:
        logits = np.asarray(self.last[1])
        return logits if self.parallel.axis_name is None else logits[0]

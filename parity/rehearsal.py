"""What is said of the PyTorch twin before it is trained."""

from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from rich.table import Table
from torch import Tensor

from parity.twin import build_twin, make_learner
from unet_jax.config import Config
from unet_jax.describe import Layer, Network
from unet_jax.host_memory import free_host_memory
from unet_jax.rehearsal import Rehearsal, random_batch, rehearsal_table, time_steps
from unet_torch_ref.cost import cost
from unet_torch_ref.describe import layers


def describe(config: Config, num_classes: int) -> Network:
    """The twin's layers; as `unet_jax.describe.describe`."""
    with torch.device("meta"):
        model = build_twin(config, num_classes)
    found = layers(model, config.batch_size, config.data.size)
    parameters = {name: tuple(p.shape) for name, p in model.named_parameters()}
    return Network(type(model).__name__, [Layer(*layer) for layer in found], parameters)


def rehearse_training(config: Config, num_classes: int, *, remat: bool = False) -> Table:
    """Takes a few steps of the twin; as `unet_jax.rehearsal.rehearse_training`."""
    classes = max(num_classes, 2)
    with TemporaryDirectory() as folder:  # Nothing is saved.
        learner = make_learner(
            config,
            num_classes=num_classes,
            classes=classes,
            class_weights=None if config.loss.class_weights == "none" else (1.0,) * classes,
            steps_per_epoch=1000,  # More than are taken: schedules have an end.
            folder=Path(folder),
            remat=remat,
        )
    batch, free = random_batch(config, classes), learner.free_memory
    free = free_host_memory() if free is None else free

    def step() -> None:
        float(learner.train_step(batch)["loss"])

    step()  # The first one allocates what the optimiser keeps.
    counted = cost(step)
    parameters = list(learner.model.parameters())
    kept = [x for state in learner.optimizer.state.values() for x in state.values()]
    average = [] if learner.ema is None else [*learner.ema.parameters(), *learner.ema.buffers()]
    result = Rehearsal(
        flops=counted.flops,
        parameter_bytes=_bytes(parameters),
        state_bytes=_bytes([*parameters, *learner.model.buffers(), *kept, *average]),
        activation_bytes=counted.bytes,
        free_bytes=free,
        speed=time_steps(step, config.batch_size),
    )
    return rehearsal_table(result, config, learner.device.partition(": ")[2], remat=remat)


def _bytes(values: Iterable[object]) -> int:
    return sum(value.nbytes for value in values if isinstance(value, Tensor))

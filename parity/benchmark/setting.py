"""Makes what all contenders are given."""

from pathlib import Path
from typing import Any

import torch
from flax.traverse_util import flatten_dict

from parity.benchmark.task import Task, steady
from parity.convert import to_flax
from parity.twin import build_twin
from unet_jax.config import Config
from unet_jax.rehearsal import random_batch


def set_up(
    config: Config, batch_size: int, classes: int, folder: Path, devices: int, workers: int
) -> Task:
    """Writes the twin's first weights, in both frameworks' form, and a random batch.

    Args:
      config: Of the network, the batch, and the seed.
      batch_size: Images a step.
      classes: Classes in the masks.
      folder: Where to; empty.
      devices: How many there are.
      workers: Processes of PyTorch's loader.

    Raises:
      ValueError: The batch size does not go with the config.
    """
    config = steady(config, batch_size)
    task = Task(config, classes, folder, torch.cuda.is_available(), devices, workers)
    model = build_twin(config, task.num_classes)
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    batch = random_batch(config, classes)._asdict()
    weights: dict[str, Any] = dict(flatten_dict(to_flax(state, model), sep="/"))
    task.save(
        {name: array for name, array in batch.items() if array is not None},
        state,
        weights,
    )
    return task

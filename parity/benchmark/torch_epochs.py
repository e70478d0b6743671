"""PyTorch's training from the same prepared records, by its own `DataLoader`."""

from collections.abc import Iterator, Mapping
from itertools import chain, count
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from parity.benchmark.contender import Contender
from parity.benchmark.task import Task
from parity.benchmark.torch_contestant import TorchTraining
from unet_jax.border import border_map
from unet_jax.config import Config
from unet_jax.datasets import IGNORED, open_dataset
from unet_jax.draws import draw, geometric, photometric
from unet_jax.pipeline import Pipeline
from unet_torch_ref.batch import Batch

Key = tuple[int, int]
"""An epoch, and a sample's place in the set."""


class Records(Dataset[dict[str, Any]]):
    """Prepared samples, and how each is augmented; opened anew in each process."""

    def __init__(self, config: Config) -> None:
        """Args:
        config: Its data and augmentation.
        """
        self._config = config
        self._opened: Any = None

    def __getitem__(self, key: Key) -> dict[str, Any]:
        epoch, index = key
        config, data = self._config, self._config.data
        if self._opened is None:
            builder = open_dataset(data)
            self._opened = builder.records(), builder.facts.native
        records, native = self._opened
        record = records[index]
        image, mask = np.array(record["image"]), np.array(record["mask"])
        if data.binary:
            np.copyto(mask, 1, where=(mask > 0) & (mask != IGNORED))
        sample = {"image": image, "mask": mask, "valid": np.bool_(True)}
        moved = geometric(config.augment) or data.prepared_size != data.size
        coloured = photometric(config.augment)
        if moved or coloured:
            drawn = draw(
                config.augment,
                seed=config.train.seed,
                epoch=epoch,
                index=index,
                size=data.size,
                native=native[index],
                stored=data.prepared_size,
            )
            sample |= {"geometry": drawn.geometry} if moved else {}
            sample |= {"colour": drawn.colour} if coloured else {}
        if config.loss.border is not None:
            sample["border"] = border_map(mask, config.loss.border)
        return sample


class Order:
    """The batches of all epochs, as `Pipeline` has them: both frameworks train on the same."""

    def __init__(self, pipeline: Pipeline) -> None:
        """Args:
        pipeline: Of the same config.
        """
        places = {name: place for place, name in enumerate(pipeline.names)}
        self._batches = (
            [(epoch, places[name]) for name in pipeline.samples(epoch, batch)]
            for epoch in count()
            for batch in range(pipeline.steps)
        )

    def __iter__(self) -> Iterator[list[Key]]:
        return self._batches


class TorchEpochs(TorchTraining):
    """Whole epochs, without validation; a sample is one."""

    def __init__(self, task: Task, contender: Contender) -> None:
        super().__init__(task, contender)
        config = task.config
        pipeline = Pipeline.of(config, open_dataset(config.data))
        self.steps = pipeline.steps
        loader = DataLoader(
            Records(config),
            batch_sampler=Order(pipeline),  # type: ignore[arg-type]
            num_workers=task.workers,
            pin_memory=task.gpu,
            # Forking a process in which others run threads can deadlock.
            multiprocessing_context="spawn" if task.workers else None,
        )
        batches = iter(loader)
        # The first one waits for processes to start, which is no part of a step.
        self._batches: Iterator[Mapping[str, Tensor]] = chain([next(batches)], batches)

    def step(self) -> None:
        tensors: dict[str, Any] = {
            name: value.to(self.device, non_blocking=True)
            for name, value in next(self._batches).items()
        }
        self.batch = Batch(**tensors)
        super().step()

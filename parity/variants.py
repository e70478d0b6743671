"""PyTorch's training against itself: the same on paper, added up in another order."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from parity.training import Training, make_twin, train_twin
from unet_jax.batch import Batch
from unet_jax.config import Config

CONVOLUTIONS: dict[Callable[..., Any], tuple[int, int]] = {
    F.conv2d: (0, 1),
    F.conv_transpose2d: (1, 0),
}
"""The axes of a kernel that are output and input channels."""


class ReorderedSums(TorchFunctionMode):
    """While it is on, convolutions add up their channels in random orders.

    Forward the input channels, backward the output channels: both are permuted before a
    convolution and put back after it, the same ones for all layers of as many channels.

    Args:
      seed: Of the orders.
    """

    def __init__(self, seed: int):
        super().__init__()
        self.seed = seed

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> torch.Tensor:
        call = partial(self._convolve, func) if func in CONVOLUTIONS else func
        return call(*args, **(kwargs or {}))

    def _convolve(
        self,
        convolve: Callable[..., torch.Tensor],
        x: torch.Tensor,
        kernel: torch.Tensor,
        bias: torch.Tensor | None = None,
        *rest: Any,
        **options: Any,
    ) -> torch.Tensor:
        rows, columns = CONVOLUTIONS[convolve]
        inner, outer = self._order(kernel.shape[columns]), self._order(kernel.shape[rows])
        kernel = _permute(_permute(kernel, columns, inner), rows, outer)
        bias = None if bias is None else _permute(bias, 0, outer)
        out = convolve(_permute(x, 1, inner), kernel, bias, *rest, **options)
        return _permute(out, 1, torch.argsort(outer))

    def _order(self, channels: int) -> torch.Tensor:
        return torch.from_numpy(np.random.default_rng((self.seed, channels)).permutation(channels))


def _permute(x: torch.Tensor, axis: int, order: torch.Tensor) -> torch.Tensor:
    """In the memory format that it had, which decides on the convolution's algorithm."""
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    memory = torch.channels_last if last else torch.contiguous_format
    return x.index_select(axis, order.to(x.device)).contiguous(memory_format=memory)


def train_variants(
    config: Config, batches: Sequence[Batch], classes: Sequence[str]
) -> dict[str, Training]:
    """PyTorch's training again and again, each time adding up in another order.

    All combinations of: the batch whole, or summed as two micro-batches where no batch norm mixes
    its images; channels last in memory or first, which other kernels serve; one thread or two. In
    each the images of a batch, and the channels that convolutions sum over, have random orders of
    their own. On paper none of this changes anything.

    Args:
      config: As `parity.trajectory.train_both` has it; in float32, or what the config says.
      batches: The same for all.
      classes: Names of the classes in the masks.
    """
    train, rng = config.train, np.random.default_rng(0)
    divisible = config.model.norm != "batch" and train.accumulate == 1
    parts = (1, 2) if divisible else (train.accumulate,)
    layouts = (torch.channels_last, torch.contiguous_format)
    variants, threads = {}, torch.get_num_threads()
    try:
        for accumulate, layout, used in product(parts, layouts, (1, 2)):
            settings = dataclasses.replace(train, epochs=1, accumulate=accumulate)
            once = dataclasses.replace(config, train=settings)
            twin = make_twin(once, classes, len(batches))
            twin.model.to(memory_format=layout)
            torch.set_num_threads(used)
            places = rng.permutation(len(batches[0].valid))
            memory = str(layout).removeprefix("torch.")
            name = f"order {places.tolist()}, micro-batches {accumulate}, {memory}, threads {used}"
            with ReorderedSums(seed=len(variants)):
                variants[name] = train_twin(twin, batches, partial(_reorder, places))
    finally:
        torch.set_num_threads(threads)
    return variants


def _reorder(places: np.ndarray, batch: Batch) -> Batch:
    fields = {name: None if x is None else x[places] for name, x in batch._asdict().items()}
    return batch._replace(**fields)

"""The least time that a network's convolutions can take on a device.

Norms, activations and whatever else lies between two convolutions are taken to cost nothing, so no
network reaches it.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from parity.benchmark.contender import Precision
from parity.benchmark.convolution import Convolution
from parity.twin import build_twin
from unet_jax.config import Config

TRAINING = 3
"""Convolutions of a training step for each of a forward pass: itself and its two gradients."""


class Peaks(NamedTuple):
    """What a device can do.

    Attributes:
      flops: Multiply-adds a second, counted twice, by precision.
      bandwidth: Bytes a second, read or written.
      source: Where the numbers come from.
    """

    flops: Mapping[Precision, float]
    bandwidth: float
    source: str


def convolutions(config: Config, num_classes: int) -> list[Convolution]:
    """Those of a forward pass over a batch, in order; nothing is computed."""
    with torch.device("meta"):
        model = build_twin(config, num_classes)
    found: list[Convolution] = []

    def note(module: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        batch, channels, height, width = inputs[0].shape
        kind = "conv" if isinstance(module, nn.Conv2d) else "up_conv"
        [size, stride] = module.kernel_size[0], module.stride[0]
        shape = (batch, height, width, channels)
        found.append(Convolution(kind, size, stride, *shape, module.out_channels))

    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.register_forward_hook(note)
    with torch.no_grad():
        images = torch.empty(config.train.batch_size, 3, *config.data.size, device="meta")
        model.eval()(images)
    return found


def bound(layers: Iterable[Convolution], precision: Precision, peaks: Peaks) -> float:
    """Seconds of a forward pass: each layer is held up by arithmetic or by memory."""
    size = 2 if precision in ("bfloat16", "float16") else 4
    return sum(
        max(layer.flops / peaks.flops[precision], size * layer.values / peaks.bandwidth)
        for layer in layers
    )

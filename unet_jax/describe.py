"""What is said of a network and its training before they run."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from rich.console import RenderableType
from rich.table import Table

from unet_jax.config import Config, ModelConfig, OptimConfig
from unet_jax.entries import leaves
from unet_jax.models import build_model
from unet_jax.models.layers import Conv, UpConv


class Layer(NamedTuple):
    """A named layer, with all that is inside it.

    Attributes:
      name: As its parameters' names begin.
      kind: Its class.
      output: Shape of what it gives.
      parameters: How many.
      flops: Of its convolutions, forward, for one image; a multiply-add counts as 2.
    """

    name: str
    kind: str
    output: tuple[int, ...]
    parameters: int
    flops: int


class Network(NamedTuple):
    """A network of either framework, on batches of some size.

    Attributes:
      kind: Its class.
      layers: In the order in which they run.
      parameters: Shape of each, by name.
    """

    kind: str
    layers: Sequence[Layer]
    parameters: Mapping[str, tuple[int, ...]]

    @property
    def size(self) -> int:
        """How many numbers its parameters are."""
        return sum(map(math.prod, self.parameters.values()))

    @property
    def flops(self) -> int:
        """Of its convolutions, forward, for one image; a multiply-add counts as 2."""
        return sum(layer.flops for layer in self.layers)


def describe(config: Config, num_classes: int) -> Network:
    """Traces the network of a config, computing nothing.

    Args:
      config: The network's, and the batches'.
      num_classes: Channels of the logits.
    """
    model = build_model(config.model, num_classes)
    images = jax.ShapeDtypeStruct((config.batch_size, *config.data.size, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    parameters = {path: leaf.shape for path, leaf in leaves(variables["params"]).items()}
    layers: list[Layer] = []
    flops = 0  # Of the layer that is running.

    def note(run: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        nonlocal flops
        output, module = run(*args, **kwargs), context.module
        if isinstance(module, Conv | UpConv):
            # Of a transposed convolution without overlap, each output pixel sees one tap.
            taps = module.kernel_size**2 if isinstance(module, Conv) else 1
            flops += 2 * taps * args[0].shape[-1] * output.size // len(output)
        if len(module.path) == 1:
            [name] = module.path
            inside = [shape for path, shape in parameters.items() if path.startswith(f"{name}/")]
            count = sum(map(math.prod, inside))
            layers.append(Layer(name, type(module).__name__, output.shape, count, flops))
            flops = 0
        return output

    def trace(variables: Any, images: Any) -> Any:
        with nn.intercept_methods(note):
            return model.apply(variables, images)

    jax.eval_shape(trace, variables, images)
    return Network(type(model).__name__, layers, parameters)


def layer_table(network: Network) -> Table:
    """A row for each layer."""
    table = Table(
        title=f"{network.kind}, {network.size:,} parameters, "
        f"{network.flops / 1e9:.3f} GFLOP an image, forward"
    )
    for heading in ("layer", "kind", "output", "GFLOP", "parameters"):
        right = heading in ("GFLOP", "parameters")
        table.add_column(heading, justify="right" if right else "left")
    for layer in network.layers:
        shape, flops = _by(layer.output), f"{layer.flops / 1e9:.3f}"
        table.add_row(layer.name, layer.kind, shape, flops, f"{layer.parameters:,}")
    return table


def parameter_table(network: Network) -> Table:
    """A row for each parameter."""
    table = Table("parameter", "shape", title=f"{len(network.parameters)} parameters")
    table.add_column("size", justify="right")
    for name, shape in network.parameters.items():
        table.add_row(name, _by(shape), f"{math.prod(shape):,}")
    return table


def settings(group: ModelConfig | OptimConfig) -> str:
    """A group of settings in a line."""
    values = dataclasses.asdict(group).items()
    return ", ".join(
        f"{name} {' '.join(map(str, value)) if isinstance(value, tuple) else value}"
        for name, value in values
    )


def introduce(
    level: int, config: Config, network: Callable[[], Network]
) -> Iterator[RenderableType]:
    """What is printed ahead of training.

    Args:
      level: 0 nothing, 1 the architecture, 2 also its layers and the optimiser, 3 also every
        parameter.
      config: The run's.
      network: Describes the network; only called if that is to be printed.
    """
    if level >= 1:
        yield f"network: {settings(config.model)}"
    if level >= 2:
        described = network()
        yield layer_table(described)
        yield f"optimiser: {settings(config.optim)}"
        if level >= 3:
            yield parameter_table(described)


def _by(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape))

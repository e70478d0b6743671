"""What a network is made of: its layers, their outputs and what they cost."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


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


def layers(model: nn.Module, batch: int, size: tuple[int, int]) -> list[Layer]:
    """The layers of a network in the order in which they run.

    Args:
      model: On the meta device, where nothing is computed.
      batch: Images.
      size: Height and width.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    named = dict(_layers(model))

    def note(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            shapes[name] = tuple(output.shape)

        return hook

    hooks = [module.register_forward_hook(note(name)) for name, module in named.items()]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.empty(batch, 3, *size, device="meta"))
    for hook in hooks:
        hook.remove()
    counts = counter.get_flop_counts()
    root = type(model).__name__
    return [
        Layer(
            name,
            type(named[name]).__name__,
            shape,
            sum(p.numel() for p in named[name].parameters()),
            sum(counts[f"{root}.{name}"].values()) // batch,
        )
        for name, shape in shapes.items()
    ]


def _layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Children by name, each of a list by itself."""
    for name, child in model.named_children():
        if isinstance(child, nn.ModuleList):
            yield from ((f"{name}.{n}", module) for n, module in child.named_children())
        else:
            yield name, child

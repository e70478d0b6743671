"""What a training step costs: arithmetic and memory, counted as its operators run."""

import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode


class Cost(NamedTuple):
    """What was counted.

    Attributes:
      flops: Of convolutions and products, forward and backward; a multiply-add counts as 2.
      bytes: The most that was held at once of what was made on the way.
    """

    flops: int
    bytes: int


def cost(run: Callable[[], object]) -> Cost:
    """Runs something, and counts what it costs, on any device; allocators may take more."""
    with FlopCounterMode(display=False) as counter, Held() as held:
        run()
    return Cost(counter.get_total_flops(), held.most)


class Held(TorchDispatchMode):
    """Adds up the memory of tensors that operators make, for as long as each lives.

    Attributes:
      now, most: Bytes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        for given in _tensors((args, kwargs)):  # Made before, or a view of that.
            self._note(given.untyped_storage(), size=0)
        result = func(*args, **(kwargs or {}))
        for made in _tensors(result):
            storage = made.untyped_storage()
            self._note(storage, storage.nbytes())
        return result

    def _note(self, storage: torch.UntypedStorage, size: int) -> None:
        key = storage._cdata
        if key not in self._known:
            self._known.add(key)
            self.now += size
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._freed, key, size)

    def _freed(self, key: int, size: int) -> None:
        self._known.remove(key)
        self.now -= size


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]

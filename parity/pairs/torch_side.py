"""What a PyTorch module computes, layer by layer and step by step, in the names of its JAX twin."""

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import torch
from torch import Tensor, nn

from parity.convert import Place, to_paths
from parity.pairs.names import entries, leaves
from parity.pairs.trial import Trial
from parity.sides import Quantities

TorchLoss = Callable[[Any, Any], Tensor]
"""From the module's output and a target to a scalar."""

OUTPUT, INPUT = "(output)", "(input)"
"""What the whole takes and gives; no submodule can be called so."""

Optimizer = Callable[[list[nn.Parameter]], torch.optim.Optimizer]


@dataclass(frozen=True, kw_only=True)
class TorchSide:
    """How the module is run.

    Attributes:
      places: Where its entries go.
      path_of: From a module's name to its name in JAX.
      layout: From a tensor's name and value to the order of axes that JAX has.
      train: Whether the loss is of the module in train mode.
      loss: Of the output and a target.
      optimizer: Makes the optimiser from the list of parameters.
      steps: How many it takes.
    """

    places: Sequence[Place]
    path_of: Callable[[str], str]
    layout: Callable[[str, np.ndarray], np.ndarray]
    train: bool
    loss: TorchLoss
    optimizer: Optimizer | None
    steps: int

    def run(self, trial: Trial) -> Quantities:
        """Everything there is to compare, in the trial's dtype; the trial stays as it is."""
        found: Quantities = {}
        module, inputs, target = trial.module, to_tensors(trial.inputs), to_tensors(trial.target)
        evaluated = copy.deepcopy(module).eval()
        with torch.no_grad(), self._recorded(evaluated) as calls:
            output = evaluated(*_clones(inputs))
        self._add(found, "eval", [*calls, (OUTPUT, output)])

        trained = copy.deepcopy(module).train(self.train)
        parameters = self._parameters(trained)
        sources = {f"{INPUT}/{path}": x for path, x in leaves(inputs).items() if is_floating(x)}
        wanted = {**parameters, **{n: x.requires_grad_() for n, x in sources.items()}}
        with self._recorded(trained) as calls:
            output = trained(*_clones(inputs))
        if self.train:
            self._add(found, "train", [*calls, (OUTPUT, output)])
            found |= {("statistics", n): v for n, v in self._state(trained, parameters)}
        loss = self.loss(output, target)
        found["loss", "loss"] = numpy(loss)
        if loss.requires_grad:
            grads = torch.autograd.grad(loss, list(wanted.values()), materialize_grads=True)
            found |= self._gradients(dict(zip(wanted, map(numpy, grads), strict=True)))

        for x in sources.values():
            x.requires_grad_(False)
        for step, value, state in self._train(copy.deepcopy(module), inputs, target):
            found[f"step {step}", "loss"] = value
            found |= {(f"step {step}", name): array for name, array in state}
        return found

    def _parameters(self, module: nn.Module) -> dict[str, nn.Parameter]:
        """Those that are trained and have a place in JAX."""
        placed = {place.torch_name for place in self.places}
        return {n: p for n, p in module.named_parameters() if p.requires_grad and n in placed}

    @contextmanager
    def _recorded(self, module: nn.Module) -> Iterator[list[tuple[str, Any]]]:
        """Fills a list with (JAX name, output) of each call of a submodule, as they end."""
        calls: list[tuple[str, Any]] = []

        def record(name: str, output: Any) -> None:
            # Cloned: a layer that works in place would change it.
            kept = [leaf for leaf in leaves(output).values() if isinstance(leaf, Tensor)]
            if kept:
                clone = jax.tree.map(
                    lambda x: x.detach().clone() if isinstance(x, Tensor) else None, output
                )
                calls.append((self.path_of(name), clone))

        hooks = [
            child.register_forward_hook(
                lambda _module, _inputs, output, name=name: record(name, output)
            )
            for name, child in module.named_modules()
            if name
        ]
        try:
            yield calls
        finally:
            for hook in hooks:
                hook.remove()

    def _add(self, found: Quantities, stage: str, calls: Iterable[tuple[str, Any]]) -> None:
        seen: Counter[str] = Counter()
        for label, output in calls:
            for path, leaf in leaves(output).items():
                name = call_name(label, seen[label], path)
                found[stage, name] = self.layout(name, numpy(leaf))
            seen[label] += 1

    def _state(
        self, module: nn.Module, leave_out: Iterable[str] = ()
    ) -> Iterator[tuple[str, np.ndarray]]:
        kept = {place.torch_name: place for place in self.places}
        for name in leave_out:
            kept.pop(name, None)
        state = {name: numpy(value) for name, value in entries(module).items() if name in kept}
        for path, array in to_paths(state, list(kept.values())).items():
            yield "/".join(path), array

    def _gradients(self, grads: dict[str, np.ndarray]) -> Quantities:
        """From the output back to the inputs, which is the order that a fault spreads in."""
        found: Quantities = {}
        for place in reversed(self.places):
            if place.torch_name in grads:
                [(path, array)] = to_paths(
                    {place.torch_name: grads[place.torch_name]}, [place]
                ).items()
                found["gradients", "/".join(path)] = array
        for name, array in grads.items():
            if name.startswith(INPUT):
                found["gradients", name] = self.layout(name, array)
        return found

    def _train(
        self, module: nn.Module, inputs: tuple[Any, ...], target: Any
    ) -> Iterator[tuple[int, np.ndarray, list[tuple[str, np.ndarray]]]]:
        """(step, its loss, the state after it)."""
        if self.optimizer is None:
            return
        module.train(self.train)
        optimizer = self.optimizer(list(self._parameters(module).values()))
        for step in range(1, self.steps + 1):
            optimizer.zero_grad()
            loss = self.loss(module(*_clones(inputs)), target)
            loss.backward()
            optimizer.step()
            yield step, numpy(loss), list(self._state(module))


def call_name(label: str, call: int, path: str) -> str:
    """`conv`, on its second call `conv#2`, and `conv/0` for the first of several outputs."""
    repeated = f"{label}#{call + 1}" if call else label
    return f"{repeated}/{path}" if path else repeated


def is_floating(x: Any) -> bool:
    return isinstance(x, Tensor) and x.is_floating_point()


def to_tensors(tree: Any) -> Any:
    return jax.tree.map(lambda array: torch.from_numpy(np.array(array)), tree)


def _clones(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """For a module that works in place."""
    return jax.tree.map(lambda x: x.clone(), inputs)


def numpy(tensor: Tensor) -> np.ndarray:
    """A copy, as what it is taken from may change."""
    return tensor.detach().numpy().copy()

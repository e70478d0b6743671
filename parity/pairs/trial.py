"""Weights, inputs and a target that both sides are run on."""

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
import torch
from torch import Tensor, nn

from parity.pairs.names import entries

CONSTANT = (0.5, 1.5)
"""What the entries of a constant tensor are multiplied by, so that they keep their sign; zeros get
as much above or below 1."""

JITTER = 1e-3
"""How far, relatively, weights and inputs of one draw are from those of another."""


@dataclass(frozen=True)
class Trial:
    """What is run, in float64.

    Attributes:
      module: A copy on the CPU.
      inputs: Of the module, in PyTorch's layout.
      target: The loss's second argument, likewise.
      placed: Names of the entries that JAX gets; no others are changed.
    """

    module: nn.Module
    inputs: tuple[Any, ...]
    target: Any
    placed: frozenset[str]

    @classmethod
    def start(
        cls,
        module: nn.Module,
        inputs: tuple[Any, ...],
        target: Any,
        placed: Iterable[str],
        *,
        perturb: bool,
        rng: np.random.Generator,
    ) -> "Trial":
        """Copies everything.

        Args:
          module: In any dtype and on any device.
          inputs: Arrays or tensors, or trees of them.
          target: Likewise; None: normal random numbers in the output's shape.
          placed: Names of the entries that JAX gets.
          perturb: Whether those of them that are constant are changed.
          rng: Draws what is random.
        """
        trial = cls(copy.deepcopy(module).cpu().double(), inputs, target, frozenset(placed))
        trial = trial.cast(torch.float64)
        if perturb:
            trial._change(lambda array: _vary(array, rng))
        if target is None:
            tensors = jax.tree.map(lambda x: torch.from_numpy(x.copy()), trial.inputs)
            with torch.no_grad():
                output = copy.deepcopy(trial.module).eval()(*tensors)
            target = jax.tree.map(lambda y: rng.standard_normal(tuple(y.shape)), output)
            trial = replace(trial, target=target)
        return trial

    def jitter(self, rng: np.random.Generator) -> "Trial":
        """Another draw, whose rounding errors are others."""

        def noisy(array: np.ndarray) -> np.ndarray:
            return array * (1 + JITTER * rng.standard_normal(array.shape))

        inputs = jax.tree.map(lambda x: noisy(x) if _is_floating(x) else x, self.inputs)
        trial = replace(self, module=copy.deepcopy(self.module), inputs=inputs)
        trial._change(noisy)
        return trial

    def cast(self, dtype: torch.dtype) -> "Trial":
        """All that is floating in this type."""
        module = copy.deepcopy(self.module).to(dtype)
        inputs, target = jax.tree.map(
            lambda leaf: _array(leaf, torch.empty(0, dtype=dtype).numpy().dtype),
            (self.inputs, self.target),
        )
        return replace(self, module=module, inputs=inputs, target=target)

    def _change(self, change: Callable[[np.ndarray], np.ndarray]) -> None:
        with torch.no_grad():
            for name, value in entries(self.module).items():
                if name in self.placed and value.is_floating_point():
                    value.copy_(torch.from_numpy(change(value.detach().numpy())))


def _vary(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if not array.size or np.ptp(array):
        return array
    factors = rng.uniform(*CONSTANT, array.shape)
    return np.asarray(array * factors if array.flat[0] else factors - 1)


def _array(leaf: Any, dtype: np.dtype) -> np.ndarray:
    array = leaf.detach().cpu().numpy() if isinstance(leaf, Tensor) else np.asarray(leaf)
    return array.astype(dtype if _is_floating(array) else array.dtype)


def _is_floating(array: np.ndarray) -> bool:
    return array.dtype.kind == "f"

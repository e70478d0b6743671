"""A PyTorch module and a JAX function that should be the same model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np
import optax
import torch
from torch import nn

from parity.compare import DRAWS
from parity.convert import Place, StateDict, from_paths, to_paths
from parity.pairs.divergence import Report
from parity.pairs.jax_side import Function, JaxLoss, JaxSide
from parity.pairs.judgement import Measured, activations, explain, is_output, judge32, judge64
from parity.pairs.names import Modules, Names, entries, leaves, match, path_of
from parity.pairs.torch_side import INPUT, Optimizer, TorchLoss, TorchSide
from parity.pairs.trial import Trial
from parity.tolerances import FLOAT32, FLOAT64

Layout = str | Callable[[str, np.ndarray], np.ndarray]
"""How PyTorch's tensors are laid out in JAX. "NHWC" (or "NLC", "NDHWC") moves the second axis of
those of so many axes to the end; a function gets the name and the array of each."""

STEPS = 1e-10
"""Limit after optimiser steps, in float64: Adam divides by gradients that are nearly 0."""

TARGET = "(target)"

PRECISIONS = ("float64", "float32")


@dataclass(frozen=True, eq=False)
class Pair:
    """A PyTorch module and a JAX function of the same weights.

    Attributes:
      module: In any dtype and on any device; it is copied to the CPU, and never changed.
      fn: `fn(variables, *inputs) -> output` or `-> (output, captured)`, traceable by `jax.jit`, in
        eval mode; see `parity.pairs.jax_side.Function`. What it captures is compared, too.
      variables: The function's weights, or their shapes: any pytree, such as Linen's variables.
        Their values are not read; they come from the module.
      train: The function in train mode, returning `(output, captured)` with new running
        statistics. None: gradients and steps are taken in eval mode.
      modules: How names of modules become JAX paths, where Linen's rule (`block.0.conv` is
        `block_0/conv`) does not hold: a function, or a mapping of exceptions.
      names: Where single parameters and buffers go: a mapping from PyTorch's names to a path, a
        (path, axes) or None; or a function of the path that is proposed.
      layout: How axes go, "NHWC" or a function; None: as in PyTorch.

    Raises:
      ConversionError: Module and variables do not match; the message lists every entry.
    """

    module: nn.Module
    fn: Function
    variables: Any
    _: KW_ONLY
    train: Function | None = None
    modules: Modules | None = None
    names: Names | None = None
    layout: Layout | None = None

    def __post_init__(self) -> None:
        self.places  # noqa: B018  # Refuses what does not match.

    @cached_property
    def places(self) -> list[Place]:
        """Where each entry of the module goes."""
        return match(self.module, self.variables, self.modules, self.names)

    def to_jax(self, state: Mapping[str, Any] | None = None) -> Any:
        """The weights as the function takes them: NumPy arrays with PyTorch's dtypes.

        Args:
          state: As of `state_dict()`, but without what has no place in JAX; None: the module's.
        """
        if state is None:
            own = entries(self.module)
            state = {p.torch_name: own[p.torch_name].detach().cpu() for p in self.places}
        flat = {"/".join(path): array for path, array in to_paths(state, self.places).items()}
        structure = jax.tree.structure(self.variables)
        return jax.tree.unflatten(structure, [flat[path] for path in leaves(self.variables)])

    def to_torch(self, variables: Any) -> StateDict:
        """The inverse of `to_jax`: NumPy arrays by PyTorch's names."""
        flat = {tuple(path.split("/")): leaf for path, leaf in leaves(variables).items()}
        return from_paths(flat, self.places)

    def compare(
        self,
        inputs: Any,
        *,
        loss: tuple[TorchLoss, JaxLoss] | None = None,
        target: Any = None,
        optimizers: tuple[Optimizer, optax.GradientTransformation] | None = None,
        steps: int = 0,
        precisions: Sequence[str] = ("float64", "float32"),
        limit64: float = FLOAT64,
        limit_steps: float = STEPS,
        limit32: float = FLOAT32,
        draws: int = DRAWS,
        perturb: bool = True,
        seed: int = 0,
    ) -> Report:
        """Runs both, on a CPU, and compares layers, output, loss, gradients and optimiser steps.

        Args:
          inputs: A tuple of the module's arguments, in PyTorch's layout: arrays or tensors, or
            trees of them. Floating ones are brought to each precision, and have gradients.
          loss: PyTorch's and JAX's, each `loss(output, target) -> scalar`. None: the mean square
            of output minus target.
          target: An array or a tree, in PyTorch's layout. None: normal random numbers in the
            output's shape, so that every entry of the output matters.
          optimizers: A factory such as `partial(torch.optim.AdamW, lr=1e-3)`, called with a list
            of parameters, and the Optax transformation. The latter sees a tree like `variables`,
            with None in place of what is not trained.
          steps: How many they take, on the same inputs, in float64. Float32 would not tell of the
            model: Optax computes Adam's 1 - beta**t in float32, which makes its steps 1e-5 shorter
            than PyTorch's.
          precisions: float64, float32 or both.
          limit64: Largest ‖jax - torch‖ / ‖torch‖ in float64.
          limit_steps: The same for parameters, statistics and losses of optimiser steps.
          limit32: JAX's largest distance to PyTorch's float64 result, as a multiple of PyTorch's
            own distance to it in float32.
          draws: How often float32 is measured: each time with other rounding errors, from weights
            and inputs changed by about 0.1 %.
          perturb: Whether tensors whose entries are all the same, such as a fresh norm's scale and
            running statistics, are first changed at random. They would hide faults.
          seed: Draws all that is random.

        Raises:
          ValueError: Arguments that do not go together.
        """
        _check(precisions, optimizers, steps, draws)
        rng = np.random.default_rng(seed)
        trial = Trial.start(
            self.module,
            inputs if isinstance(inputs, tuple) else (inputs,),
            target,
            [place.torch_name for place in self.places],
            perturb=perturb,
            rng=rng,
        )
        case, loss = type(self.module).__name__, loss or (mean_square, mean_square)
        rows, notes, names = [], {}, ([], [])
        for precision in dict.fromkeys(precisions):
            if precision == "float64":
                sides = self._sides(loss, optimizers, steps)
                measured = [self._measure(sides, trial, precision)]
                own = judge64(case, measured[0], limit64, limit_steps)
            else:
                sides = self._sides(loss, None, 0)
                trials = [trial.jitter(rng) for _ in range(draws)]
                measured = [self._measure(sides, one, precision) for one in trials]
                own = judge32(case, measured, limit32)
            failed = [row for row in own if not row.passed]
            notes |= {row: explain(measured[0], (row.stage, row.name)) for row in failed}
            rows, names = rows + own, activations(measured[0])
        kind = None if optimizers is None else type(optimizers[0](list(self.module.parameters())))
        return Report(case, tuple(rows), notes, self._layers(), kind, *names)

    def _sides(
        self,
        loss: tuple[TorchLoss, JaxLoss],
        optimizers: tuple[Optimizer, optax.GradientTransformation] | None,
        steps: int,
    ) -> tuple[TorchSide, JaxSide]:
        trained = {n for n, p in self.module.named_parameters() if p.requires_grad}
        paths = {place.torch_name: "/".join(place.path) for place in self.places}
        theirs = TorchSide(
            places=self.places,
            path_of=self._path_of,
            layout=self._lay_out,
            train=self.train is not None,
            loss=loss[0],
            optimizer=optimizers and optimizers[0],
            steps=steps,
        )
        ours = JaxSide(
            fn=self.fn,
            train=self.train,
            trainable=frozenset(path for name, path in paths.items() if name in trained),
            statistics=[path for name, path in paths.items() if name not in trained],
            loss=loss[1],
            optimizer=optimizers and optimizers[1],
            steps=steps,
        )
        return theirs, ours

    def _measure(self, sides: tuple[TorchSide, JaxSide], trial: Trial, precision: str) -> Measured:
        theirs, ours = sides
        truth = theirs.run(trial)
        trial = trial.cast(getattr(torch, precision))
        found = truth if precision == "float64" else theirs.run(trial)
        state = {name: value.detach().numpy() for name, value in entries(trial.module).items()}
        cpu = jax.local_devices(backend="cpu")[0]
        with jax.enable_x64(precision == "float64"), jax.default_device(cpu):
            jaxs = ours.run(
                self.to_jax({place.torch_name: state[place.torch_name] for place in self.places}),
                self._lay_out_tree(INPUT, trial.inputs),
                self._lay_out_tree(TARGET, trial.target),
                {name: a.shape for (_, name), a in found.items() if is_output(("", name))},
            )
        return Measured(jaxs, found, truth)

    def _path_of(self, name: str) -> str:
        return path_of(name, self.modules)

    def _lay_out(self, name: str, array: np.ndarray) -> np.ndarray:
        if self.layout is None:
            return array
        if callable(self.layout):
            return self.layout(name, array)
        return np.moveaxis(array, 1, -1) if array.ndim == len(self.layout) else array

    def _lay_out_tree(self, name: str, tree: Any) -> Any:
        moved = [self._lay_out(f"{name}/{path}", leaf) for path, leaf in leaves(tree).items()]
        return jax.tree.unflatten(jax.tree.structure(tree), moved)

    def _layers(self) -> dict[str, nn.Module]:
        """The PyTorch layer behind each name of a row."""
        layers = dict(self.module.named_modules())
        found = {self._path_of(name): layer for name, layer in layers.items() if name}
        for place in self.places:
            found["/".join(place.path)] = layers[place.torch_name.rpartition(".")[0]]
        return found


def _check(precisions: Sequence[str], optimizers: Any, steps: int, draws: int) -> None:
    strange = [name for name in precisions if name not in PRECISIONS]
    if strange or not precisions:
        raise ValueError(f"precisions: {tuple(precisions)}; there are {', '.join(PRECISIONS)}")
    if (optimizers is None) != (steps < 1):
        raise ValueError(f"steps: {steps}, optimizers: {optimizers}; give both or neither")
    if steps and "float64" not in precisions:
        raise ValueError("steps: they are compared in float64, which is not in `precisions`")
    if draws < 1:
        raise ValueError(f"draws: {draws}; at least 1")


def mean_square(output: Any, target: Any) -> Any:
    """The sum over the output's arrays (or tensors) of the mean of (output - target)²."""
    squares = jax.tree.map(lambda y, t: ((y - t) ** 2).mean(), output, target)
    return sum(jax.tree.leaves(squares))

"""What a JAX function computes, layer by layer and step by step."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import SequenceKey, keystr, tree_leaves_with_path

from parity.pairs.names import leaves
from parity.pairs.torch_side import INPUT, OUTPUT, call_name
from parity.sides import Quantities

Function = Callable[..., Any]
"""`fn(variables, *inputs) -> output` or `-> (output, captured)`.

`captured` is a mapping. Under "intermediates" it holds activations by name, each an array or a
tuple with one for each call; that is what Linen's `capture_intermediates` and `sow` give. All else
in it are variables that changed, such as `{"batch_stats": …}`, at the paths of `variables`.
"""

JaxLoss = Callable[[Any, Any], jax.Array]
"""From the function's output and a target to a scalar."""


@dataclass(frozen=True, kw_only=True)
class JaxSide:
    """How the function is run.

    Attributes:
      fn: In eval mode.
      train: What the loss is of, where that is another function.
      trainable: Paths of the variables that have a gradient.
      statistics: Paths of those that the function may change itself.
      loss: Of the output and a target.
      optimizer: Sees a tree like `variables`, with None for what is not trainable.
      steps: How many it takes.
    """

    fn: Function
    train: Function | None
    trainable: frozenset[str]
    statistics: Sequence[str]
    loss: JaxLoss
    optimizer: optax.GradientTransformation | None
    steps: int

    def run(
        self, variables: Any, inputs: tuple[Any, ...], target: Any, shapes: Mapping[str, tuple]
    ) -> Quantities:
        """Everything there is to compare.

        Args:
          variables: A tree of arrays; their dtype is the precision.
          inputs: Trees of arrays, in JAX's layout.
          target: The loss's second argument, likewise.
          shapes: Of the output's tensors, by name. If the function's differ, there is no loss.
        """
        variables, inputs, target = jax.tree.map(jnp.asarray, (variables, inputs, target))
        output, captured = self._evaluate(variables, inputs)
        found = _activations("eval", output, captured)

        output, captured = jax.eval_shape(self._apply, variables, inputs)
        if {_output_name(path): leaf.shape for path, leaf in leaves(output).items()} != shapes:
            return found
        (value, (output, captured)), (grads, sources) = self._backward(variables, inputs, target)
        if self.train is not None:
            found |= _activations("train", output, captured)
            after = leaves(_updated(variables, captured))
            found |= {("statistics", path): np.asarray(after[path]) for path in self.statistics}
        found["loss", "loss"] = np.asarray(value)
        found |= {("gradients", path): np.asarray(g) for path, g in leaves(grads).items()}
        found |= {("gradients", f"{INPUT}/{n}"): np.asarray(g) for n, g in leaves(sources).items()}

        if self.optimizer is not None:
            state = self.optimizer.init(self._split(variables)[0])
            for step in range(1, self.steps + 1):
                value, variables, state = self._update(variables, state, inputs, target)
                found[f"step {step}", "loss"] = np.asarray(value)
                for path, leaf in leaves(variables).items():
                    found[f"step {step}", path] = np.asarray(leaf)
        return found

    @cached_property
    def _evaluate(self) -> Callable[..., Any]:
        return jax.jit(lambda variables, inputs: _parts(self.fn(variables, *inputs)))

    @cached_property
    def _backward(self) -> Callable[..., Any]:
        def run(variables: Any, inputs: Any, target: Any) -> Any:
            params, fixed = self._split(variables)
            floating, others = _split(inputs, [_is_floating(x) for x in jax.tree.leaves(inputs)])

            def objective(chosen: Any) -> Any:
                output, captured = self._apply(_join(chosen[0], fixed), _join(chosen[1], others))
                return self.loss(output, target), (output, captured)

            return jax.value_and_grad(objective, has_aux=True)((params, floating))

        return jax.jit(run)

    @cached_property
    def _update(self) -> Callable[..., Any]:
        optimizer = self.optimizer
        assert optimizer is not None

        def run(variables: Any, state: Any, inputs: Any, target: Any) -> Any:
            params, fixed = self._split(variables)

            def objective(params: Any) -> Any:
                output, captured = self._apply(_join(params, fixed), inputs)
                return self.loss(output, target), captured

            (value, captured), grads = jax.value_and_grad(objective, has_aux=True)(params)
            updates, state = optimizer.update(grads, state, params)
            stepped = _join(optax.apply_updates(params, updates), fixed)
            return value, _updated(stepped, captured), state

        return jax.jit(run)

    def _apply(self, variables: Any, inputs: Any) -> tuple[Any, Mapping[str, Any]]:
        return _parts((self.train or self.fn)(variables, *inputs))

    def _split(self, variables: Any) -> tuple[Any, Any]:
        return _split(variables, [path in self.trainable for path in leaves(variables)])


def _parts(result: Any) -> tuple[Any, Mapping[str, Any]]:
    """The output, and what was captured."""
    match result:
        case (output, Mapping() as captured):
            return output, captured
    return result, {}


def _updated(variables: Any, captured: Mapping[str, Any]) -> Any:
    """The variables, with those that the function changed."""
    changed = leaves({key: tree for key, tree in captured.items() if key != "intermediates"})
    paths = list(leaves(variables))
    strange = sorted(changed.keys() - set(paths))
    if strange:
        raise ValueError(
            f"the function returned {', '.join(strange)}, which is not in `variables`; "
            'activations go under "intermediates"'
        )
    values = [
        changed.get(p, leaf) for p, leaf in zip(paths, jax.tree.leaves(variables), strict=True)
    ]
    return jax.tree.unflatten(jax.tree.structure(variables), values)


def _activations(stage: str, output: Any, captured: Mapping[str, Any]) -> Quantities:
    found = {}
    for keys, leaf in tree_leaves_with_path(captured.get("intermediates", {})):
        call = next((i for i, key in enumerate(keys) if isinstance(key, SequenceKey)), len(keys))
        label = keystr(keys[:call], simple=True, separator="/")
        label = label.removesuffix("__call__").removesuffix("/")
        if label:  # Linen's root; its output is below.
            number = keys[call].idx if call < len(keys) else 0
            inner = keystr(keys[call + 1 :], simple=True, separator="/")
            found[stage, call_name(label, number, inner)] = np.asarray(leaf)
    for path, leaf in leaves(output).items():
        found[stage, _output_name(path)] = np.asarray(leaf)
    return found


def _output_name(path: str) -> str:
    return call_name(OUTPUT, 0, path)


def _is_floating(x: jax.Array) -> bool:
    return jnp.issubdtype(x.dtype, jnp.floating)


def _split(tree: Any, chosen: Sequence[bool]) -> tuple[Any, Any]:
    """Two trees like this one: the chosen leaves, and the others; None in place of the rest."""
    flat, structure = jax.tree.flatten(tree)
    pairs = list(zip(flat, chosen, strict=True))
    return (
        jax.tree.unflatten(structure, [leaf if own else None for leaf, own in pairs]),
        jax.tree.unflatten(structure, [None if own else leaf for leaf, own in pairs]),
    )


def _join(chosen: Any, others: Any) -> Any:
    return jax.tree.map(
        lambda a, b: b if a is None else a, chosen, others, is_leaf=lambda leaf: leaf is None
    )

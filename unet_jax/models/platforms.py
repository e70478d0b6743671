"""What a CPU computes otherwise than a GPU or TPU, and for which of them it is traced.

For all, as a rule: which one is meant is known only when a program is lowered. Where it is known
before, as it is for the steps of a training, tracing the others' part would be a ninth of what it
takes to start (docs/speed.md).
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax import lax

Computed = Callable[..., Any]

_cpu_alone = jax.make_user_context(default_value=False)


def by_platform(*args: Any, cpu: Computed, default: Computed) -> Any:
    """`jax.lax.platform_dependent`: `cpu(*args)` on a CPU, `default(*args)` elsewhere."""
    if _cpu_alone.value:
        return cpu(*args)
    return lax.platform_dependent(*args, cpu=cpu, default=default)


@contextlib.contextmanager
def cpu_alone() -> Iterator[None]:
    """What is traced in here is for CPUs alone: it must not be lowered for anything else."""
    with _cpu_alone(True):
        yield


def for_default_backend(function: Computed) -> Computed:
    """The function, to be traced for CPUs alone where JAX computes on them unless told otherwise.

    Args:
      function: What is compiled and run on JAX' default backend, and nowhere else.
    """
    if jax.default_backend() != "cpu":
        return function
    traced = cpu_alone()(function)
    # What the program is called by in profiles; a `partial` has the name of what it is of.
    traced.__name__ = getattr(function, "func", function).__name__
    return traced

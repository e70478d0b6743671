"""Code that one kind of device alone runs, and which devices a program is traced for.

For all, as a rule: which one is meant is known only when a program is lowered. Where it is known
before, as it is for the steps of a training, tracing the others' part would be a ninth of what it
takes to start (docs/speed.md).
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import jax
from jax import lax

Computed = Callable[..., Any]

_cpu_alone = jax.make_user_context(default_value=False)


def by_platform(*args: Any, default: Computed, **special: Computed) -> Any:
    """`jax.lax.platform_dependent`: `special[platform](*args)` there, `default(*args)` elsewhere.

    Args:
      args: What it is computed from.
      default: What is computed where nothing else is given.
      special: By platform: `cpu`, `cuda` or `tpu`.
    """
    if _cpu_alone.value:
        return special.get("cpu", default)(*args)
    return lax.platform_dependent(*args, default=default, **special)


@contextlib.contextmanager
def cpu_alone() -> Iterator[None]:
    """What is traced in here must run on CPUs alone, unless its results are not used."""
    with _cpu_alone(True):
        yield


def for_default_device(function: Computed) -> Computed:
    """The function, to be traced for CPUs alone if JAX' default device is one.

    Args:
      function: What is compiled and run there, and nowhere else.
    """
    [device] = jax.device_put(0.0).devices()
    return traced_in(cpu_alone, function) if device.platform == "cpu" else function


def traced_in(context: Callable[[], AbstractContextManager], function: Computed) -> Computed:
    """The function, with its own name, by which profiles call its program, traced in a context."""

    @functools.wraps(function)
    def traced(*args: Any, **keywords: Any) -> Any:
        with context():
            return function(*args, **keywords)

    traced.__name__ = getattr(function, "func", function).__name__  # A `partial` has none.
    return traced

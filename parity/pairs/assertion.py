"""Parity as an assertion, for tests."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from torch import nn

from parity.pairs.divergence import Report
from parity.pairs.pair import Pair


def assert_parity(
    module: nn.Module, fn: Callable[..., Any], variables: Any, inputs: Any, **options: Any
) -> Report:
    """Asserts that a PyTorch module and a JAX function are the same model.

    Args:
      module: The module, with the weights for both.
      fn: `fn(variables, *inputs)`, as `Pair` has it.
      variables: A tree of the function's weights, of which shapes alone are read.
      inputs: A tuple of arrays, as the module takes them.
      **options: All others of `Pair` and of `Pair.compare`, by name.

    Returns:
      The report, for a closer look.

    Raises:
      AssertionError: They differ; the message says where first.
      ConversionError: Module and variables do not match; the message lists every entry.
    """
    __tracebackhide__ = True
    own = {field.name for field in fields(Pair)}
    pair = Pair(module, fn, variables, **{k: v for k, v in options.items() if k in own})
    report = pair.compare(inputs, **{k: v for k, v in options.items() if k not in own})
    if not report.passed:
        raise AssertionError(str(report))
    return report

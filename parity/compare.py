"""Runs both networks from the same weights on the same batches, and measures how far they part."""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import nn

from parity.cases import Case
from parity.convert import Variables
from parity.device import arithmetic, torch_device
from parity.row import Row
from parity.sides import carried, make_batch, make_torch, run_flax, run_torch
from parity.tolerances import measure_float32, measure_float64
from unet_jax.batch import Batch

DRAWS = 8
"""Batches. On one, the float32 distance of a tensor of few entries is a single draw of rounding
noise, by luck several times its usual size; both frameworks' are taken over all of these."""


def compare(
    case: Case,
    change: Callable[[Variables], None] | None = None,
    precisions: Sequence[str] = ("float64", "float32"),
    seed: int = 0,
    *,
    draws: int = DRAWS,
    model: nn.Module | None = None,
    extra: Sequence[Batch] = (),
) -> list[Row]:
    """Compares the two networks in float64, then in float32.

    Args:
      case: The configuration.
      change: Plants a fault in the Flax side's weights, to see it found.
      precisions: Which comparisons; float64, the truth for the others, comes first.
      seed: Draws weights and batches.
      draws: Random batches.
      model: The PyTorch network, of the case's configuration; None: one with random weights.
      extra: Batches beside the random ones, of the same shape.

    Returns:
      A row for each tensor, in the order in which they are computed.
    """
    batches = [*extra, *(make_batch(case, seed + draw) for draw in range(draws))]
    rows, truth = [], None
    for precision in precisions:
        given = copy.deepcopy(model) if model is not None else make_torch(case, seed)
        twin = given.to(torch_device(), torch.float64 if precision == "float64" else torch.float32)
        variables = carried(twin)
        if change is not None:
            change(variables)
        with arithmetic(precision):
            ours = run_flax(case, variables, batches)
            theirs = [run_torch(copy.deepcopy(twin), batch, case.mean_std) for batch in batches]
        truth = truth or theirs
        measure = measure_float64 if precision == "float64" else measure_float32
        rows += [
            Row(case.name, precision, *quantity, *measures)
            for quantity, measures in measure(ours, theirs, truth).items()
        ]
    return rows

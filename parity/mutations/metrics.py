"""Faults of metrics."""

from collections.abc import Callable
from functools import partial
from typing import Any
from unittest.mock import patch

import jax.numpy as jnp

import unet_jax.metrics
from parity.components.metrics import compare_metrics
from parity.mutations.mutation import Mutation


def _metric_fault(name: str, stage: str, attribute: str, wrong: Callable[..., Any]) -> Mutation:
    plant = partial(patch.object, unet_jax.metrics, attribute, wrong)
    return Mutation(
        name, "metrics", (f"metric: {stage}", "2 classes"), partial(compare_metrics, (2,)), plant
    )


confusion = unet_jax.metrics.confusion_counts
tolerance = unet_jax.metrics.boundary_tolerance
METRICS = [
    _metric_fault(
        "foreground from 0, not above it",
        "predicted classes",
        "predict_classes",
        lambda logits: (logits[..., 0] >= 0).astype(jnp.int32),
    ),
    _metric_fault(
        "truth in the confusion's columns",
        "confusion",
        "confusion_counts",
        lambda *args: confusion(*args).T,
    ),
    _metric_fault(
        "boundary tolerance rounded down",
        "boundary",
        "boundary_tolerance",
        lambda size: tolerance(size) - 1,
    ),
]

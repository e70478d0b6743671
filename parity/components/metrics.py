"""What scores are made of: predicted classes, confusion counts and boundary counts."""

from collections.abc import Iterable

import jax.numpy as jnp
import numpy as np
import torch

import unet_jax.metrics
import unet_torch_ref.metrics
from parity.components.losses import to_torch
from parity.row import Row, count_row
from unet_jax.batch import IGNORED

CLASSES = (2, 11, 150)
SIZE = (16, 24)


def both_counts(
    predicted: np.ndarray, mask: np.ndarray, valid: np.ndarray, classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Confusion counts [C, C] of JAX and of PyTorch."""
    ours = unet_jax.metrics.confusion_counts(
        jnp.asarray(predicted, jnp.int32), jnp.asarray(mask), jnp.asarray(valid), classes
    )
    theirs = unet_torch_ref.metrics.confusion_counts(
        torch.from_numpy(predicted).long(), torch.from_numpy(mask), torch.from_numpy(valid), classes
    )
    return np.asarray(ours), theirs.numpy()


def compare_metrics(numbers: Iterable[int] = CLASSES) -> list[Row]:
    """Compares counts, which must be equal; an error is how many are not.

    Args:
      numbers: Of classes.
    """
    rows = []
    for classes in numbers:
        rng = np.random.default_rng(classes)
        shape, channels = (3, *SIZE), 1 if classes == 2 else classes
        # Whole numbers, among which many are equal and many are 0.
        logits = rng.integers(-2, 3, (*shape, channels)).astype(float)
        ours = np.asarray(unet_jax.metrics.predict_classes(jnp.asarray(logits)))
        theirs = unet_torch_ref.metrics.predict_classes(to_torch(logits)).numpy()
        name = f"{classes} classes"
        rows.append(count_row("metrics", "metric: predicted classes", name, ours, theirs))

        # Patches of 4 × 4 pixels, so that there are boundaries with something between them.
        coarse = rng.integers(0, classes, (2, 3, SIZE[0] // 4, SIZE[1] // 4), np.uint8)
        mask, predicted = np.repeat(np.repeat(coarse, 4, axis=2), 4, axis=3)
        mask = np.where(rng.random(shape) < 0.1, IGNORED, mask).astype(np.uint8)
        predicted, valid = np.roll(predicted, 1, axis=2), np.array([True, False, True])
        counts = both_counts(predicted, mask, valid, classes)
        rows.append(count_row("metrics", "metric: confusion", name, *counts))
        near = unet_jax.metrics.boundary_counts(
            jnp.asarray(predicted, jnp.int32),
            jnp.asarray(mask),
            jnp.asarray(valid),
            classes,
            unet_jax.metrics.boundary_tolerance((300, 200)),  # 3 pixels, from 2.7.
        )
        reference = unet_torch_ref.metrics.boundary_counts(
            torch.from_numpy(predicted).long(),
            torch.from_numpy(mask),
            torch.from_numpy(valid),
            classes,
            unet_torch_ref.metrics.boundary_tolerance((300, 200)),
        )
        rows.append(
            count_row("metrics", "metric: boundary", name, np.asarray(near), reference.numpy())
        )
    return rows

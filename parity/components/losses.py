"""Every loss: its value, its sums and its gradient by the logits."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch

import unet_jax.losses
import unet_torch_ref.losses
from parity.row import Row, relative_error
from unet_jax.batch import IGNORED

STRICT = 1e-12
"""Relative, in float64: a few hundred roundings of 1e-16, and room for their order to differ."""
SHAPE = (6, 5, 7)
TERMS = ("cross_entropy", "dice", "tversky", "focal", "lovasz")
BATCH = {"reduction": "batch"}


class Example(NamedTuple):
    logits: np.ndarray
    mask: np.ndarray
    valid: np.ndarray
    border: np.ndarray


class Result(NamedTuple):
    value: float
    gradient: np.ndarray  # [B, H, W, K]
    sums: dict[str, np.ndarray]


def only(term: str, **options: Any) -> dict[str, Any]:
    return {"cross_entropy": 0.0, term: 1.0, **options}


WEIGHTS = {1: (0.5, 2.0), 5: (0.5, 2.0, 0.0, 1.0, 3.5)}
MIXED: dict[str, Any] = dict(zip(TERMS, (0.5, 2.0, 0.3, 0.7, 1.5), strict=True))
OPTIONS: dict[str, dict[str, Any]] = {
    "cross-entropy": {},
    "smoothed": {"label_smoothing": 0.1},
    "border": {"border_weight": 10.0},
    "smoothed-border": {"label_smoothing": 0.1, "border_weight": 10.0},
    "dice": only("dice"),
    "dice-batch": only("dice", **BATCH),
    "dice-smooth": only("dice", smooth=1.0),
    "tversky": only("tversky"),
    "tversky-batch": only("tversky", **BATCH, tversky_alpha=0.9, tversky_beta=0.2),
    "focal": only("focal"),
    "focal-gamma": only("focal", focal_gamma=0.5),
    "lovasz": only("lovasz"),
    "all": MIXED,
    "all-batch": {**MIXED, **BATCH},
}
WEIGHTED = ("cross-entropy", "smoothed", "border", "smoothed-border", "focal")
FOREGROUND = {"pos_weight": 3.0, "label_smoothing": 0.1, "border_weight": 10.0}
LOSSES: dict[str, tuple[int, dict[str, Any]]] = {
    **{f"{name}-{k}": (k, fields) for k in (1, 5) for name, fields in OPTIONS.items()},
    **{
        f"{name}-weighted-{k}": (k, {**OPTIONS[name], "class_weights": WEIGHTS[k]})
        for k in (1, 5)
        for name in WEIGHTED
    },
    **{
        f"{name}-{k}": (k, OPTIONS[name])
        for k in (6, 7)
        for name in ("all", "all-batch", "smoothed-border")
    },
    "pos-weight": (1, {"pos_weight": 3.0}),
    "pos-weight-and-all": (1, {**FOREGROUND, "class_weights": WEIGHTS[1]}),
    "focal-alpha": (1, only("focal", focal_alpha=0.25)),
}
"""Channels of the logits, and settings, of each loss that is compared.

In JAX, up to 6 classes are computed in another way than more.
"""


def example(channels: int) -> Example:
    """Images with few, half, all and other pixels ignored; one padded; one of a single class."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(*SHAPE, channels)) * rng.choice([0.1, 1.0, 5.0], (*SHAPE, 1))
    mask = rng.integers(0, max(channels, 2), SHAPE, np.uint8)
    mask[5] = 1
    shares = np.array([0.1, 0.5, 0, 1, 0.3, 0]).reshape(6, 1, 1)
    mask[rng.random(SHAPE) < shares] = IGNORED
    valid = np.array([True, True, False, True, True, True])
    return Example(logits, mask, valid, rng.integers(0, 256, SHAPE, np.uint8))


def value_and_gradient(fields: dict[str, Any], logits, mask, valid, border=None):
    loss = unet_jax.losses.Loss(**fields)

    def total(logits):
        sums = loss.sums(logits, mask, valid, border)
        return loss.total(sums), sums

    return jax.value_and_grad(total, has_aux=True)(logits)


def in_jax(fields: dict[str, Any], logits, mask, valid, border=None) -> Result:
    """Smaller images than `SHAPE` are ignored around: compiling for each size takes seconds."""
    channels, place = logits.shape[-1], tuple(slice(0, size) for size in mask.shape)
    padded = np.zeros((*SHAPE, channels)), np.full(SHAPE, IGNORED, np.uint8), np.zeros(6, bool)
    for array, values in zip(padded, (logits, mask, valid), strict=True):
        array[place[: array.ndim]] = values
    logits, mask, valid = map(jnp.asarray, padded)
    (value, sums), gradient = value_and_gradient(fields, logits, mask, valid, border)
    sums = {name: np.asarray(entry) for name, entry in sums.items()}
    return Result(float(value), np.asarray(gradient)[place], sums)


def to_torch(logits: np.ndarray) -> torch.Tensor:
    """[B, H, W, K] as [B, K, H, W]."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(logits, -1, 1)))


def in_torch(fields: dict[str, Any], logits, mask, valid, border=None) -> Result:
    loss = unet_torch_ref.losses.Loss(**fields)
    leaf = to_torch(logits).requires_grad_()
    tensors = (None if a is None else torch.from_numpy(a) for a in (mask, valid, border))
    sums = loss.sums(leaf, *tensors)  # type: ignore[arg-type]
    value = loss.total(sums)
    value.backward()
    assert leaf.grad is not None
    gradient = np.moveaxis(leaf.grad.numpy(), 1, -1)
    return Result(value.item(), gradient, {k: v.detach().numpy() for k, v in sums.items()})


def compare_losses(names: Iterable[str] = LOSSES) -> list[Row]:
    """Compares losses on ignored pixels, empty classes, padding and more; in float64.

    Args:
      names: Of `LOSSES`.
    """
    rows = []
    for name in names:
        channels, fields = LOSSES[name]
        given = example(channels)
        ours, theirs = in_jax(fields, *given), in_torch(fields, *given)
        pairs = {
            "value": (np.asarray(ours.value), np.asarray(theirs.value)),
            "gradient by the logits": (ours.gradient, theirs.gradient),
        }
        for term in ours.sums | theirs.sums:
            absent = np.full(0, np.nan)
            pairs[f"sum of {term}"] = ours.sums.get(term, absent), theirs.sums.get(term, absent)
        rows += [
            Row("losses", "float64", f"loss: {name}", quantity, relative_error(a, b), STRICT)
            for quantity, (a, b) in pairs.items()
        ]
    return rows

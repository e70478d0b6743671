"""Losses of [B, H, W, K] logits, as sums that add up over images, devices and parts of a batch."""

from dataclasses import dataclass
from functools import reduce
from typing import Literal

import jax
import jax.numpy as jnp

from unet_jax.batch import IGNORED
from unet_jax.config import LossConfig
from unet_jax.lovasz import lovasz_hinge, lovasz_softmax

Sums = dict[str, jax.Array]
"""What `Loss.sums` gives: normalisers, which the masks alone decide, and one entry or three for
each term, which the logits decide."""

NORMALISERS = {
    "cross_entropy": "weights",
    "focal": "pixels",
    "dice": "images",
    "tversky": "images",
    "lovasz": "images",
}
"""What each term's sum is divided by."""

FEW = 6
"""Up to so many classes, each class is an array of its own: XLA has better code for that on a CPU
than for sums over so short an axis (docs/speed_cpu.md). With 8, its own sums are as fast. On other
devices it has not been measured."""


@dataclass(frozen=True)
class Loss:
    """The weighted sum of the terms whose weight is not 0.

    One logit stands for two classes: the background's logit is 0. Ignored pixels (255) and images
    that are not valid leave every sum; where nothing is left, the loss is 0.

    Attributes:
      cross_entropy: Weight of -log p of the true class. Mean over pixels, weighted by class.
      dice: Weight of 1 - (2 true_positives + smooth) / (predicted + true + smooth), by class, then
        the mean over the classes; over the foreground alone if there is one logit. A class in
        neither truth nor prediction scores 1, a loss of 0.
      tversky: Weight of the same with tversky_alpha of the false positives and tversky_beta of the
        false negatives in place of half of either.
      focal: Weight of (1 - p)^focal_gamma times -log p of the true class. Mean over pixels.
      lovasz: Weight of the Lovász extension of 1 - IoU: of the hinge loss for one logit, else of
        the probabilities, mean over the classes present. By image, then the mean over the images
        with a pixel that counts. Among equal errors the first pixel comes first, which decides
        which of the subgradients is taken.
      pos_weight: Factor of the foreground's cross-entropy (one logit only).
      class_weights: Weight of each class in cross-entropy and focal loss; None: 1 each.
      label_smoothing: Share of each target that goes to all classes alike (cross-entropy).
      reduction: Whether Dice and Tversky are taken by image, then the mean over the images with a
        pixel that counts; or once, of counts over the batch.
      smooth: Keeps Dice and Tversky from being 0 / 0.
      tversky_alpha, tversky_beta, focal_gamma: As above.
      focal_alpha: Weight of the foreground in the focal loss, the background's being 1 less this
        (one logit only); None: 1 both.
      border_weight: What a border map's 255 adds to a pixel's weight in the cross-entropy. The
        weights that are divided by do not have it.

    References:
      Dice: Milletari et al., 2016. https://arxiv.org/abs/1606.04797
      Tversky: Salehi et al., 2017. https://arxiv.org/abs/1706.05721
      Focal: Lin et al., 2017. https://arxiv.org/abs/1708.02002
      Lovász: Berman et al., 2018. https://arxiv.org/abs/1705.08790
      Border map: Ronneberger et al., 2015. https://arxiv.org/abs/1505.04597
      `torch.nn.CrossEntropyLoss`, `torch.nn.BCEWithLogitsLoss` and
      `torchvision.ops.sigmoid_focal_loss`, whose values these are.
    """

    cross_entropy: float = 1.0
    dice: float = 0.0
    tversky: float = 0.0
    focal: float = 0.0
    lovasz: float = 0.0
    pos_weight: float = 1.0
    class_weights: tuple[float, ...] | None = None
    label_smoothing: float = 0.0
    reduction: Literal["image", "batch"] = "image"
    smooth: float = 1e-6
    tversky_alpha: float = 0.3
    tversky_beta: float = 0.7
    focal_gamma: float = 2.0
    focal_alpha: float | None = None
    border_weight: float = 0.0

    def normalisers(self, mask: jax.Array, valid: jax.Array, dtype=jnp.float32) -> Sums:
        """Those of the sums that no logit changes.

        Returns:
          Scalars: `pixels` and `images`, numbers of those that count; `weights`, the sum of the
          pixels' class weights.
        """
        counted = _counted(mask, valid)
        weights = self._weights(jnp.where(counted, mask, 0), dtype)
        return {
            "pixels": jnp.sum(counted).astype(dtype),
            "images": jnp.sum(jnp.any(counted, axis=(1, 2))).astype(dtype),
            "weights": _sum(jnp.where(counted, weights, 0)),
        }

    def sums(
        self, logits: jax.Array, mask: jax.Array, valid: jax.Array, border: jax.Array | None = None
    ) -> Sums:
        """What `total` needs of these images: add it up over others, entry by entry.

        Args:
          logits: float [B, H, W, K]; half precision is computed in float32.
          mask: uint8 [B, H, W] of class ids: 0 or 1 if K is 1, else below K; 255 does not count.
          valid: bool [B]; images that count.
          border: uint8 [B, H, W], as of `unet_jax.border`; needed if border_weight is not 0.

        Returns:
          `normalisers`; and a scalar named after each term, or, of Dice and Tversky over a batch,
          `true_positives`, `false_positives` and `false_negatives`, [C] each.
        """
        dtype = jnp.promote_types(logits.dtype, jnp.float32)
        counted = _counted(mask, valid)
        # Selected before all else: 0 times infinity would be NaN, in the gradient too.
        logits = jnp.where(counted[..., None], logits.astype(dtype), 0)
        target = jnp.where(counted, mask, 0).astype("int32")
        log_p = _log_probabilities(logits)
        truth = counted[..., None] & jax.nn.one_hot(target, log_p.shape[-1], dtype=bool)
        sums = self.normalisers(mask, valid, dtype)
        if self.cross_entropy:
            losses = self._cross_entropy(log_p, target, border)
            sums["cross_entropy"] = _sum(jnp.where(counted, losses, 0))
        if self.focal:
            losses = self._focal(log_p, target, truth)
            sums["focal"] = _sum(jnp.where(counted, losses, 0))
        if self.lovasz:
            if logits.shape[-1] == 1:
                losses = lovasz_hinge(logits[..., 0], truth[..., 1], counted)
            else:
                losses = lovasz_softmax(jnp.exp(log_p), truth, counted)
            sums["lovasz"] = _sum(losses)
        if self.dice or self.tversky:
            if logits.shape[-1] == 1:
                log_p, truth = log_p[..., 1:], truth[..., 1:]
            sums |= self._overlap(log_p, truth, counted)
        return sums

    def total(self, sums: Sums) -> jax.Array:
        """The loss of all images whose `sums` were added up: a scalar, differentiable in them."""
        total = jnp.zeros_like(sums["pixels"])
        for term, normaliser in NORMALISERS.items():
            weight, count = getattr(self, term), sums[normaliser]
            if not weight:
                continue
            if term in ("dice", "tversky") and self.reduction == "batch":
                total += weight * jnp.mean(self._missed(term, sums))
            else:
                mean = sums[term] / jnp.where(count > 0, count, 1)
                total += weight * jnp.where(count > 0, mean, 0)
        return total

    def _weights(self, target: jax.Array, dtype) -> jax.Array:
        """The class weight of each pixel."""
        if self.class_weights is None:
            return jnp.ones(target.shape, dtype)
        return jnp.asarray(self.class_weights, dtype)[target]

    def _cross_entropy(
        self, log_p: jax.Array, target: jax.Array, border: jax.Array | None
    ) -> jax.Array:
        """Of each pixel: the sum over classes of weight × share in the target × -log p."""
        classes, dtype = log_p.shape[-1], log_p.dtype
        surprise = -log_p
        if self.pos_weight != 1:
            surprise *= jnp.asarray([1, self.pos_weight], dtype).reshape(1, 1, 1, 2)
        extra = jnp.zeros(target.shape, dtype)
        if self.border_weight:
            if border is None:
                raise ValueError(f"border_weight: {self.border_weight} needs a border map")
            extra = self.border_weight / 255 * border.astype(dtype)
        weights = self._weights(target, dtype) + extra
        loss = (1 - self.label_smoothing) * weights * _of_target(surprise, target)
        if self.label_smoothing:
            every = jnp.asarray(self.class_weights or [1] * classes, dtype)
            every = every.reshape(1, 1, 1, classes) + extra[..., None]
            loss += self.label_smoothing / classes * jnp.sum(every * surprise, axis=-1)
        return loss

    def _focal(self, log_p: jax.Array, target: jax.Array, truth: jax.Array) -> jax.Array:
        """Of each pixel."""
        # The logarithm of 1 - p: its power has a finite slope at p = 1 too, whatever the exponent.
        log_rest = jax.nn.logsumexp(jnp.where(truth, -jnp.inf, log_p), axis=-1)
        weights = self._weights(target, log_p.dtype)
        if self.focal_alpha is not None:
            weights *= jnp.where(target == 1, self.focal_alpha, 1 - self.focal_alpha)
        return weights * jnp.exp(self.focal_gamma * log_rest) * -_of_target(log_p, target)

    def _overlap(self, log_p: jax.Array, truth: jax.Array, counted: jax.Array) -> Sums:
        """The sums of Dice and Tversky, in which a pixel is predicted to the extent of p."""
        p, false = jnp.exp(log_p), counted[..., None] & ~truth
        counts = {
            "true_positives": _sum_by_image(jnp.where(truth, p, 0)),
            "false_positives": _sum_by_image(jnp.where(false, p, 0)),
            "false_negatives": _sum_by_image(jnp.where(truth, -jnp.expm1(log_p), 0)),
        }
        if self.reduction == "batch":
            return {name: jnp.sum(count, axis=0) for name, count in counts.items()}
        return {
            term: jnp.sum(jnp.mean(self._missed(term, counts), axis=-1))
            for term in ("dice", "tversky")
            if getattr(self, term)
        }

    def _missed(self, term: str, counts: Sums) -> jax.Array:
        """1 - Dice or Tversky index of each count; Dice is Tversky with 1/2 and 1/2."""
        half = term == "dice"
        alpha, beta = (0.5, 0.5) if half else (self.tversky_alpha, self.tversky_beta)
        errors = alpha * counts["false_positives"] + beta * counts["false_negatives"]
        # Not by subtraction from 1, in which a small loss would lose its digits.
        return errors / (counts["true_positives"] + errors + self.smooth / 2)


def build_loss(config: LossConfig, class_weights: tuple[float, ...] | None) -> Loss:
    """The loss of these settings, their class weights found out by `unet_jax.balance`."""
    return Loss(**config.arguments(class_weights))


def _counted(mask: jax.Array, valid: jax.Array) -> jax.Array:
    return valid[:, None, None] & (mask != IGNORED)


def _sum(values: jax.Array) -> jax.Array:
    """Sums [B, H, W]."""
    return jnp.sum(_sum_by_image(values))


def _sum_by_image(values: jax.Array) -> jax.Array:
    """Sums [B, H, W, …] over H, adding whole rows to each other, then over W."""
    # XLA would merge the two sums into one, which on a CPU adds pixel after pixel to a total so
    # large that their last bits are lost.
    columns = jax.lax.optimization_barrier(jnp.sum(values, axis=1))
    return jnp.sum(columns, axis=1)


def _log_probabilities(logits: jax.Array) -> jax.Array:
    """Of each class: [B, H, W, 2] for one logit."""
    classes = logits.shape[-1]
    if classes == 1:
        return jnp.concatenate([jax.nn.log_sigmoid(-logits), jax.nn.log_sigmoid(logits)], axis=-1)
    if classes > FEW:
        return jax.nn.log_softmax(logits)
    planes = _planes(logits)
    highest = jax.lax.stop_gradient(reduce(jnp.maximum, planes))
    planes = [plane - highest for plane in planes]
    total = jnp.log(reduce(jnp.add, map(jnp.exp, planes)))
    return jnp.stack([plane - total for plane in planes], axis=-1)


def _planes(values: jax.Array) -> list[jax.Array]:
    """Each class's [B, H, W] of [B, H, W, C]."""
    # The gradient of a split is put together at once, that of an index is added up plane by plane.
    return [jnp.squeeze(plane, -1) for plane in jnp.split(values, values.shape[-1], axis=-1)]


def _of_target(values: jax.Array, target: jax.Array) -> jax.Array:
    """Picks each pixel's class from [B, H, W, C]; NaN, not 0, if there is no such class."""
    if values.shape[-1] > FEW:
        return jnp.take_along_axis(values, target[..., None], axis=-1, mode="fill")[..., 0]
    picked = jnp.full(target.shape, jnp.nan, values.dtype)
    for c, plane in enumerate(_planes(values)):
        picked = jnp.where(target == c, plane, picked)
    return picked

"""Losses of [B, K, H, W] logits, as sums that add up over images, devices and parts of a batch."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from unet_torch_ref.batch import IGNORED
from unet_torch_ref.lovasz import lovasz_hinge, lovasz_softmax

Sums = dict[str, Tensor]
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
        with a pixel that counts.
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

    def normalisers(self, mask: Tensor, valid: Tensor, dtype=torch.float32) -> Sums:
        """Those of the sums that no logit changes.

        Returns:
          Scalars: `pixels` and `images`, numbers of those that count; `weights`, the sum of the
          pixels' class weights.
        """
        counted = _counted(mask, valid)
        table = self._table(mask.device, dtype)
        weights = counted.to(dtype)
        if table is not None:
            weights = weights * table[torch.where(counted, mask, 0).long()]
        return {
            "pixels": counted.sum().to(dtype),
            "images": counted.any((1, 2)).sum().to(dtype),
            "weights": weights.sum(),
        }

    def sums(
        self, logits: Tensor, mask: Tensor, valid: Tensor, border: Tensor | None = None
    ) -> Sums:
        """What `total` needs of these images: add it up over others, entry by entry.

        Args:
          logits: float [B, K, H, W]; half precision is computed in float32.
          mask: uint8 [B, H, W] of class ids: 0 or 1 if K is 1, else below K; 255 does not count.
          valid: bool [B]; images that count.
          border: uint8 [B, H, W], the border map; needed if border_weight is not 0.

        Returns:
          `normalisers`; and a scalar named after each term, or, of Dice and Tversky over a batch,
          `true_positives`, `false_positives` and `false_negatives`, [C] each.
        """
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        counted = _counted(mask, valid)
        # Selected before all else: 0 times infinity would be NaN, in the gradient too. From here on
        # it is a factor: to index by it would have the host wait for the device.
        logits = torch.where(counted[:, None], logits, 0)
        target = torch.where(counted, mask, 0).long()
        sums = self.normalisers(mask, valid, logits.dtype)
        if self.cross_entropy:
            sums["cross_entropy"] = (self._cross_entropy(logits, target, border) * counted).sum()
        if self.focal:
            sums["focal"] = (self._focal(logits, target) * counted).sum()
        if self.lovasz:
            lovasz = lovasz_hinge if logits.shape[1] == 1 else lovasz_softmax
            images = zip(logits, target, counted, strict=True)
            sums["lovasz"] = torch.stack([lovasz(x[:, c], t[c]) for x, t, c in images]).sum()
        if self.dice or self.tversky:
            sums |= self._overlap(logits, target, counted)
        return sums

    def total(self, sums: Sums) -> Tensor:
        """The loss of all images whose `sums` were added up: a scalar, differentiable in them."""
        total = torch.zeros_like(sums["pixels"])
        for term, normaliser in NORMALISERS.items():
            weight, count = getattr(self, term), sums[normaliser]
            if not weight:
                continue
            if term in ("dice", "tversky") and self.reduction == "batch":
                total = total + weight * self._missed(term, sums).mean()
            else:
                mean = sums[term] / torch.where(count > 0, count, 1)
                total = total + weight * torch.where(count > 0, mean, 0)
        return total

    def _table(self, device: torch.device, dtype: torch.dtype) -> Tensor | None:
        """Weight of each class, [C]."""
        if self.class_weights is None:
            return None
        # A copy that nothing waits for.
        return torch.tensor(self.class_weights, dtype=dtype).to(device, non_blocking=True)

    def _cross_entropy(self, logits: Tensor, target: Tensor, border: Tensor | None) -> Tensor:
        """Of each pixel."""
        entropy = self._binary if logits.shape[1] == 1 else self._categorical
        loss = entropy(logits, target, self._table(logits.device, logits.dtype))
        if not self.border_weight:
            return loss
        if border is None:
            raise ValueError(f"border_weight: {self.border_weight} needs a border map")
        extra = self.border_weight / 255 * border.to(logits.dtype)
        return loss + extra * entropy(logits, target, None)

    def _categorical(self, logits: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
        smoothing = self.label_smoothing
        return F.cross_entropy(logits, target, weight, reduction="none", label_smoothing=smoothing)

    def _binary(self, logits: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
        """Smoothed, it is what two classes have: a share of the mean over both targets."""
        logit = logits[:, 0]
        pos_weight = None if self.pos_weight == 1 else logits.new_full((), self.pos_weight)
        weight = logits.new_ones(2) if weight is None else weight  # Any other class is an error.

        def entropy(target: Tensor) -> Tensor:
            return F.binary_cross_entropy_with_logits(
                logit,
                target.to(logit.dtype),
                weight[target],
                pos_weight=pos_weight,
                reduction="none",
            )

        if not self.label_smoothing:
            return entropy(target)
        both = entropy(torch.zeros_like(target)) + entropy(torch.ones_like(target))
        return (1 - self.label_smoothing) * entropy(target) + self.label_smoothing / 2 * both

    def _focal(self, logits: Tensor, target: Tensor) -> Tensor:
        """Of each pixel."""
        # The logarithm of 1 - p: its power has a finite slope at p = 1 too, whatever the exponent.
        if logits.shape[1] == 1:
            logit = torch.where(target == 1, logits[:, 0], -logits[:, 0])
            log_p, log_rest = F.logsigmoid(logit), F.logsigmoid(-logit)
        else:
            log_p = -F.cross_entropy(logits, target, reduction="none")
            truth = F.one_hot(target, logits.shape[1]).movedim(-1, 1).bool()
            rest = F.log_softmax(logits, 1).masked_fill(truth, float("-inf"))
            log_rest = rest.logsumexp(1)
        loss = (self.focal_gamma * log_rest).exp() * -log_p
        table = self._table(logits.device, logits.dtype)
        if table is not None:
            loss = loss * table[target]
        if self.focal_alpha is not None:
            loss = loss * torch.where(target == 1, self.focal_alpha, 1 - self.focal_alpha)
        return loss

    def _overlap(self, logits: Tensor, target: Tensor, counted: Tensor) -> Sums:
        """The sums of Dice and Tversky, in which a pixel is predicted to the extent of p."""
        if logits.shape[1] == 1:
            p, truth = logits.sigmoid(), target[:, None]
        else:
            p, truth = logits.softmax(1), F.one_hot(target, logits.shape[1]).movedim(-1, 1)
        counted = counted[:, None]
        counts = {
            "true_positives": (p * truth * counted).sum((2, 3)),
            "false_positives": (p * (1 - truth) * counted).sum((2, 3)),
            "false_negatives": ((1 - p) * truth * counted).sum((2, 3)),
        }
        if self.reduction == "batch":
            return {name: count.sum(0) for name, count in counts.items()}
        return {
            term: self._missed(term, counts).mean(1).sum()
            for term in ("dice", "tversky")
            if getattr(self, term)
        }

    def _missed(self, term: str, counts: Sums) -> Tensor:
        """1 - Dice or Tversky index of each count; Dice is Tversky with 1/2 and 1/2."""
        half = term == "dice"
        alpha, beta = (0.5, 0.5) if half else (self.tversky_alpha, self.tversky_beta)
        right = counts["true_positives"] + self.smooth / 2
        errors = alpha * counts["false_positives"] + beta * counts["false_negatives"]
        return 1 - right / (right + errors)


def _counted(mask: Tensor, valid: Tensor) -> Tensor:
    return valid[:, None, None] & (mask != IGNORED)

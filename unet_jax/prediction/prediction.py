"""What a network says of an image."""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from unet_jax.prediction.picture import Picture
from unet_jax.visualize import overlay
from unet_jax.weights import Colour

OVERLAID = 1024
"""Rows that are drawn at once: drawing takes many times the memory of the picture."""
NAMED = 5
"""Classes that are told."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Prediction:
    """What a network says of an image, at the image's native size.

    Attributes:
      mask: Class ids, uint8 [H, W].
      probabilities: Of each class, float [H, W, C]; None if they were not asked for.
      classes: Name of each class id.
      palette: RGB colour of each class id.
      picture: The image.
    """

    mask: np.ndarray
    probabilities: np.ndarray | None
    classes: tuple[str, ...]
    palette: tuple[Colour, ...]
    picture: Picture

    def overlay(self, alpha: float = 0.5) -> Image.Image:
        """The image tinted in the colours of its classes, which a line parts.

        Args:
          alpha: Opacity of the tint.
        """
        pixels = self.picture.read(None)
        drawn = np.empty_like(pixels)
        for top in range(0, len(drawn), OVERLAID):
            rows = slice(top, top + OVERLAID + 1)  # The last one is there for its line.
            tinted = overlay(
                pixels[rows], self.mask[rows], self.palette, alpha=alpha, outlines=True
            )
            drawn[top : top + OVERLAID] = tinted[:OVERLAID]
        return Image.fromarray(drawn)

    def __repr__(self) -> str:
        """Its size, and what of it is which class."""
        height, width = self.mask.shape
        ids, counts = np.unique(self.mask, return_counts=True)
        most = sorted(zip(counts, ids, strict=True), reverse=True)
        told = [f"{self.classes[i]} {n / self.mask.size:.1%}" for n, i in most[:NAMED]]
        told += [f"{len(most) - NAMED} more"] if len(most) > NAMED else []
        return f"Prediction({height}×{width}: {', '.join(told)})"

    def _repr_png_(self) -> bytes:
        """What a notebook shows."""
        picture, buffer = self.overlay(), io.BytesIO()
        picture.thumbnail((1024, 1024))
        picture.save(buffer, "PNG")
        return buffer.getvalue()

"""What both frameworks make of the same draws: images and masks."""

from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
import torch

import unet_jax.augment
import unet_torch_ref.augment
from parity.row import Row, count_row
from unet_jax.batch import IGNORED, Batch
from unet_jax.config import AugmentConfig
from unet_jax.draws import Draw, draw
from unet_torch_ref.batch import to_tensors

MEAN_STD = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
ALL: dict[str, Any] = {
    "horizontal_flip": 0.5,
    "vertical_flip": 0.25,
    "rotation": 40,
    "scale": (0.7, 1.6),
    "translation": 0.2,
    "crop": 0.5,
    "crop_ratio": (0.3, 0.9),
    "brightness": 0.4,
    "contrast": 0.5,
    "saturation": 0.9,
    "hue": 0.3,
    "gamma": 0.7,
}
OFF: dict[str, Any] = {"horizontal_flip": 0.0}
MOVING = ("horizontal_flip", "vertical_flip", "rotation", "scale", "translation", "crop")
COLOURING = ("brightness", "contrast", "saturation", "hue", "gamma")
OPTIONS = {name: AugmentConfig(**{**OFF, name: ALL[name]}) for name in MOVING + COLOURING}
OPTIONS["all"] = AugmentConfig(**ALL)
LIMITS = {"float64": 1e-12, "float32": 1e-5}
"""Of a normalised pixel. Values of up to 3, after some dozen roundings: of 1e-16 each in float64,
of 6e-8 in float32."""


def draw_many(config: AugmentConfig, count: int, **changes: Any) -> list[Draw]:
    where = {"seed": 0, "epoch": 0, "size": (24, 40), "native": (90, 100), **changes}
    return [draw(config, index=index, **where) for index in range(count)]


def random_batch(
    config: AugmentConfig,
    size: tuple[int, int],
    count: int = 16,
    output: tuple[int, int] | None = None,
) -> Batch:
    """Noise, with greys, blacks and whites, ignored pixels, and draws for a native 3:2."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (count, *size, 3), np.uint8)
    image[:, :3] = image[:, :3, :, :1]
    image[:, 3:4, ::2], image[:, 3:4, 1::2] = 0, 255
    mask = rng.choice(np.array([0, 1, 2, IGNORED], np.uint8), (count, *size))
    drawn = draw_many(config, count, size=output or size, native=(300, 200), stored=size)
    geometry, colour = (np.stack(column) for column in zip(*drawn, strict=True))
    return Batch(image, mask, np.ones(count, bool), geometry, colour)


def compare_augmentation(
    options: Iterable[str] = OPTIONS, stored: tuple[int, int] = (25, 37), size=(13, 19)
) -> list[Row]:
    """Compares what samples become; an error is the largest of a pixel, or how many ids differ.

    Args:
      options: Of `OPTIONS`; each on its own, and all of them.
      stored: Height and width of the pictures, odd by default.
      size: Height and width of what is made of them.
    """
    rows = []
    for option in options:
        batch = random_batch(OPTIONS[option], stored, output=size)
        for precision, limit in LIMITS.items():
            image, mask = jax.jit(
                # A function of its own, which no cache knows by its name.
                lambda batch, dtype=precision: unet_jax.augment.inputs_and_targets(
                    batch, MEAN_STD, dtype, IGNORED, size
                )
            )(batch)
            tensors = unet_torch_ref.augment.inputs_and_targets(
                to_tensors(batch), MEAN_STD, getattr(torch, precision), IGNORED, size
            )
            theirs = tensors[0].permute(0, 2, 3, 1).numpy()
            stage = f"augmentation: {option}"
            error = float(np.max(np.abs(np.asarray(image, np.float64) - theirs)))
            rows.append(Row("augmentation", precision, stage, "pixels", error, limit))
            if precision == "float64":
                rows.append(
                    count_row("augmentation", stage, "mask", np.asarray(mask), tensors[1].numpy())
                )
    return rows

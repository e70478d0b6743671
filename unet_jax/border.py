"""The U-Net paper's map of the borders between objects."""

import math

import numpy as np
from scipy import ndimage

from unet_jax.batch import IGNORED


def border_map(mask: np.ndarray, sigma: float) -> np.ndarray:
    """How much a pixel of the background parts two objects: 255 exp(-(d1 + d2)² / 2σ²).

    d1 and d2 are the distances to the nearest pixel of the nearest and of the second nearest
    object. An object is a connected piece of one class, side by side, not corner to corner; class 0
    is background.

    Args:
      mask: uint8 [H, W] of class ids; pixels of 255 are neither object nor background.
      sigma: How wide borders are, in pixels.

    Returns:
      uint8 [H, W]; 0 in objects and ignored pixels, and everywhere if there are fewer than two
      objects.

    References:
      Ronneberger et al., 2015. https://arxiv.org/abs/1505.04597
    """
    objects, places = _objects(mask)
    # Farther than that from the second nearest object, the map is below 1/2.
    reach = math.ceil(sigma * math.sqrt(2 * math.log(2 * 255)))
    nearest, second = np.full((2, *mask.shape), np.inf)
    for number, place in enumerate(places, start=1):
        around = tuple(slice(max(s.start - reach, 0), s.stop + reach) for s in place)
        distance = np.asarray(ndimage.distance_transform_edt(objects[around] != number))
        second[around] = np.minimum(second[around], np.maximum(nearest[around], distance))
        nearest[around] = np.minimum(nearest[around], distance)
    weight = 255 * np.exp(-((nearest + second) ** 2) / (2 * sigma**2))
    return np.where(mask == 0, np.rint(weight), 0).astype(np.uint8)


def _objects(mask: np.ndarray) -> tuple[np.ndarray, list[tuple[slice, slice]]]:
    """The number of each pixel's object, from 1, or 0; and the rectangle that holds each object."""
    objects = np.zeros(mask.shape, np.int32)
    for index in np.unique(mask[(mask != 0) & (mask != IGNORED)]):
        pieces = np.zeros_like(objects)
        ndimage.label(mask == index, output=pieces)
        objects = np.where(pieces > 0, pieces + objects.max(), objects)
    return objects, ndimage.find_objects(objects)

"""A trained network that predicts: `unet_jax.load("runs/my-run").predict("car.jpg").mask`."""

from collections.abc import Callable, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from unet_jax.datasets.files import quiet
from unet_jax.models import build_model
from unet_jax.models.platforms import for_default_device
from unet_jax.prediction.bands import resize_bands
from unet_jax.prediction.picture import Picture, Size, open_picture
from unet_jax.prediction.predict_config import PredictConfig
from unet_jax.prediction.prediction import Prediction
from unet_jax.prediction.regions import remove_small_regions
from unet_jax.prediction.tiles import pad_to, tiled_bands
from unet_jax.probabilities import float_variables, probabilities
from unet_jax.trained import load_trained
from unet_jax.weights import Trained

FLIPS = {"none": [()], "h": [(), (2,)], "v": [(), (1,)], "hv": [(), (2,), (1,), (1, 2)]}
"""Axes of [B, H, W, C] that are turned round, for each image that is averaged over."""


class Predictor:
    """Predicts with a trained network, on one device.

    Attributes:
      trained: The network and what goes with it: `classes`, `palette`, `size`, `facts`.
      batch_size: Images, or tiles of one, that it is given at once.
    """

    def __init__(self, trained: Trained, *, batch_size: int = 8) -> None:
        """Args:
        trained: The network.
        batch_size: Images, or tiles of one, that it is given at once.
        """
        self.trained, self.batch_size = trained, batch_size
        self.smallest = trained.model.unit
        self._fill = np.clip(np.rint(255 * np.array(trained.mean)), 0, 255).astype(np.uint8)

    def __repr__(self) -> str:
        """What kind of network it is, what it was trained at, and for how many classes."""
        trained = self.trained
        height, width = trained.size
        classes = f"{len(trained.classes)} classes"
        return f"Predictor({trained.model.architecture}, {height}×{width}, {classes})"

    def predict(
        self,
        image: str | Path | Image.Image | np.ndarray,
        *,
        size: Size | Literal["native"] | None = None,
        tile: Size | None = None,
        overlap: float = 0.5,
        flips: Literal["none", "h", "v", "hv"] = "none",
        threshold: float = 0.5,
        min_area: int = 0,
        white: int = 65535,
        probabilities: bool = True,
    ) -> Prediction:
        """Finds the class of every pixel.

        Args:
          image: A file's name; a Pillow image; or uint8 or uint16 [H, W] (grey), [H, W, 3] (RGB)
            or [H, W, 4] (RGB and alpha, which is left out). Of any size.
          size: Height and width that it is resized to for the network, "native" being its own. By
            default the training's; with `tile`, native.
          tile: Height and width of overlapping tiles that the network is shown one after another;
            None: it is shown the whole.
          overlap: Least share of a tile that the next one covers, too.
          flips: Averages over the image and its mirror images: "h" left for right, "v" top for
            bottom, "hv" both, and both at once.
          threshold: Probability above which a pixel is foreground, if there are two classes.
          min_area: Fewest pixels of a region; smaller ones take the class of what is nearest.
          white: The value of 16-bit images that is white.
          probabilities: Whether these are kept: a number for each class and pixel.

        Raises:
          ValueError: A setting is out of range, or the array of another form.
          OSError: The file cannot be read, or is not an image.
        """
        config = PredictConfig(
            size=size,
            tile=tile,
            overlap=overlap,
            flips=flips,
            threshold=threshold,
            min_area=min_area,
            white=white,
        )
        self.check(config)
        with quiet():
            picture = open_picture(image, white)
            bands = self.bands(self.seen(picture, config), picture.native, config)
            return self.decide(picture, bands, config, keep=probabilities)

    def check(self, config: PredictConfig) -> None:
        """Raises `ValueError` if a setting does not go with this network."""
        count = len(self.trained.classes)
        if count > 2 and config.threshold != 0.5:
            raise ValueError(
                f"threshold: {config.threshold} needs two classes, and there are {count}"
            )
        if config.tile is not None and min(config.tile) < self.smallest:
            raise ValueError(
                f"tile: {config.tile[0]}×{config.tile[1]} is too small; this network needs "
                f"{self.smallest}×{self.smallest} pixels or more"
            )

    def seen(self, picture: Picture, config: PredictConfig) -> np.ndarray:
        """The image as the network sees it, or its tiles are cut from it: uint8 [h, w, 3]."""
        if config.size == "native" or (config.size is None and config.tile is not None):
            return picture.read(None)
        return picture.read(config.size or self.trained.size)

    def bands(self, image: np.ndarray, native: Size, config: PredictConfig) -> Iterator[np.ndarray]:
        """Probabilities of a picture at its native size: [n, W, K], from top to bottom.

        K is the number of logits: if it is 1, the probability is the foreground's.

        Args:
          image: As `seen` gives it.
          native: The picture's height and width, H and W.
          config: For `tile`, `overlap` and `flips`.
        """
        run = partial(self.run, flips=config.flips)
        if config.tile is None:
            bands = iter(run(image[None]))
        else:
            bands = tiled_bands(
                image, config.tile, config.overlap, run, self.batch_size, self._fill
            )
        return resize_bands(bands, (image.shape[0], image.shape[1]), native)

    def run(self, images: np.ndarray, flips: str = "none") -> np.ndarray:
        """Probabilities [B, H, W, K] of images uint8 [B, H, W, 3], averaged over `flips`.

        Every B, H and W is compiled for once.
        """
        height, width = images.shape[1:3]
        if min(height, width) < self.smallest:
            sides = self.smallest, self.smallest
            images = np.stack([pad_to(image, sides, self._fill) for image in images])
        seen = (np.flip(self.network(np.flip(images, axes)), axes) for axes in FLIPS[flips])
        total = next(seen)
        for more in seen:
            total = total + more
        if flips != "none":  # One alone may be too large to be copied.
            total = total / len(FLIPS[flips])
        return total[:, :height, :width]

    @cached_property
    def network(self) -> Callable[[np.ndarray], np.ndarray]:
        """Probabilities [B, H, W, K] of images [B, H, W, 3] with values from 0 to 255."""
        trained = self.trained
        variables = jax.tree.map(jnp.asarray, float_variables(trained.variables))
        network = partial(
            probabilities,
            model=build_model(trained.model, trained.num_logits),
            mean_std=(trained.mean, trained.std),
            each_class=False,
        )
        network = jax.jit(for_default_device(network))
        return lambda images: np.asarray(network(variables, images))

    def decide(
        self,
        picture: Picture,
        bands: Iterator[np.ndarray],
        config: PredictConfig,
        *,
        keep: bool,
    ) -> Prediction:
        """Makes classes of probabilities, as they come.

        Args:
          picture: The image.
          bands: As `bands` gives them.
          config: For `threshold` and `min_area`.
          keep: Whether probabilities are kept.
        """
        height, width = picture.native
        mask, kept, row = np.empty((height, width), np.uint8), None, 0
        for band in bands:
            rows = slice(row, row + len(band))
            mask[rows] = most_probable(band, len(self.trained.classes), config.threshold)
            if keep:
                whole = _of_each_class(band)
                kept = np.empty((height, *whole.shape[1:]), whole.dtype) if kept is None else kept
                kept[rows] = whole
            row += len(band)
        if config.min_area > 1:
            mask = remove_small_regions(mask, config.min_area)
        return Prediction(
            mask=mask,
            probabilities=kept,
            classes=self.trained.classes,
            palette=self.trained.palette,
            picture=picture,
        )


def most_probable(band: np.ndarray, classes: int, threshold: float = 0.5) -> np.ndarray:
    """Class ids, uint8 [...], of probabilities [..., K].

    Args:
      band: Probabilities; if K is 1, the foreground's.
      classes: How many there are, C.
      threshold: Probability above which a pixel is foreground, if there are two classes.
    """
    return (band[..., -1] > threshold if classes == 2 else band.argmax(-1)).astype(np.uint8)


def load(
    place: str | Path, *, last: bool = False, ema: bool = True, batch_size: int = 8
) -> Predictor:
    """Opens a trained network for predicting.

    Args:
      place: The folder of a run of JAX, whose best state is taken; or a file of
        `unet_jax.weights`.
      last: Of a run, the last state and not the best one.
      ema: Of a run that has an average of its weights, whether that is taken.
      batch_size: Images, or tiles of one, that the network is given at once.

    Raises:
      ValueError: It is neither, or damaged, or nothing has been saved yet; the message names it.
      OSError: It cannot be read.
    """
    return Predictor(load_trained(place, last=last, ema=ema), batch_size=batch_size)


def _of_each_class(band: np.ndarray) -> np.ndarray:
    """[n, W, C] of [n, W, K]."""
    return band if band.shape[2] > 1 else np.concatenate([1 - band, band], axis=2)

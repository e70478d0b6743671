"""What an exported network computes, the same in every format: uint8 images to probabilities."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from unet_jax.models import build_model
from unet_jax.probabilities import float_variables, probabilities
from unet_jax.weights import Trained, load_weights, save_weights

Size = tuple[int, int]
Run = Callable[[np.ndarray], np.ndarray]
"""Images, uint8 [B, H, W, 3] -> probabilities of each class, float [B, H, W, C]."""


class Format(NamedTuple):
    """A kind of file that a network is exported as.

    Attributes:
      suffix: Of its name.
      layout: Order of the axes of what the file itself takes and gives.
      write: Writes the network, for images of this height and width, to a path.
      load: Reads such a file back; what runs it takes and gives NHWC, whatever the file does.
      times: How many times as far from the truth as Flax the file may be, both in float32.
      reason: Why.
      usage: Python code from `image.jpg` to `probabilities` and `mask`: {file} stands for the
        name of the file, {images} for the lines that import NumPy and Pillow, and make `images`,
        uint8 [1, H, W, 3].
      packages: Whose versions matter to it, beside those of `unet_jax`.
    """

    suffix: str
    layout: Literal["NHWC", "NCHW"]
    write: Callable[[Trained, Size, Path], None]
    load: Callable[[Path], Run]
    times: float
    reason: str
    usage: str
    packages: tuple[str, ...]


def build_function(trained: Trained, dtype: Any = np.float32) -> Callable[[Any], jax.Array]:
    """The function that is exported.

    Args:
      trained: The network.
      dtype: What it computes in.

    Returns:
      Images, uint8 [B, H, W, 3], RGB, as decoded -> probabilities of each class [B, H, W, C]; of
      two classes, too, whether the network has one logit for them or two.
    """
    function = partial(
        probabilities,
        float_variables(trained.variables, dtype),
        model=build_model(trained.model, trained.num_logits),
        mean_std=(trained.mean, trained.std),
        dtype=dtype,
        each_class=True,
    )
    return jax.jit(function)


def _load(path: Path) -> Run:
    function = build_function(load_weights(path))
    return lambda images: np.asarray(function(images))


SAFETENSORS = Format(
    suffix=".safetensors",
    layout="NHWC",
    write=lambda trained, size, path: save_weights(trained, path),
    load=_load,
    times=2.0,
    reason="the same numbers and program, compiled for another number of images",
    usage="""\
import unet_jax

prediction = unet_jax.load("{file}").predict("image.jpg")  # Resizes by itself, and back.
probabilities = prediction.probabilities  # [H, W, classes]
mask = prediction.mask  # uint8 [H, W], of the size that the image has.
""",
    packages=("safetensors",),
)

"""Whether an exported file gives what its network gives: judged by the float64 result."""

from typing import NamedTuple

import jax
import numpy as np

from unet_jax.datasets.scene import render
from unet_jax.exporting.artefact import Run, Size, build_function
from unet_jax.weights import Trained

SEED = 20150518
FLOOR = 2.0**-24
"""Relative rounding error of one float32 number: closer to the truth than this none can be asked
to be."""


class Different(Exception):
    """A file does not give what its network gives; the message says by how much."""


class Reference(NamedTuple):
    """What a network gives for the test images.

    Attributes:
      images: uint8 [2, H, W, 3]: a rendered scene and noise.
      exact: Probabilities in float64 [2, H, W, C].
      plain: The same, computed by Flax in float32.
    """

    images: np.ndarray
    exact: np.ndarray
    plain: np.ndarray


class Difference(NamedTuple):
    """How far a file is from its network.

    Attributes:
      error: ‖file − exact‖ / ‖exact‖ over all probabilities, batches of one and of two images.
      times: The same as a multiple of Flax's own error in float32.
      largest: Largest difference of a probability from Flax's in float32.
    """

    error: float
    times: float
    largest: float


def sample_images(size: Size) -> np.ndarray:
    """uint8 [2, H, W, 3], always the same: a rendered scene, and noise."""
    height, width = size
    # The renderer wants 16 pixels a side.
    scene, _ = render(SEED, 0, max(height, 16), max(width, 16))
    noise = np.random.default_rng(SEED).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return np.stack([scene[:height, :width], noise])


def refer(trained: Trained, size: Size) -> Reference:
    """Runs the network in float64 and in float32, on the CPU: there, neither is rounded further.

    Raises:
      ValueError: It gives numbers that are not finite.
    """
    images = sample_images(size)
    with on_cpu():
        plain = np.asarray(build_function(trained)(images))
        if not np.isfinite(plain).all():
            raise ValueError("the network gives numbers that are not finite")
        with jax.enable_x64(True):
            exact = np.asarray(build_function(trained, np.float64)(images))
    return Reference(images, exact, plain)


def compare(run: Run, reference: Reference, times: float) -> Difference:
    """Runs what a file holds on a batch of one image and on one of two.

    Args:
      run: What `Format.load` returned.
      reference: What its network gives.
      times: How many times Flax's own error the file's may be.

    Raises:
      Different: It is more than that, or of another shape.
    """
    images = reference.images
    with on_cpu():
        found = [run(images[:1]), run(images)]
    exact = np.concatenate([reference.exact[:1], reference.exact])
    plain = np.concatenate([reference.plain[:1], reference.plain])
    shapes = [batch.shape for batch in found]
    if shapes != [reference.exact[:1].shape, reference.exact.shape]:
        raise Different(f"gives shapes {shapes}; the network {reference.exact.shape[1:]} an image")
    given = np.concatenate(found)
    error = distance(given, exact)
    own = max(distance(plain, exact), FLOOR)
    difference = Difference(error, error / own, float(np.abs(given - plain).max()))
    if not difference.times <= times:  # Not `>`: NaN is different, too.
        raise Different(
            f"is {difference.times:.3g} times as far from the float64 result as Flax in float32, "
            f"relative error {error:.3g}; allowed: {times:g} times"
        )
    return difference


def distance(given: np.ndarray, exact: np.ndarray) -> float:
    """‖given − exact‖ / ‖exact‖."""
    return float(np.linalg.norm(given - exact) / np.linalg.norm(exact))


def on_cpu():
    """Runs what JAX runs in this context on the CPU."""
    return jax.default_device(jax.local_devices(backend="cpu")[0])

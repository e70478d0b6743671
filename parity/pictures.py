"""Both frameworks' predictions of one image, and how far they are apart, as PNG files."""

from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import torch
from PIL import Image
from torch import nn

from parity.cases import Case
from parity.convert import to_flax
from parity.device import arithmetic, torch_device
from parity.sides import make_batch, torch_state
from unet_jax.augment import normalise as normalise_jax
from unet_jax.batch import Batch
from unet_jax.metrics import predict_classes
from unet_jax.models import build_model
from unet_jax.visualize import Palette, overlay
from unet_torch_ref.augment import normalise as normalise_torch

NAMES = ("prediction_jax.png", "prediction_torch.png", "prediction_difference.png")


def read_image(path: Path, size: tuple[int, int]) -> np.ndarray:
    """An image file as uint8 [H, W, 3].

    Raises:
      ValueError: It is none.
    """
    try:
        with Image.open(path) as image:
            resized = image.convert("RGB").resize((size[1], size[0]), Image.Resampling.BILINEAR)
    except OSError as error:
        raise ValueError(f"--image: {path}: {error.strerror or 'not an image'}") from None
    return np.asarray(resized)


def picture_batch(case: Case, image: np.ndarray) -> Batch:
    """A batch of the image, every second time mirrored, with random masks."""
    batch = make_batch(case)
    images = [image[:, :: (-1) ** n] for n in range(case.batch)]
    return batch._replace(image=np.stack(images))


def predict_both(case: Case, model: nn.Module, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Float32 logits [H, W, K] of JAX and of PyTorch, in evaluation."""
    twin = model.float().to(torch_device()).eval()
    variables = to_flax(torch_state(twin), twin)
    with arithmetic("float32"), torch.no_grad():
        normal = normalise_jax(image[None], case.mean_std, np.float32)
        ours = build_model(case.model, case.num_classes).apply(variables, normal)
        pixels = torch.from_numpy(np.ascontiguousarray(image[None])).to(torch_device())
        theirs = twin(normalise_torch(pixels, case.mean_std, torch.float32))
    return np.asarray(ours)[0], theirs[0].permute(1, 2, 0).cpu().numpy()


def draw_pictures(
    case: Case, model: nn.Module, image: np.ndarray, palette: Palette, out: Path
) -> list[str]:
    """Writes both predictions and their difference; returns the files' names.

    Args:
      case: The network's configuration.
      model: The PyTorch network, which becomes one of float32.
      image: uint8 [H, W, 3].
      palette: RGB colour of each class.
      out: The folder.
    """
    logits = predict_both(case, model, image)
    for each, name in zip(logits, NAMES, strict=False):
        ids = np.asarray(predict_classes(jnp.asarray(each[None])))[0]
        Image.fromarray(overlay(image, ids, palette, outlines=True)).save(out / name)
    ours, theirs = (_probabilities(each) for each in logits)
    _plot_difference(np.abs(ours - theirs).max(axis=-1), logits, out / NAMES[2])
    return list(NAMES)


def _probabilities(logits: np.ndarray) -> np.ndarray:
    logits = logits.astype(np.float64)
    if logits.shape[-1] == 1:
        return 1 / (1 + np.exp(-logits))
    return np.asarray(jax.nn.softmax(logits))


def _plot_difference(difference: np.ndarray, logits: Sequence[np.ndarray], path: Path) -> None:
    from matplotlib.figure import Figure  # Slow to import, and only needed here.

    ours, theirs = (np.asarray(predict_classes(jnp.asarray(each[None]))) for each in logits)
    pixels = np.count_nonzero(ours != theirs)
    height, width = difference.shape
    figure = Figure(figsize=(7, 1.2 + 6 * height / width), layout="constrained")
    axes = figure.subplots()
    shown = np.log10(np.maximum(difference, 1e-9))
    image = axes.imshow(shown, "magma", vmin=-9, vmax=0, interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(
        f"|JAX − PyTorch|, probability: at most {difference.max():.1e}\n"
        f"{pixels:,} of {difference.size:,} pixels of another class",
        fontsize="medium",
    )
    bar = figure.colorbar(image, ax=axes, ticks=[-9, -6, -3, 0])
    bar.ax.set_yticklabels(["≤ 1e-9", "1e-6", "1e-3", "1"])
    figure.savefig(path, dpi=120)

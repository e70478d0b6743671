"""A small network to predict with, and images for it; for tests of prediction."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from unet_jax.config import ModelConfig
from unet_jax.models import build_model
from unet_jax.prediction.predictor import Predictor
from unet_jax.weights import Trained, save_weights

SIZE = (16, 24)
MODEL = ModelConfig(architecture="plain", channels=(4,), norm="none")
NAMES = ("background", "car", "tree")
COLOURS = ((0, 0, 0), (255, 176, 32), (0, 128, 0))


def make_trained(classes: int = 2, **fields: Any) -> Trained:
    """A network with random weights, which finds each of its classes in most images."""
    logits = 1 if classes == 2 else classes
    network = build_model(MODEL, logits)
    image = (photo(0, SIZE)[None].astype(np.float32) / 255 - 0.5) / 0.25
    variables = jax.device_get(network.init(jax.random.key(0), image))
    out = variables["params"]["conv_out"]
    out["kernel"] = 8 * out["kernel"]
    found = np.asarray(network.apply(variables, image))
    out["bias"] = out["bias"] - np.median(found, axis=(0, 1, 2))
    given = {
        "variables": variables,
        "model": MODEL,
        "num_logits": logits,
        "classes": NAMES[:classes],
        "palette": COLOURS[:classes],
        "mean": (0.5, 0.5, 0.5),
        "std": (0.25, 0.25, 0.25),
        "size": SIZE,
    }
    return Trained(**given | fields)


def make_predictor(classes: int = 2, *, batch_size: int = 2, **fields: Any) -> Predictor:
    return Predictor(make_trained(classes, **fields), batch_size=batch_size)


def write_trained(folder: Path, classes: int = 2) -> Path:
    save_weights(make_trained(classes), folder / "model.safetensors")
    return folder / "model.safetensors"


def photo(seed: int = 0, size: tuple[int, int] = (20, 30)) -> np.ndarray:
    """Coarse noise, uint8 [H, W, 3]."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (-(-size[0] // 5), -(-size[1] // 5), 3), np.uint8)
    return coarse.repeat(5, 0).repeat(5, 1)[: size[0], : size[1]]


def write_photos(folder: Path, names: Sequence[str], **options: Any) -> None:
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo(seed)).save(folder / name, **options)

"""The files that a prediction becomes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from PIL import Image

from unet_jax.draft import draft
from unet_jax.prediction.prediction import Prediction
from unet_jax.visualize import result_panel

Write = Callable[[Prediction, IO[bytes]], object]


class Output(NamedTuple):
    """One file of a prediction.

    Attributes:
      suffix: What is added to the image's name.
      write: Writes it.
    """

    suffix: str
    write: Write


def outputs(kinds: Sequence[str], classes: int) -> list[Output]:
    """The files that each prediction becomes.

    Args:
      kinds: As `unet_jax.prediction.predict_options.KINDS` has them.
      classes: How many classes there are.

    Raises:
      ValueError: A kind needs two classes.
    """
    if classes > 2 and "binary" in kinds:
        raise ValueError(f"--save binary: needs two classes, and there are {classes}")
    made = []
    for kind in kinds:
        if kind == "probabilities16":
            made += _sixteen_bits(classes)
        else:
            made.append(OUTPUTS[kind])
    return made


def write_outputs(prediction: Prediction, base: Path, made: Sequence[Output]) -> None:
    """Writes the files, each of which is whole or not there.

    Args:
      prediction: What they show.
      base: Their path, without suffixes; its folder is made if it is not there.
      made: As `outputs` has them.
    """
    base.parent.mkdir(parents=True, exist_ok=True)
    for output in made:
        with draft(target(base, output)) as part, part.open("wb") as file:
            output.write(prediction, file)


def target(base: Path, output: Output) -> Path:
    """The file that an output of the image `base` is written to."""
    return base.with_name(base.name + output.suffix)


def _mask(prediction: Prediction, file: IO[bytes]) -> None:
    picture = Image.fromarray(prediction.mask)
    picture.putpalette([channel for colour in prediction.palette for channel in colour])
    picture.save(file, "PNG", optimize=False)  # Pillow would give the classes other numbers.


def _binary(prediction: Prediction, file: IO[bytes]) -> None:
    Image.fromarray(prediction.mask * np.uint8(255)).save(file, "PNG")


def _npz(prediction: Prediction, file: IO[bytes]) -> None:
    assert prediction.probabilities is not None
    np.savez(
        file,
        probabilities=prediction.probabilities,
        classes=np.array(prediction.classes),
    )


def _sixteen_bits(classes: int) -> list[Output]:
    """The foreground's probability; of more than two classes, each one's in a file of its own."""

    def write(index: int) -> Write:
        def write(prediction: Prediction, file: IO[bytes]) -> None:
            assert prediction.probabilities is not None
            levels = np.rint(prediction.probabilities[..., index] * 65535)
            Image.fromarray(levels.astype(np.uint16)).save(file, "PNG")

        return write

    if classes == 2:
        return [Output("_probability.png", write(1))]
    return [Output(f"_probability_{n:03}.png", write(n)) for n in range(classes)]


def _overlay(prediction: Prediction, file: IO[bytes]) -> None:
    prediction.overlay().save(file, "JPEG", quality=92, subsampling=0)  # Lines stay sharp.


def _panel(prediction: Prediction, file: IO[bytes]) -> None:
    picture, mask = prediction.picture, prediction.mask
    title = f"{picture.name}, {mask.shape[0]}×{mask.shape[1]}"
    panel = result_panel(picture.read, mask, prediction.palette, prediction.classes, title)
    panel.save(file, "PNG")


OUTPUTS = {
    "mask": Output("_mask.png", _mask),
    "binary": Output("_binary.png", _binary),
    "probabilities": Output("_probabilities.npz", _npz),
    "overlay": Output("_overlay.jpg", _overlay),
    "panel": Output("_panel.png", _panel),
}

"""The pictures of an evaluation's report, and what they are called."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from unet_jax.evaluation.compared import Compared, Evaluated
from unet_jax.evaluation.evaluation import Worst
from unet_jax.visualize import plot_confusion, plot_reliability, prediction_panel


def draw(compared: Compared, folder: Path) -> None:
    """Draws confusion, reliability and the worst samples.

    Args:
      compared: The networks.
      folder: That of the report, with `worst` in it.
    """
    for network in compared.networks:
        end = ending(compared, network)
        classes = network.samples.classes
        plot_confusion(network.tally.confusion, classes, folder / f"confusion{end}.png")
        if network.evaluation.worst:
            sheet = _panel(network, network.evaluation.worst)
            sheet.save(folder / f"worst{end}.jpg", quality=88)
        for n, worst in enumerate(network.evaluation.worst, 1):
            _panel(network, [worst]).save(folder / worst_picture(end, n, worst), quality=88)
    plot_reliability(
        {network.label: network.tally.calibration for network in compared.networks},
        len(compared.samples.classes),
        folder / "reliability.png",
    )


def ending(compared: Compared, network: Evaluated) -> str:
    """Of the names of a network's pictures, if there are several networks."""
    if len(compared.networks) == 1:
        return ""
    labels = [each.label for each in compared.networks]
    # Numbered: they may be the same where they are cut.
    return f"_{labels.index(network.label) + 1}_{_file_name(network.label)}"


def worst_picture(end: str, n: int, worst: Worst) -> str:
    """The file of a network's n-th worst sample, from the report's folder."""
    return f"worst/{n:02}{end}_{_file_name(worst.name)}.jpg"


def _panel(network: Evaluated, worst: Sequence[Worst]) -> Image.Image:
    samples = network.samples
    title = network.label if len(worst) > 1 else f"{worst[0].name}    {worst[0].score:.4f}"
    captions = [f"{n}. {w.name}  {w.score:.4f}" for n, w in enumerate(worst, 1)]
    return prediction_panel(
        np.stack([w.image for w in worst]),
        np.stack([w.truth for w in worst]),
        np.stack([w.predicted for w in worst]),
        samples.palette,
        samples.classes,
        title,
        captions if len(worst) > 1 else (),
    )


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.-]+", "-", text).strip("-")[:60]

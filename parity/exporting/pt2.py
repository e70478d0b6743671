"""A network as a `.pt2` file, which PyTorch alone runs."""

import io
from pathlib import Path

import numpy as np
import torch

from parity.exporting.classifier import program, to_nchw
from unet_jax.exporting.artefact import Format, Run, Size
from unet_jax.weights import Trained


def _write(trained: Trained, size: Size, path: Path) -> None:
    buffer = io.BytesIO()  # A path would have to end with .pt2.
    torch.export.save(program(trained, size), buffer)
    path.write_bytes(buffer.getvalue())


def _load(path: Path) -> Run:
    network = torch.export.load(io.BytesIO(path.read_bytes())).module()

    def run(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return network(torch.from_numpy(to_nchw(images))).numpy().transpose(0, 2, 3, 1)

    return run


PT2 = Format(
    suffix=".pt2",
    layout="NCHW",
    write=_write,
    load=_load,
    times=4.0,
    reason="other kernels, which add up in another order",
    usage="""\
import torch
{images}
network = torch.export.load("{file}").module()
with torch.no_grad():
    probabilities = network(torch.tensor(images).permute(0, 3, 1, 2))  # [1, classes, H, W]
mask = probabilities[0].argmax(0)
""",
    packages=("torch",),
)

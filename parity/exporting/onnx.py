"""A network as an ONNX file, which ONNX Runtime and others run."""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from parity.exporting.classifier import program, to_nchw
from unet_jax.exporting.artefact import Format, Run, Size
from unet_jax.weights import Trained


def _write(trained: Trained, size: Size, path: Path) -> None:
    with _quiet():
        exported = torch.onnx.export(
            program(trained, size),
            dynamo=True,
            input_names=["images"],
            output_names=["probabilities"],
            external_data=False,
            verbose=False,
        )
    assert exported is not None
    exported.save(path, external_data=False)


def _load(path: Path) -> Run:
    import onnx  # With onnxruntime an extra of its own.
    import onnxruntime

    onnx.checker.check_model(str(path), full_check=True)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(images: np.ndarray) -> np.ndarray:
        (probabilities,) = session.run(None, {"images": to_nchw(images)})
        return np.asarray(probabilities).transpose(0, 2, 3, 1)

    return run


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Leaves out what exporters say of their own work; what they got wrong is measured."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


ONNX = Format(
    suffix=".onnx",
    layout="NCHW",
    write=_write,
    load=_load,
    times=4.0,
    reason="other kernels, which add up in another order",
    usage="""\
import onnxruntime
{images}
session = onnxruntime.InferenceSession("{file}", providers=["CPUExecutionProvider"])
(probabilities,) = session.run(None, {{"images": images.transpose(0, 3, 1, 2)}})
mask = probabilities[0].argmax(0)
""",
    packages=("torch", "onnx", "onnxscript", "onnxruntime"),
)

"""A network in PyTorch's formats, by way of the twin: `.pt2` and ONNX, in any batch."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from parity.convert import to_torch
from unet_jax.exporting.artefact import Format, Run, Size
from unet_jax.weights import Trained
from unet_torch_ref.models import build_model


class Classifier(nn.Module):
    """What `unet_jax.exporting.artefact.build_function` computes, with PyTorch's order of axes."""

    def __init__(self, trained: Trained, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        model = trained.model
        self.network = build_model(
            model.architecture, num_classes=trained.num_logits, **model.arguments()
        ).to(dtype)
        state = to_torch(trained.variables, self.network)
        self.network.load_state_dict({name: torch.from_numpy(a) for name, a in state.items()})
        self.register_buffer("mean", torch.tensor(trained.mean, dtype=dtype).reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(trained.std, dtype=dtype).reshape(1, 3, 1, 1))
        self.binary = trained.num_logits == 1

    def forward(self, images: Tensor) -> Tensor:
        """uint8 [B, 3, H, W] -> probabilities of each class [B, C, H, W]."""
        mean, std = self.get_buffer("mean"), self.get_buffer("std")
        logits = self.network((images.to(mean.dtype) / 255 - mean) / std)
        if self.binary:
            return torch.cat([-logits, logits], dim=1).sigmoid()
        return logits.softmax(1)


def _program(trained: Trained, size: Size) -> torch.export.ExportedProgram:
    example = torch.zeros((2, 3, *size), dtype=torch.uint8)
    batch = {"images": {0: torch.export.Dim("batch", min=1)}}
    with torch.no_grad():
        return torch.export.export(
            Classifier(trained).eval(), (example,), dynamic_shapes=batch, strict=False
        )


def _write_pt2(trained: Trained, size: Size, path: Path) -> None:
    buffer = io.BytesIO()  # A path would have to end with .pt2.
    torch.export.save(_program(trained, size), buffer)
    path.write_bytes(buffer.getvalue())


def _load_pt2(path: Path) -> Run:
    network = torch.export.load(io.BytesIO(path.read_bytes())).module()

    def run(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return network(torch.from_numpy(_nchw(images))).numpy().transpose(0, 2, 3, 1)

    return run


def _write_onnx(trained: Trained, size: Size, path: Path) -> None:
    with _quiet():
        program = torch.onnx.export(
            _program(trained, size),
            dynamo=True,
            input_names=["images"],
            output_names=["probabilities"],
            external_data=False,
            verbose=False,
        )
    assert program is not None
    program.save(path, external_data=False)


def _load_onnx(path: Path) -> Run:
    import onnx  # With onnxruntime an extra of its own.
    import onnxruntime

    onnx.checker.check_model(str(path), full_check=True)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(images: np.ndarray) -> np.ndarray:
        (probabilities,) = session.run(None, {"images": _nchw(images)})
        return np.asarray(probabilities).transpose(0, 2, 3, 1)

    return run


def _nchw(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


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


PT2 = Format(
    suffix=".pt2",
    layout="NCHW",
    write=_write_pt2,
    load=_load_pt2,
    times=4.0,
    reason="other kernels, which add up in another order",
    usage="""\
import numpy as np
import torch
from PIL import Image

{images}
network = torch.export.load("{file}").module()
with torch.no_grad():
    probabilities = network(torch.tensor(images).permute(0, 3, 1, 2))  # [1, classes, H, W]
mask = probabilities[0].argmax(0)
""",
    packages=("torch",),
)
ONNX = Format(
    suffix=".onnx",
    layout="NCHW",
    write=_write_onnx,
    load=_load_onnx,
    times=4.0,
    reason="other kernels, which add up in another order",
    usage="""\
import numpy as np
import onnxruntime
from PIL import Image

{images}
session = onnxruntime.InferenceSession("{file}", providers=["CPUExecutionProvider"])
(probabilities,) = session.run(None, {{"images": images.transpose(0, 3, 1, 2)}})
mask = probabilities[0].argmax(0)
""",
    packages=("torch", "onnx", "onnxscript", "onnxruntime"),
)

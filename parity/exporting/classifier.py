"""What is exported, as a PyTorch module: bytes to probabilities, in any batch."""

import numpy as np
import torch
from torch import Tensor, nn

from parity.twin import loaded_twin
from unet_jax.exporting.artefact import Size
from unet_jax.weights import Trained


class Classifier(nn.Module):
    """What `unet_jax.exporting.artefact.build_function` computes, with PyTorch's order of axes."""

    def __init__(self, trained: Trained, dtype: torch.dtype = torch.float32) -> None:
        """Args:
        trained: The network.
        dtype: What it computes in.
        """
        super().__init__()
        self.network = loaded_twin(trained, dtype)
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


def program(trained: Trained, size: Size) -> torch.export.ExportedProgram:
    """The graph of a network, for any number of images of this height and width."""
    example = torch.zeros((2, 3, *size), dtype=torch.uint8)
    batch = {"images": {0: torch.export.Dim("batch", min=1)}}
    with torch.no_grad():
        return torch.export.export(
            Classifier(trained).eval(), (example,), dynamic_shapes=batch, strict=False
        )


def to_nchw(images: np.ndarray) -> np.ndarray:
    """[B, 3, H, W] of [B, H, W, 3]."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))

"""The networks, in PyTorch: module for module and name for name those of `unet_jax.models`."""

from typing import Any, Literal

from torch import nn

from unet_torch_ref.models.plain import PlainUNet
from unet_torch_ref.models.residual import ResidualUNet

__all__ = ["PlainUNet", "ResidualUNet", "build_model"]


def build_model(architecture: Literal["residual", "plain"], **arguments: Any) -> nn.Module:
    """The network of this architecture; `arguments` are its class' own."""
    return (ResidualUNet if architecture == "residual" else PlainUNet)(**arguments)

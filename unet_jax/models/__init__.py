"""The networks, in Linen."""

from typing import Any

from unet_jax.config import ModelConfig
from unet_jax.models.layers import Dtype
from unet_jax.models.plain import PlainUNet
from unet_jax.models.residual import ResidualUNet

__all__ = ["PlainUNet", "ResidualUNet", "UNet", "build_model"]

UNet = PlainUNet | ResidualUNet


def build_model(
    config: ModelConfig,
    num_classes: int,
    *,
    dtype: Dtype = None,
    axis_name: str | None = None,
    remat: bool = False,
) -> UNet:
    """The network that `config` describes.

    Args:
      config: The architecture.
      num_classes: Channels of the logits.
      dtype: What convolutions compute in, and pass on; None: what the parameters are of.
      axis_name: Mapped axis over whose devices batch norms take their statistics together.
      remat: Whether blocks are computed anew in the backward pass, which saves memory.
    """
    architecture = ResidualUNet if config.architecture == "residual" else PlainUNet
    computed: dict[str, Any] = {"dtype": dtype, "axis_name": axis_name, "remat": remat}
    return architecture(num_classes=num_classes, **config.arguments(), **computed)

"""The networks, in Linen."""

import flax.linen as nn

from unet_jax.config import ModelConfig
from unet_jax.models.plain import PlainUNet
from unet_jax.models.residual import ResidualUNet

__all__ = ["PlainUNet", "ResidualUNet", "build_model"]


def build_model(config: ModelConfig, num_classes: int) -> nn.Module:
    """The network that `config` describes, with `num_classes` channels of logits."""
    architecture = ResidualUNet if config.architecture == "residual" else PlainUNet
    return architecture(num_classes=num_classes, **config.arguments())

"""What a run is made of: seven frozen groups of settings, checked once."""

from unet_jax.config.augment import AugmentConfig
from unet_jax.config.data import PLACES, DataConfig, PrepareConfig
from unet_jax.config.loss import LossConfig
from unet_jax.config.model import ModelConfig
from unet_jax.config.optim import OptimConfig
from unet_jax.config.save import SaveConfig
from unet_jax.config.train import TrainConfig
from unet_jax.config.whole import Config, differences, dump, load, presets

__all__ = [
    "PLACES",
    "AugmentConfig",
    "Config",
    "DataConfig",
    "LossConfig",
    "ModelConfig",
    "OptimConfig",
    "PrepareConfig",
    "SaveConfig",
    "TrainConfig",
    "differences",
    "dump",
    "load",
    "presets",
]

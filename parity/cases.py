"""The configurations that are compared: every option at least once, at sizes a CPU manages."""

from typing import NamedTuple

from unet_jax.augment import Normalisation
from unet_jax.config import ModelConfig

MEAN_STD = ((0.49, 0.47, 0.43), (0.23, 0.24, 0.25))


class Case(NamedTuple):
    """One configuration.

    Attributes:
      name: Says what is special about it.
      model: The network, the same for both frameworks.
      num_classes: Channels of the logits.
      size: Height and width in pixels.
      batch: Images.
      mean_std: Per-channel mean and standard deviation of images in 0..1.
    """

    name: str
    model: ModelConfig
    num_classes: int
    size: tuple[int, int]
    batch: int = 2
    mean_std: Normalisation = MEAN_STD


def _residual(**options) -> ModelConfig:
    return ModelConfig(**{"channels": (8, 12), "groups": 4, **options})


def _plain(**options) -> ModelConfig:
    small = {"architecture": "plain", "channels": (8, 12), "groups": 4, "norm": "batch"}
    return ModelConfig(**{**small, **options})


CASES = (
    Case("residual", _residual(channels=(8, 12, 16)), 1, (24, 40)),
    Case("residual, 5 classes", _residual(), 5, (12, 20)),
    Case("residual, bilinear", _residual(upsample="bilinear"), 1, (12, 20)),
    Case("residual, no skips", _residual(skip=False), 1, (12, 20)),
    Case("residual, 2 blocks", _residual(channels=(8, 16), blocks_per_stage=2), 3, (16, 24)),
    Case("residual, batch norm", _residual(norm="batch"), 1, (12, 20)),
    Case("residual, no norm", _residual(norm="none"), 1, (12, 12), 1),
    Case("residual, odd, padded", _residual(), 1, (13, 19)),
    Case("residual, odd, resized", _residual(size_policy="resize"), 1, (13, 19)),
    Case("plain", _plain(channels=(8, 12, 16)), 1, (24, 40)),
    Case("plain, 5 classes", _plain(), 5, (12, 20)),
    Case("plain, bilinear", _plain(upsample="bilinear"), 2, (12, 20)),
    Case("plain, group norm", _plain(norm="group"), 1, (12, 20)),
    Case("plain, no norm", _plain(norm="none"), 1, (12, 12), 1),
    Case("plain, odd, padded", _plain(), 1, (13, 19)),
    Case("plain, odd, resized", _plain(size_policy="resize"), 1, (13, 19)),
    Case(
        "plain, bilinear, odd",
        _plain(upsample="bilinear", size_policy="resize"),
        1,
        (13, 19),
    ),
)

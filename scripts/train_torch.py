"""Trains the PyTorch twin, with the settings, batches and run folder of train_jax.py."""

import time
from typing import Any

from unet_jax.cli import parse
from unet_jax.config import Config

TAKEN = ("learning_rate", "weight_decay", "warmup", "clip_norm")
"""What the learner takes so far."""


def main() -> int:
    started = time.monotonic()
    options, config = parse(description="Trains the PyTorch twin of the Flax U-Net.")
    import torch

    from unet_jax.train import train
    from unet_torch_ref.learner import TorchLearner
    from unet_torch_ref.models import build_model

    def model(config: Config, num_classes: int) -> torch.nn.Module:
        torch.manual_seed(config.train.seed)
        arguments = config.model.arguments()
        return build_model(config.model.architecture, num_classes=num_classes, **arguments)

    def make_learner(
        config: Config, *, num_classes: int, classes: int, **facts: Any
    ) -> TorchLearner:
        return TorchLearner(
            model(config, num_classes),
            mean_std=(config.data.mean, config.data.std),
            fill=config.augment.fill(classes),
            classes=classes,
            **{name: getattr(config.optim, name) for name in TAKEN},
            **facts,
        )

    def describe(config: Config, num_classes: int) -> str:
        network = model(config, num_classes)
        return f"{network}\n{sum(p.numel() for p in network.parameters()):,} parameters"

    return train(options, config, make_learner=make_learner, describe=describe, started=started)


if __name__ == "__main__":
    raise SystemExit(main())

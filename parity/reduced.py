"""A config made small enough to be trained in two frameworks on a CPU; its recipe stays."""

from dataclasses import replace

from unet_jax.config import Config


def reduce(
    config: Config,
    *,
    stages: int | None = None,
    batch_size: int = 4,
    size: tuple[int, int] = (32, 48),
) -> Config:
    """The config with a narrow network, small images and small batches.

    Widths keep their proportions, sides that are odd stay odd, and everything else of the recipe
    is kept: loss, augmentation, optimiser, schedule, precision, micro-batches, averages.

    Args:
      config: The whole one.
      stages: At most so many; None: as many as it has.
      batch_size: Images a step, at least; a multiple of the micro-batches is taken.
      size: Height and width in pixels, both even.
    """
    widths = config.model.channels[:stages]
    widths = tuple(max(8, 8 * round(width / widths[0])) for width in widths)
    height, width = (side - given % 2 for side, given in zip(size, config.data.size, strict=True))
    stored = (2 * height, 2 * width) if config.data.stored_size else None
    parts = config.train.accumulate
    return replace(
        config,
        model=replace(config.model, channels=widths, groups=4),
        data=replace(config.data, size=(height, width), stored_size=stored),
        train=replace(config.train, batch_size=parts * max(1, batch_size // parts)),
    )

"""How long is trained, and in which portions."""

from typing import Annotated, Literal

from pydantic import Field

from unet_jax.config.settings import Count, Decay, settings


@settings
class TrainConfig:
    """How long, and in which portions."""

    epochs: Count = 10
    """Passes over the training images."""

    batch_size: Count = 8
    """Images a step."""

    accumulate: Count = 1
    """Micro-batches that a step's gradient is computed in, one after another, to save memory."""

    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """What convolutions compute in; parameters, norms and the loss stay in float32, which float16
    needs a scaled loss for."""

    ema_decay: Decay = 0.0
    """Share that the average of the weights keeps of itself at each step; the average is what is
    validated. 0: the weights themselves are."""

    max_skipped: Count = 20
    """Steps in a row that may be skipped because the loss or a gradient was not finite."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Draws the first weights, the order of the images and how they are augmented."""

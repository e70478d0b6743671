"""What of a run is kept."""

from typing import Annotated, Literal

from pydantic import Field

from unet_jax.config.settings import Count, settings


@settings
class SaveConfig:
    """Which states of a run are saved, and which of those are kept."""

    best: Literal["dice", "iou", "accuracy", "mean_class_accuracy", "boundary_f", "val_loss"] = (
        "dice"
    )
    """Which validation score says what the best epoch is: the lowest val_loss, or the highest of
    any other."""

    every_epochs: Count = 1
    """Save the state after every so many epochs; also after the last, and after each that is the
    best so far."""

    every_steps: Annotated[int, Field(ge=0)] = 0
    """Save it within an epoch too, after every so many steps of the run. 0: never."""

    keep: Count = 2
    """How many of the latest states are kept, beside the best one. If the last is found damaged,
    the one before it is used: with 1 there may be none."""

    @property
    def lowest(self) -> bool:
        """Whether the lowest value of `best` is the best."""
        return self.best == "val_loss"

"""Where a run is."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Position:
    """Where in the data a run is, and what has been summed over its current epoch.

    Attributes:
      epoch: From 0.
      batch: The epoch's next batch, from 0.
      loss: Sum of the losses of the epoch's steps that were taken.
      taken: Their number.
      seconds: Spent training and validating, in all.
    """

    epoch: int = 0
    batch: int = 0
    loss: float = 0.0
    taken: int = 0
    seconds: float = 0.0

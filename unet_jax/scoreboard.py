"""The validation scores that are shown wherever a run is: printed, plotted, logged, compared."""

from collections.abc import Mapping
from typing import Any

ALWAYS = ("val_loss", "dice", "iou", "accuracy")
TITLES = {"val_loss": "val loss", "dice": "Dice", "iou": "IoU", "boundary_f": "boundary F"}


def shown(best: str) -> tuple[str, ...]:
    """Names of the scores of a run: those that are always shown, and what decides the best one."""
    return tuple(dict.fromkeys((*ALWAYS, best)))


def title(name: str) -> str:
    """A score's name for people."""
    return TITLES.get(name, name.replace("_", " "))


def scored(result: Mapping[str, Any], best: str) -> list[str]:
    """The scores that are shown, with their values: `Dice 0.9876`."""
    return [f"{title(name)} {result[name]:.4f}" for name in shown(best)]

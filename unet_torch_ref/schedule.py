"""PyTorch's schedulers, after a warm-up."""

from typing import Literal, NamedTuple

from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    LinearLR,
    LRScheduler,
    OneCycleLR,
    PolynomialLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)

Kind = Literal["cosine", "constant", "step", "polynomial", "restarts", "one_cycle", "plateau"]


class Schedule(NamedTuple):
    """What changes an optimiser's learning rate.

    Attributes:
      steps: Its `step()` belongs after every step of the optimiser.
      plateau: Its `step(dice)` belongs after every validation; None for other schedules.
    """

    steps: LRScheduler
    plateau: ReduceLROnPlateau | None


def build_schedule(
    optimizer: Optimizer,
    *,
    schedule: Kind,
    learning_rate: float,
    warmup: float,
    warmup_steps: int,
    min_rate: float,
    step_epochs: int,
    step_factor: float,
    poly_power: float,
    restart_epochs: int,
    restart_factor: int,
    one_cycle_div: float,
    one_cycle_final_div: float,
    plateau_patience: int,
    plateau_factor: float,
    plateau_threshold: float,
    total_steps: int,
    steps_per_epoch: int,
) -> Schedule:
    """The schedule of an optimiser's learning rate, for all its groups alike.

    Args:
      optimizer: With the peak as its learning rate.
      schedule: What comes after the warm-up.
      learning_rate: The peak.
      warmup: Share of all steps over which the learning rate rises to it.
      warmup_steps: The same in steps; counts unless it is 0.
      min_rate: End of a cosine, as a share of the peak.
      step_epochs: `StepLR`'s `step_size`, in epochs.
      step_factor: Its `gamma`.
      poly_power: `PolynomialLR`'s `power`.
      restart_epochs: `CosineAnnealingWarmRestarts`'s `T_0`, in epochs.
      restart_factor: Its `T_mult`.
      one_cycle_div: `OneCycleLR`'s `div_factor`; the share of steps that rise is the warm-up.
      one_cycle_final_div: Its `final_div_factor`.
      plateau_patience: `ReduceLROnPlateau`'s `patience`.
      plateau_factor: Its `factor`.
      plateau_threshold: Its `threshold`.
      total_steps: Steps of the whole run.
      steps_per_epoch: Of the optimiser.

    References:
      Goyal et al., 2017 (warm-up). https://arxiv.org/abs/1706.02677
    """
    rising = warmup_steps or warmup * total_steps
    if schedule == "one_cycle":
        share = min(rising, total_steps - 1) / total_steps
        return Schedule(
            OneCycleLR(
                optimizer,
                learning_rate,
                total_steps,
                pct_start=share * (1 - 1e-15),  # It divides by 0 for a rise of exactly one step.
                cycle_momentum=False,
                div_factor=one_cycle_div,
                final_div_factor=one_cycle_final_div,
            ),
            None,
        )
    rising = round(rising)
    falling = max(total_steps - rising, 1)
    match schedule:
        case "constant" | "plateau":
            main = None
        case "cosine":
            main = CosineAnnealingLR(optimizer, falling, min_rate * learning_rate)
        case "step":
            main = StepLR(optimizer, step_epochs * steps_per_epoch, step_factor)
        case "polynomial":
            main = PolynomialLR(optimizer, falling, poly_power)
        case "restarts":
            first = restart_epochs * steps_per_epoch
            main = CosineAnnealingWarmRestarts(
                optimizer, first, restart_factor, min_rate * learning_rate
            )
    plateau = None
    if schedule == "plateau":
        plateau = ReduceLROnPlateau(
            optimizer, "max", plateau_factor, plateau_patience, plateau_threshold
        )
    return Schedule(after_warmup(optimizer, rising, main), plateau)


def after_warmup(optimizer: Optimizer, rising: int, main: LRScheduler | None) -> LRScheduler:
    """The learning rate's rise over `rising` steps, from 1 / `rising` of it, and then `main`."""
    if main is not None and rising == 0:
        return main
    # Past its end it holds.
    rise = LinearLR(optimizer, 1 / max(rising, 1), total_iters=max(rising - 1, 0))
    return rise if main is None else SequentialLR(optimizer, [rise, main], [rising])

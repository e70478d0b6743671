"""How gradients become updates."""

import dataclasses
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from unet_jax.config.settings import Count, Decay, Fraction, Positive, Share, settings

OPTIMIZER_SETTINGS: dict[str, tuple[str, ...]] = {
    "betas": ("adamw", "adam"),
    "eps": ("adamw", "adam", "rmsprop"),
    "momentum": ("sgd", "rmsprop"),
    "nesterov": ("sgd",),
    "rmsprop_alpha": ("rmsprop",),
}
"""Settings that some optimisers alone have, and which ones."""

SCHEDULE_SETTINGS: dict[str, tuple[str, ...]] = {
    "min_rate": ("cosine", "restarts"),
    "step_epochs": ("step",),
    "step_factor": ("step",),
    "poly_power": ("polynomial",),
    "restart_epochs": ("restarts",),
    "restart_factor": ("restarts",),
    "one_cycle_div": ("one_cycle",),
    "one_cycle_final_div": ("one_cycle",),
    "plateau_patience": ("plateau",),
    "plateau_factor": ("plateau",),
    "plateau_threshold": ("plateau",),
}
"""Settings that some schedules alone have, and which ones."""


@settings
class OptimConfig:
    """How gradients become updates, and how large these are over the run."""

    optimizer: Literal["adamw", "adam", "sgd", "rmsprop"] = "adamw"
    """Each with the arithmetic of PyTorch's."""

    learning_rate: Positive = 1e-3
    """The peak."""

    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-2
    """adamw: share of the weight taken off, per unit of learning rate. The others add this much of
    the weight to its gradient, and want far less."""

    decay_norms_and_biases: bool = True
    """Whether the scales of norms and all biases decay, too, and not only kernels."""

    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """Share of the old averages of the gradient and of its square (adamw, adam)."""

    eps: Positive = 1e-8
    """Added to the root of the mean square (adamw, adam, rmsprop)."""

    momentum: Decay = 0.0
    """Share of the last direction in the next (sgd, rmsprop)."""

    nesterov: bool = False
    """Whether the momentum looks a step ahead (sgd)."""

    rmsprop_alpha: Decay = 0.99
    """Share of the old average of the squared gradient (rmsprop)."""

    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    """Largest global norm of the gradient; a larger one is scaled down to it. inf: never."""

    schedule: Literal[
        "cosine", "constant", "step", "polynomial", "restarts", "one_cycle", "plateau"
    ] = "cosine"
    """How the learning rate goes on from its peak. plateau: down when the validation's Dice no
    longer rises."""

    warmup: Fraction = 0.1
    """Share of all steps over which the learning rate rises to its peak: in a straight line, or
    in half a cosine if the schedule is one_cycle."""

    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """The same as a number of steps; needs warmup 0."""

    min_rate: Fraction = 0.0
    """Where a cosine ends, as a share of the peak (cosine, restarts)."""

    step_epochs: Count = 10
    """Epochs, from the warm-up's end, between drops (step)."""

    step_factor: Share = 0.1
    """What a drop multiplies the learning rate by (step)."""

    poly_power: Positive = 0.9
    """Exponent of the share of steps that are left (polynomial)."""

    restart_epochs: Count = 10
    """Epochs, from the warm-up's end, to the first restart (restarts)."""

    restart_factor: Count = 1
    """How many times as long as the last each further cycle is (restarts)."""

    one_cycle_div: Positive = 25.0
    """The peak over the first learning rate (one_cycle)."""

    one_cycle_final_div: Positive = 1e4
    """The first learning rate over the last (one_cycle)."""

    plateau_patience: Annotated[int, Field(ge=0)] = 10
    """Validations without a better Dice that are put up with (plateau)."""

    plateau_factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """What the learning rate is multiplied by after one more (plateau)."""

    plateau_threshold: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-4
    """How much better, as a share of the best Dice, counts as better (plateau)."""

    @model_validator(mode="after")
    def _check(self) -> "OptimConfig":
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        for choice, users_of in (
            ("optimizer", OPTIMIZER_SETTINGS),
            ("schedule", SCHEDULE_SETTINGS),
        ):
            for name, users in users_of.items():
                value = getattr(self, name)
                if value != defaults[name] and getattr(self, choice) not in users:
                    raise ValueError(
                        f"{name}: {value} needs {choice} {' or '.join(users)}; "
                        f"got {getattr(self, choice)}"
                    )
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov: True needs a momentum greater than 0")
        if not self.decay_norms_and_biases and not self.weight_decay:
            raise ValueError("decay_norms_and_biases: False needs a weight_decay greater than 0")
        if self.warmup_steps and self.warmup:
            raise ValueError(f"warmup_steps: {self.warmup_steps} needs warmup 0; got {self.warmup}")
        return self

    def optimizer_arguments(self) -> dict[str, Any]:
        """Keyword arguments of `unet_torch_ref.optim.build_optimizer`."""
        shared = ("optimizer", "learning_rate", "weight_decay", "decay_norms_and_biases")
        return {name: getattr(self, name) for name in (*shared, *OPTIMIZER_SETTINGS)}

    def schedule_arguments(self) -> dict[str, Any]:
        """Keyword arguments of `unet_torch_ref.schedule.build_schedule`, but for run lengths."""
        shared = ("schedule", "learning_rate", "warmup", "warmup_steps")
        return {name: getattr(self, name) for name in (*shared, *SCHEDULE_SETTINGS)}

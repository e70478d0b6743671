"""Single faults, each planted on its own, and the comparison that must see and name it.

A fault that passes, or that is named by another layer or component than its own, is a survivor: it
says that the comparisons are too weak.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple
from unittest.mock import patch

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from torch import nn

import parity.compare
import unet_jax.augment
import unet_jax.gradients
import unet_jax.losses
import unet_jax.lovasz
import unet_jax.metrics
import unet_jax.models.layers as flax_layers
import unet_jax.optim
import unet_jax.scale
import unet_jax.schedule
import unet_jax.step
import unet_torch_ref.augment
import unet_torch_ref.models.residual as torch_residual
import unet_torch_ref.step
from parity.cases import Case
from parity.compare import compare, scale_entry
from parity.components.augmentation import compare_augmentation
from parity.components.initialisation import WIDE, compare_initialisation
from parity.components.losses import compare_losses
from parity.components.metrics import compare_metrics
from parity.components.optimisers import compare_optimisers
from parity.components.schedules import compare_schedules
from parity.components.steps import compare_loss_scale, compare_steps
from parity.convert import to_flax
from parity.recipes import random_batch
from parity.row import Row, first_divergence
from parity.trajectory import judge, train_in
from unet_jax.config import Config, DataConfig, ModelConfig, TrainConfig
from unet_jax.models.layers import BatchNorm

TINY = ModelConfig(channels=(4,), groups=2)
RESIDUAL = Case("residual", TINY, 1, (8, 12))
PLAIN = Case("plain", ModelConfig(architecture="plain", channels=(4,), norm="batch"), 1, (8, 12), 3)
BILINEAR = RESIDUAL._replace(model=dataclasses.replace(TINY, upsample="bilinear"))
ODD = RESIDUAL._replace(size=(9, 13))

Rows = Callable[[], Sequence[Row]]


class Mutation(NamedTuple):
    """A fault.

    Attributes:
      name: What is wrong.
      component: Where.
      expected: Stage and name of the row that must fail first.
      compare: The comparison that must see it.
      plant: The fault, while the context is open.
    """

    name: str
    component: str
    expected: tuple[str, str]
    compare: Rows
    plant: Callable[[], AbstractContextManager[Any]]


class Outcome(NamedTuple):
    """What came of a fault.

    Attributes:
      mutation: The fault.
      named: Stage and name of the row that failed first; None: every one passed.
    """

    mutation: Mutation
    named: tuple[str, str] | None

    @property
    def killed(self) -> bool:
        return self.named == self.mutation.expected

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.mutation.name,
            "component": self.mutation.component,
            "killed": self.killed,
            "named": "nothing" if self.named is None else " at ".join(self.named),
            "expected": " at ".join(self.mutation.expected),
        }


def inject(mutation: Mutation) -> Outcome:
    """Plants the fault, compares, and takes it out again."""
    with mutation.plant():
        first = first_divergence(mutation.compare())
    return Outcome(mutation, None if first is None else (first.stage, first.name))


def inject_all(mutations: Iterable[Mutation]) -> Iterator[Outcome]:
    """Each on its own."""
    return map(inject, mutations)


# Networks.


def network(case: Case, change: Callable[[Any], None] | None = None) -> Rows:
    return lambda: compare(case, change, ("float64",), draws=1)


def _converted(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Any:
    """Weights carried across with one kernel changed, for better or worse."""

    def convert(state: Any, model: nn.Module) -> Any:
        variables = to_flax(state, model)
        entry = variables["params"]
        for part in name.split("/"):
            entry = entry[part]
        entry["kernel"] = np.ascontiguousarray(change(entry["kernel"]))
        return variables

    return partial(patch.object, parity.compare, "to_flax", convert)


def _swapped(self: Any, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
    return torch.cat([skip, x], dim=1)


def _half_pixel(x: jax.Array, size: tuple[int, int], align_corners: bool) -> jax.Array:
    return flax_layers.resize_bilinear(x, size, align_corners=False)


def _top_left(x: torch.Tensor, size: tuple[int, int], policy: str) -> torch.Tensor:
    return nn.functional.pad(x, (size[1] - x.shape[3], 0, size[0] - x.shape[2], 0))


def _conv(change: Callable[..., jax.Array]) -> Any:
    """Every convolution of Flax's as `change` of the right one, its input, kernel and options."""
    right = jax.lax.conv_general_dilated
    return partial(patch.object, flax_layers.lax, "conv_general_dilated", partial(change, right))


def _same(right: Any, x: jax.Array, kernel: jax.Array, **options: Any) -> jax.Array:
    if options["window_strides"] == (2, 2):
        options["padding"] = "SAME"  # TensorFlow's: one zero, on the right and below.
    return right(x, kernel, **options)


def _coarse(right: Any, x: jax.Array, kernel: jax.Array, **options: Any) -> jax.Array:
    if x.dtype != jnp.float32:
        return right(x, kernel, **options)
    return right(x.astype("bfloat16"), kernel.astype("bfloat16"), **options).astype(x.dtype)


def _biased(x: torch.Tensor, mean: Any, var: Any, *rest: Any) -> torch.Tensor:
    """`torch.nn.functional.batch_norm`, which keeps the biased variance."""
    weight, bias, training, momentum, eps = rest
    before = var.clone()
    y = torch.batch_norm(x, weight, bias, mean, var, training, momentum, eps, False)
    if training:
        n, kept = x.numel() // x.shape[1], (1 - momentum) * before
        var.data.copy_(kept + (var - kept) * (n - 1) / n)
    return y


def _no_shortcut(self: Any, x: torch.Tensor) -> torch.Tensor:
    y = self.conv_1(nn.functional.relu(self.norm_1(x)))
    y = self.conv_2(nn.functional.relu(self.norm_2(y)))
    return y if self.shortcut is None else y + 0 * self.shortcut(x)  # Its gradient is asked for.


def _norm(**options: Any) -> Any:
    return partial(patch.object, flax_layers, "BatchNorm", partial(BatchNorm, **options))


def _normalised(image: Any, mean_std: Any, dtype: Any) -> jax.Array:
    mean, std = (tuple(256 / 255 * value for value in values) for values in mean_std)
    return unet_jax.augment.normalise(image, (mean, std), dtype)


NETWORKS = [
    Mutation(
        "kernel of the transposed convolution flipped",
        "conversion",
        ("eval", "upsample_0/conv"),
        network(RESIDUAL),
        _converted("upsample_0/conv", lambda kernel: kernel[::-1, ::-1]),
    ),
    Mutation(
        "rows and columns of a kernel swapped",
        "conversion",
        ("eval", "conv_in"),
        network(RESIDUAL),
        _converted("conv_in", lambda kernel: kernel.swapaxes(0, 1)),
    ),
    Mutation(
        "one weight off by 0.1 %",
        "conversion",
        ("parameters", "params/encoder_0/conv_2/kernel"),
        network(PLAIN, partial(scale_entry, name="encoder_0/conv_2/kernel", factor=1.001)),
        nullcontext,
    ),
    Mutation(
        "image divided by 256",
        "normalisation",
        ("eval", "encoder_0/conv_1"),
        network(PLAIN),
        partial(patch.object, parity.compare, "normalise_jax", _normalised),
    ),
    Mutation(
        "skip before the upsampled map",
        "residual network",
        ("eval", "decoder_0/norm_1"),
        network(RESIDUAL),
        partial(patch.object, torch_residual.ResidualUNet, "join", _swapped),
    ),
    Mutation(
        "block without its shortcut",
        "residual network",
        ("eval", "encoder_0"),
        network(RESIDUAL),
        partial(patch.object, torch_residual.ResidualBlock, "forward", _no_shortcut),
    ),
    Mutation(
        "corners not aligned",
        "bilinear upsampling",
        ("eval", "upsample_0/conv"),
        network(BILINEAR),
        partial(patch, "unet_jax.models.residual.resize_bilinear", _half_pixel),
    ),
    Mutation(
        "odd sizes padded at the top and left",
        "padding",
        ("eval", "conv_in"),
        network(ODD),
        partial(patch.object, torch_residual, "match_size", _top_left),
    ),
    Mutation(
        "stride-2 convolution padded on one side",
        "convolution",
        ("eval", "encoder_1"),
        network(RESIDUAL),
        _conv(_same),
    ),
    Mutation(
        "mean pooling for max pooling",
        "plain network",
        ("eval", "bottleneck/conv_1"),
        network(PLAIN),
        partial(patch.object, flax.linen, "max_pool", flax.linen.avg_pool),
    ),
    Mutation(
        "ReLU that leaks 1 %",
        "plain network",
        ("eval", "encoder_0/conv_2"),
        network(PLAIN),
        partial(patch.object, flax.linen, "relu", flax.linen.leaky_relu),
    ),
    Mutation(
        "channels of a group interleaved",
        "group norm",
        ("eval", "encoder_0/norm_1"),
        network(RESIDUAL),
        partial(patch.object, flax_layers.jnp, "repeat", lambda x, n, axis: jnp.tile(x, (1, n))),
    ),
    Mutation(
        "eps outside of the root",
        "group norm",
        ("eval", "encoder_0/norm_1"),
        network(RESIDUAL),
        partial(patch.object, flax_layers.lax, "rsqrt", lambda x: 1 / (jnp.sqrt(x - 1e-5) + 1e-5)),
    ),
    Mutation(
        "eps 1e-3 for 1e-5",
        "batch norm",
        ("eval", "encoder_0/norm_1"),
        network(PLAIN),
        _norm(epsilon=1e-3),
    ),
    Mutation(
        "momentum as the share that is kept",
        "batch norm",
        ("statistics", "encoder_0/norm_1/mean"),
        network(PLAIN),
        _norm(momentum=0.9),
    ),
    Mutation(
        "biased running variance",
        "batch norm",
        ("statistics", "encoder_0/norm_1/var"),
        network(PLAIN),
        partial(patch.object, nn.functional, "batch_norm", _biased),
    ),
    Mutation(
        "batch statistics in evaluation",
        "batch norm",
        ("eval", "encoder_0/norm_1"),
        network(PLAIN),
        partial(patch.object, nn.BatchNorm2d, "train", lambda self, mode=True: self),
    ),
    Mutation(
        "no gradient through the statistics",
        "batch norm",
        ("gradients", "encoder_0/conv_1/kernel"),
        network(PLAIN),
        partial(patch.object, BatchNorm, "over_replicas", lambda self, x: jax.lax.stop_gradient(x)),
    ),
    Mutation(
        "padding images counted",
        "loss",
        ("loss", "mean loss"),
        network(PLAIN),
        partial(
            patch.object,
            unet_torch_ref.step.Batch,
            "valid",
            property(lambda batch: torch.ones(3, dtype=torch.bool)),
        ),
    ),
]

# Losses.


def _loss(**changes: Callable[[Any], Any]) -> Any:
    """JAX's loss with settings that are functions of the right ones."""
    right = unet_jax.losses.Loss

    def make(**fields: Any) -> unet_jax.losses.Loss:
        given = vars(right(**fields))
        return right(**fields | {name: change(given[name]) for name, change in changes.items()})

    return partial(patch.object, unet_jax.losses, "Loss", make)


def _loss_fault(name: str, loss: str, plant: Any) -> Mutation:
    compare = partial(compare_losses, (loss,))
    return Mutation(name, "loss", (f"loss: {loss}", "value"), compare, plant)


slopes = unet_jax.lovasz._slopes
LOSSES = [
    _loss_fault(
        "ignored id off by one",
        "cross-entropy-5",
        partial(patch.object, unet_jax.losses, "IGNORED", 254),
    ),
    _loss_fault(
        "mean over pixels for mean over weights",
        "cross-entropy-weighted-5",
        partial(patch.dict, unet_jax.losses.NORMALISERS, {"cross_entropy": "pixels"}),
    ),
    _loss_fault(
        "smoothing over the other classes alone",
        "smoothed-5",
        _loss(label_smoothing=lambda share: share * 5 / 4),
    ),
    _loss_fault(
        "Dice of the batch for Dice of each image", "dice-5", _loss(reduction=lambda _: "batch")
    ),
    _loss_fault("smooth added twice", "dice-smooth-1", _loss(smooth=lambda smooth: 2 * smooth)),
    _loss_fault("alpha on the background", "focal-alpha", _loss(focal_alpha=lambda a: 1 - a)),
    _loss_fault(
        "smallest errors first in Lovász",
        "lovasz-5",
        partial(
            patch.object,
            unet_jax.lovasz,
            "_slopes",
            lambda errors, truth, counted: slopes(-errors, truth, counted),
        ),
    ),
]

# Metrics.


def _metric_fault(name: str, stage: str, attribute: str, wrong: Callable[..., Any]) -> Mutation:
    plant = partial(patch.object, unet_jax.metrics, attribute, wrong)
    return Mutation(
        name, "metrics", (f"metric: {stage}", "2 classes"), partial(compare_metrics, (2,)), plant
    )


confusion = unet_jax.metrics.confusion_counts
tolerance = unet_jax.metrics.boundary_tolerance
METRICS = [
    _metric_fault(
        "foreground from 0, not above it",
        "predicted classes",
        "predict_classes",
        lambda logits: (logits[..., 0] >= 0).astype(jnp.int32),
    ),
    _metric_fault(
        "truth in the confusion's columns",
        "confusion",
        "confusion_counts",
        lambda *args: confusion(*args).T,
    ),
    _metric_fault(
        "boundary tolerance rounded down",
        "boundary",
        "boundary_tolerance",
        lambda size: tolerance(size) - 1,
    ),
]

# Augmentation and first weights.


def _half_off(warp: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """A warp that takes each pixel from half a pixel up and to the left."""
    return lambda x, geometry, *rest: warp(
        x, geometry - np.array([[[0, 0, 1 << 15]] * 2], np.int32), *rest
    )


def _augmentation_fault(name: str, option: str, quantity: str, plant: Any) -> Mutation:
    compare = partial(compare_augmentation, (option,))
    return Mutation(name, "augmentation", (f"augmentation: {option}", quantity), compare, plant)


uniform = flax_layers.uniform_fan_in


def _normal(fan_in: int) -> Any:
    return flax.linen.initializers.normal((3 * fan_in) ** -0.5)


OTHERS = [
    _augmentation_fault(
        "mask resampled at the lower of two pixels",
        "rotation",
        "mask",
        partial(patch.object, unet_jax.augment, "warp_mask", _half_off(unet_jax.augment.warp_mask)),
    ),
    _augmentation_fault(
        "image sampled half a pixel off",
        "scale",
        "pixels",
        partial(patch.object, unet_jax.augment, "warp", _half_off(unet_jax.augment.warp)),
    ),
    _augmentation_fault(
        "luminance of another standard",
        "contrast",
        "pixels",
        partial(patch.object, unet_torch_ref.augment, "LUMINANCE", (0.2126, 0.7152, 0.0722)),
    ),
    Mutation(
        "fan-in counted on the input side",
        "initialisation",
        ("initialisation: transposed", "weight: bound"),
        partial(compare_initialisation, ("transposed",)),
        partial(
            patch.object,
            flax_layers,
            "uniform_fan_in",
            lambda fan_in: uniform(16 * 4 if fan_in == WIDE * 4 else fan_in),
        ),
    ),
    Mutation(
        "normal distribution of the same variance",
        "initialisation",
        ("initialisation: 3x3", "weight: bound"),
        partial(compare_initialisation, ("3x3",)),
        partial(patch.object, flax_layers, "uniform_fan_in", _normal),
    ),
]

# Optimisers and schedules.


def _optimiser_fault(name: str, optimiser: str, plant: Any, entry: str = "conv/kernel") -> Mutation:
    compare = partial(compare_optimisers, (optimiser,))
    return Mutation(name, "optimiser", (f"optimiser: {optimiser}", entry), compare, plant)


def _clip_each(max_norm: float) -> optax.GradientTransformation:
    return optax.stateless(
        lambda updates, _: jax.tree.map(
            lambda g: g * jnp.minimum(1.0, max_norm / (optax.tree.norm(g) + 1e-6)), updates
        )
    )


def _learning_rate(change: Callable[..., Any]) -> Any:
    right = unet_jax.schedule.learning_rate
    return partial(patch.object, unet_jax.schedule, "learning_rate", partial(change, right))


build_optimizer = unet_jax.optim.build_optimizer
adam, rms, trace = optax.scale_by_adam, optax.scale_by_rms, optax.trace
update_plateau = unet_jax.schedule.Plateau.update
OPTIMISERS = [
    _optimiser_fault(
        "decay coupled to the gradient",
        "adamw",
        partial(
            patch.object,
            unet_jax.optim,
            "build_optimizer",
            lambda config: build_optimizer(dataclasses.replace(config, optimizer="adam")),
        ),
    ),
    _optimiser_fault(
        "norms and biases decay, too",
        "adamw-masked",
        partial(
            patch.object,
            unet_jax.optim,
            "kernels",
            lambda params: jax.tree.map(lambda _: True, params),
        ),
        "conv/bias",
    ),
    _optimiser_fault(
        "eps inside of Adam's root",
        "adamw-betas-eps-no-clipping",
        partial(
            patch.object,
            optax,
            "scale_by_adam",
            lambda b1, b2, eps: adam(b1, b2, eps=0.0, eps_root=eps**2),
        ),
    ),
    _optimiser_fault(
        "every tensor clipped by itself",
        "adam",
        partial(patch.object, unet_jax.optim, "clip_grad_norm", _clip_each),
    ),
    _optimiser_fault(
        "momentum that dampens the gradient",
        "sgd-momentum",
        partial(
            patch.object,
            optax,
            "trace",
            lambda decay, nesterov: optax.chain(optax.scale(1 - decay), trace(decay, nesterov)),
        ),
    ),
    _optimiser_fault(
        "momentum that does not look ahead",
        "sgd-nesterov",
        partial(patch.object, optax, "trace", lambda decay, nesterov: trace(decay, False)),
    ),
    _optimiser_fault(
        "eps inside of RMSprop's root",
        "rmsprop-alpha-eps",
        partial(
            patch.object,
            optax,
            "scale_by_rms",
            lambda decay, eps, eps_in_sqrt: rms(decay, eps, eps_in_sqrt=True),
        ),
    ),
    Mutation(
        "schedule a step early",
        "schedule",
        ("schedule: cosine", "no-warm-up"),
        partial(compare_schedules, ("cosine",)),
        _learning_rate(lambda right, step, *args, **named: right(step + 1, *args, **named)),
    ),
    Mutation(
        "cycles that do not grow",
        "schedule",
        ("schedule: restarts-doubling", "no-warm-up"),
        partial(compare_schedules, ("restarts-doubling",)),
        _learning_rate(
            lambda right, step, config, **named: right(
                step, dataclasses.replace(config, restart_factor=1), **named
            )
        ),
    ),
    Mutation(
        "patience one validation longer",
        "schedule",
        ("schedule: plateau", "after validations"),
        partial(compare_schedules, ("plateau",)),
        partial(
            patch.object,
            unet_jax.schedule.Plateau,
            "update",
            lambda self, metric, config: update_plateau(
                self,
                metric,
                dataclasses.replace(config, plateau_patience=config.plateau_patience + 1),
            ),
        ),
    ),
]

# Steps and trajectories.

average, every_nth = unet_jax.step._average, unet_jax.gradients._every_nth
WHOLE = "4 micro-batches, average"


def train_shortly(precisions: Sequence[str]) -> list[Row]:
    """A trajectory of ten steps of a network of one stage."""
    config = Config(
        model=dataclasses.replace(TINY, architecture="plain"),
        data=DataConfig(size=(8, 12)),
        train=TrainConfig(batch_size=4),
    )
    batches, classes = [random_batch(config, 2, seed) for seed in range(10)], ("ground", "car")
    return judge({name: train_in(config, batches, classes, name) for name in precisions})


def _rate_off(config: Any) -> Any:
    return optax.chain(build_optimizer(config), optax.scale(1.001))


STEPS = [
    Mutation(
        "micro-batches of neighbours",
        "accumulation",
        ("step 1", "loss"),
        partial(compare_steps, WHOLE),
        partial(
            patch.object,
            unet_jax.gradients,
            "_every_nth",
            lambda x, n: x.reshape(n, x.shape[0] // n, *x.shape[1:]),
        ),
    ),
    Mutation(
        "shares of the average swapped",
        "EMA",
        ("EMA", "encoder_0/conv_1/kernel"),
        partial(compare_steps, WHOLE),
        partial(
            patch.object,
            unet_jax.step,
            "_average",
            lambda ema, params, decay: average(ema, params, 1 - decay),
        ),
    ),
    Mutation(
        "scale grows a step early",
        "loss scale",
        ("loss scale", "of every step"),
        compare_loss_scale,
        partial(patch.object, unet_jax.scale, "INTERVAL", unet_jax.scale.INTERVAL - 1),
    ),
    Mutation(
        "scale quartered by an overflow",
        "loss scale",
        ("loss scale", "of every step"),
        compare_loss_scale,
        partial(patch.object, unet_jax.scale, "BACKOFF", 0.25),
    ),
    Mutation(
        "steps 0.1 % too long",
        "trajectory",
        ("trajectory", "loss at step 10"),
        partial(train_shortly, ("float64",)),
        partial(patch, "unet_jax.recipe.build_optimizer", _rate_off),
    ),
    Mutation(
        "convolutions in bfloat16",
        "trajectory",
        ("trajectory", "loss at step 10"),
        partial(train_shortly, ("float64", "float32")),
        _conv(_coarse),
    ),
]

MUTATIONS = [*NETWORKS, *LOSSES, *METRICS, *OTHERS, *OPTIMISERS, *STEPS]

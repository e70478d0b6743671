"""What a run is made of: six frozen groups of settings, read from YAML and checked here, once."""

import dataclasses
import functools
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, dataclass_transform

import yaml
from pydantic import (
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic.dataclasses import dataclass

from unet_jax.batch import IGNORED

Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
T = TypeVar("T")
Channel = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Decay = Annotated[float, Field(ge=0, lt=1)]

PLACES = ("data_dir", "description", "prepared_dir", "cache")
"""Settings that say where the data lies, and change nothing that is learnt."""


def _one_line(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    """Instead of what each of the kinds of class weights has against a value."""
    try:
        return check(value)
    except ValidationError:
        raise ValueError(
            f"class_weights: {value!r} is neither none, inverse, median nor numbers of at least 0"
        ) from None


ClassWeights = Annotated[
    Literal["none", "inverse", "median"] | tuple[Weight, ...], WrapValidator(_one_line)
]


@dataclass_transform(frozen_default=True, kw_only_default=True)
def settings(cls: type[T]) -> type[T]:
    """A frozen dataclass whose constructor raises `ValueError`, one line for each bad field."""
    checked: Any = dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))(cls)
    construct = checked.__init__

    @functools.wraps(construct)
    def init(self: T, **fields: Any) -> None:
        try:
            construct(self, **fields)
        except ValidationError as error:
            raise ValueError("\n".join(problems(error))) from None

    checked.__init__ = init
    return checked


@settings
class PrepareConfig:
    """Which pictures, at which size, and how they are split."""

    dataset: Literal["shapes", "carvana", "camvid", "ade20k", "folder"] = "shapes"
    """shapes is rendered here and needs no download; the others are read from --data-dir, folder
    being anyone's images and masks."""

    data_dir: Path | None = None
    """Folder that holds the publisher's files: folders, or the zips as downloaded."""

    mask_suffix: str = ""
    """What ends the name of a mask and not that of its image, as in _mask (folder only)."""

    description: Path | None = None
    """YAML file that says what mask values mean; without one they are looked at (folder only)."""

    prepared_dir: Path = Path("~/.cache/unet-jax")
    """Where the checked, resized copy is stored, once for all runs."""

    size: tuple[Count, Count] = (96, 128)
    """Height and width, in pixels, of what the network is given."""

    stored_size: tuple[Count, Count] | None = None
    """Height and width of the prepared copy, up to twice --size on each side: crops and zooms are
    cut from it, and sharper. None: those of --size."""

    scenes: Count = 500
    """How many scenes of shapes there are, training and validation together."""

    val_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of the groups (cars, scenes) held out for validation, unless the set has its own."""

    test_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of them that training never sees, in validation neither; likewise. 0: none."""

    split_by: Literal["group", "sample"] = "group"
    """Whether whole groups are held out, so that a car or scene is on one side alone, or single
    samples, as some publications do: their scores are those of cars seen before."""

    split_seed: Annotated[int, Field(ge=0)] = 0
    """Draws the groups that are held out."""

    @model_validator(mode="after")
    def _check_prepared(self) -> "PrepareConfig":
        sides = zip(self.prepared_size, self.size, strict=True)
        if not all(side <= stored <= 2 * side for stored, side in sides):
            most = (2 * self.size[0], 2 * self.size[1])
            raise ValueError(
                f"stored_size: {self.stored_size} must be between size {self.size} and twice "
                f"that, {most}, on each side"
            )
        for name in ("mask_suffix", "description"):
            if getattr(self, name) and self.dataset != "folder":
                raise ValueError(f"{name}: {getattr(self, name)} needs dataset folder")
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError(
                f"val_fraction, test_fraction: {self.val_fraction} and {self.test_fraction} leave "
                "nothing to train on"
            )
        return self

    @property
    def prepared_size(self) -> tuple[int, int]:
        """Height and width of the prepared copy."""
        return self.stored_size or self.size


@settings
class DataConfig(PrepareConfig):
    """Which pictures, at which size, how they are split, and what of them is trained on."""

    cache: Literal["auto", "device", "host", "none"] = "auto"
    """Where the prepared set lies in training: whole on the device, in host memory, or on disk;
    auto: the first of these with room."""

    binary: bool = False
    """Whether all object classes become one: foreground against background."""

    overfit: Annotated[int, Field(ge=0)] = 0
    """Train and validate on this many images alone, over and over; epochs stay as long. 0: off."""

    mean: tuple[Channel, Channel, Channel] = (0.485, 0.456, 0.406)
    """Subtracted from each channel of an image in 0..1."""

    std: tuple[Channel, Channel, Channel] = (0.229, 0.224, 0.225)
    """Divides each channel after that."""

    @model_validator(mode="after")
    def _check(self) -> "DataConfig":
        if min(self.std) <= 0:
            raise ValueError(f"std: {self.std} must be positive")
        return self


@settings
class AugmentConfig:
    """How training samples are varied; each has draws of its own in each epoch."""

    horizontal_flip: Fraction = 0.5
    """Probability that a sample is mirrored, left for right."""

    vertical_flip: Fraction = 0.0
    """Probability that a sample is mirrored, top for bottom."""

    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Largest angle in degrees, either way, as seen at the picture's native proportions."""

    scale: tuple[Positive, Positive] = (1.0, 1.0)
    """Smallest and largest zoom; 2 shows things twice as large."""

    translation: Fraction = 0.0
    """Largest shift, either way, as a share of each side."""

    crop: Fraction = 0.0
    """Probability that a sample is a square cut out of the picture, not the whole of it."""

    crop_ratio: tuple[Share, Share] = (0.5, 1.0)
    """Smallest and largest side of that square, as a share of the picture's native short side."""

    brightness: Fraction = 0.0
    """Largest relative change: the factor is between 1 - this and 1 + this."""

    contrast: Fraction = 0.0
    """Largest relative change of the distance from the mean luminance."""

    saturation: Fraction = 0.0
    """Largest relative change of the distance from grey."""

    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Largest turn of the colour circle, either way, as a share of it."""

    gamma: Annotated[float, Field(ge=0, le=2)] = 0.0
    """Largest logarithm, either way, of the exponent that values in 0..1 are raised to."""

    outside: Literal["auto", "ignore", "background"] = "auto"
    """What the mask says where a sample shows what lies outside of the picture: nothing that
    counts, or class 0. auto: background if there are two classes, else ignore."""

    @model_validator(mode="after")
    def _check(self) -> "AugmentConfig":
        for name in ("scale", "crop_ratio"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name}: {(low, high)} must have the smaller one first")
        return self

    def fill(self, classes: int) -> int:
        """What masks of `classes` classes hold outside of the picture: 255 (ignored) or 0."""
        background = self.outside == "background" or (self.outside == "auto" and classes == 2)
        return 0 if background else IGNORED


@settings
class ModelConfig:
    """The network."""

    architecture: Literal["residual", "plain"] = "residual"
    """residual: pre-activation residual blocks, a skip from each; plain: double convolutions."""

    channels: Annotated[tuple[Count, ...], Field(min_length=1)] = (64, 128, 256, 512)
    """Width of each stage; every stage halves height and width."""

    blocks_per_stage: Count = 1
    """Residual blocks at each stage's width (residual only)."""

    norm: Literal["batch", "group", "none"] = "group"
    """Kind of the norm layers; the published residual network has group, the plain one batch."""

    groups: Count = 16
    """Groups of a group norm; each stage's width must divide by it."""

    upsample: Literal["transposed", "bilinear"] = "transposed"
    """Transposed convolution, or bilinear interpolation followed by a convolution."""

    skip: bool = True
    """Whether the decoder sees the encoder's tensors (residual only)."""

    size_policy: Literal["pad", "resize"] = "pad"
    """What happens to sizes that do not divide by 2 at every stage."""

    @model_validator(mode="after")
    def _check(self) -> "ModelConfig":
        if self.norm == "group":
            for width in self.channels:
                if width % self.groups:
                    raise ValueError(
                        f"groups: {self.groups} does not divide the width {width} of channels "
                        f"{self.channels}"
                    )
        if self.architecture == "plain":
            for name, only in (("blocks_per_stage", 1), ("skip", True)):
                if getattr(self, name) != only:
                    raise ValueError(
                        f"{name}: {getattr(self, name)} needs architecture residual; "
                        f"plain allows {only} alone"
                    )
        return self

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of the architecture's class, in either framework."""
        fields = dataclasses.asdict(self)
        architecture = fields.pop("architecture")
        if architecture == "plain":
            del fields["blocks_per_stage"], fields["skip"]
        return fields


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
class LossConfig:
    """What is minimised: a weighted sum of losses, over the pixels that count."""

    cross_entropy: Weight = 1.0
    """Weight of the cross-entropy, which is binary if there are two classes."""

    dice: Weight = 0.0
    """Weight of 1 - Dice of the probabilities: the foreground's if there are two classes, else the
    mean over the classes."""

    tversky: Weight = 0.0
    """Weight of 1 - Tversky index: as Dice, but with weights for either kind of error."""

    focal: Weight = 0.0
    """Weight of the focal loss: cross-entropy that hardly sees pixels which are nearly right."""

    lovasz: Weight = 0.0
    """Weight of the Lovász extension of 1 - IoU of each image: hinge if there are two classes, else
    softmax."""

    pos_weight: Positive = 1.0
    """Factor of the foreground's cross-entropy (two classes only)."""

    class_weights: ClassWeights = "none"
    """Weight of each class in cross-entropy and focal loss: none (1 each), inverse frequency or
    median frequency in the training masks, where a class that never occurs has 0; or a number for
    each class."""

    label_smoothing: Fraction = 0.0
    """Share of each target that goes to all classes alike (cross-entropy only)."""

    reduction: Literal["image", "batch"] = "image"
    """Dice and Tversky of each image, then the mean over images; or of the batch as one image."""

    smooth: Positive = 1e-6
    """Added to numerator and denominator of Dice; a class in neither truth nor prediction has Dice
    1."""

    tversky_alpha: Weight = 0.3
    """Weight of a false positive in the Tversky index; Dice has 0.5."""

    tversky_beta: Weight = 0.7
    """Weight of a false negative in the Tversky index; Dice has 0.5."""

    focal_gamma: Weight = 2.0
    """Exponent of the focal loss; 0 makes it the cross-entropy."""

    focal_alpha: Fraction | None = None
    """Weight of the foreground in the focal loss, the background's being 1 less this (two classes
    only)."""

    border_weight: Weight = 0.0
    """What pixels between two objects weigh more than others in the cross-entropy; 10 in the U-Net
    paper. Objects are connected pixels of one class other than 0. 0: off."""

    border_sigma: Positive = 5.0
    """How wide such a border is, in pixels of the prepared masks."""

    @model_validator(mode="after")
    def _check(self) -> "LossConfig":
        terms = (self.cross_entropy, self.dice, self.tversky, self.focal, self.lovasz)
        if not any(terms):
            raise ValueError(
                "cross_entropy, dice, tversky, focal, lovasz: all are 0; one must be more"
            )
        if self.border_weight and not self.cross_entropy:
            raise ValueError(f"border_weight: {self.border_weight} needs a cross_entropy above 0")
        if not isinstance(self.class_weights, str) and not any(self.class_weights):
            raise ValueError(f"class_weights: {self.class_weights} must hold one above 0")
        return self

    @property
    def border(self) -> float | None:
        """How wide borders are in the border maps that samples need; None: they need none."""
        return self.border_sigma if self.border_weight else None

    def check(self, classes: int) -> None:
        """Raises `ValueError` if a setting does not go with so many classes."""
        if not isinstance(self.class_weights, str) and len(self.class_weights) != classes:
            raise ValueError(
                f"class_weights: {len(self.class_weights)} numbers are given for {classes} classes"
            )
        for name, off in (("pos_weight", 1), ("focal_alpha", None)):
            value = getattr(self, name)
            if classes != 2 and value != off:
                raise ValueError(
                    f"{name}: {value} needs two classes, and there are {classes}; class_weights "
                    "has one for each"
                )

    def arguments(self, class_weights: tuple[float, ...] | None) -> dict[str, Any]:
        """Keyword arguments of `Loss` in either framework, with class weights as numbers."""
        fields = dataclasses.asdict(self) | {"class_weights": class_weights}
        del fields["border_sigma"]
        return fields


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

    @model_validator(mode="after")
    def _check(self) -> "TrainConfig":
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"accumulate: {self.accumulate} does not divide batch_size {self.batch_size}"
            )
        return self


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


@settings
class Config:
    """Everything that makes one run differ from another."""

    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()
    save: SaveConfig = SaveConfig()

    @model_validator(mode="after")
    def _check(self) -> "Config":
        shortest = 2 ** len(self.model.channels)
        if min(self.data.size) < shortest:
            raise ValueError(
                f"size: {self.data.size} is too small; {len(self.model.channels)} stages need at "
                f"least {shortest} pixels a side"
            )
        overlaps = self.loss.dice or self.loss.tversky
        if self.train.accumulate > 1 and overlaps and self.loss.reduction == "batch":
            raise ValueError(
                f"accumulate: {self.train.accumulate} needs reduction image: the overlap of a "
                "whole batch is not known while its parts are computed"
            )
        return self


def presets() -> list[str]:
    """Names of the presets that come with the package."""
    folder = resources.files("unet_jax") / "presets"
    return sorted(
        f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")
    )


def load(source: str | Path) -> Config:
    """Reads a preset by its name, or a YAML file by its path.

    Raises:
      ValueError: No such preset or file, or a field in it is unknown or out of range; the message
        has one line for each.
    """
    path = Path(source)
    if str(source) in presets():
        text = (resources.files("unet_jax") / "presets" / f"{source}.yaml").read_text()
    elif path.suffix in (".yaml", ".yml") and path.is_file():
        text = _read_text(path)
    else:
        raise ValueError(
            f"preset {str(source)!r} is neither a YAML file nor one of {', '.join(presets())}"
        )
    try:
        fields = yaml.safe_load(text) or {}
        return TypeAdapter(Config).validate_python(fields)
    except yaml.YAMLError as error:
        raise ValueError(f"{source}: not YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        raise ValueError("\n".join(f"{source}: {line}" for line in problems(error))) from None


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not a text file") from None


def dump(config: Config) -> str:
    """The YAML text that `load` reads back as the same config."""
    fields = TypeAdapter(Config).dump_python(config, mode="json")
    return yaml.safe_dump(fields, sort_keys=False, default_flow_style=None)


def differences(before: Config, now: Config) -> list[str]:
    """The settings that differ and change what is trained or best: `epochs: 10 -> 20`."""
    harmless = (*PLACES, "every_epochs", "every_steps", "keep")
    return [
        f"{name}: {old} -> {getattr(new_group, name)}"
        for old_group, new_group in zip(vars(before).values(), vars(now).values(), strict=True)
        for name, old in vars(old_group).items()
        if name not in harmless and old != getattr(new_group, name)
    ]


def problems(error: ValidationError) -> list[str]:
    """One line for each field that failed: its name, what is wrong, and the value."""
    lines = []
    for item in error.errors():
        field = ".".join(str(part) for part in item["loc"]) or "the file"
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "value_error":  # Ours: they name the field and the value.
            lines.append(message)
        elif item["type"] == "unexpected_keyword_argument":
            lines.append(f"{field}: there is no such setting")
        else:
            lines.append(f"{field}: {message}; got {item['input']!r}")
    return lines

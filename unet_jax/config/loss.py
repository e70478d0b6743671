"""What is minimised."""

import dataclasses
from typing import Annotated, Any, Literal

from pydantic import ValidationError, ValidatorFunctionWrapHandler, WrapValidator, model_validator

from unet_jax.config.settings import Fraction, Positive, Weight, settings


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

SETTINGS: dict[str, tuple[str, ...]] = {
    "pos_weight": ("cross_entropy",),
    "class_weights": ("cross_entropy", "focal"),
    "label_smoothing": ("cross_entropy",),
    "reduction": ("dice", "tversky"),
    "smooth": ("dice", "tversky"),
    "tversky_alpha": ("tversky",),
    "tversky_beta": ("tversky",),
    "focal_gamma": ("focal",),
    "focal_alpha": ("focal",),
    "border_weight": ("cross_entropy",),
    "border_sigma": ("border_weight",),
}
"""Settings that have an effect only beside others, and which ones."""


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
    """Added to numerator and denominator of Dice, and half of it to Tversky's. A class that is
    absent from the truth has Dice smooth / (p + smooth), if p is the sum of its probabilities: 1 if
    it is not predicted at all, near 0 otherwise."""

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
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        for name, users in SETTINGS.items():
            value = getattr(self, name)
            if value != defaults[name] and not any(getattr(self, user) for user in users):
                raise ValueError(f"{name}: {value} needs a {' or '.join(users)} above 0")
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

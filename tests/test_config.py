"""Settings: read, written and refused."""

import dataclasses
import math
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from unet_jax.config import (
    AugmentConfig,
    Config,
    DataConfig,
    LossConfig,
    ModelConfig,
    OptimConfig,
    SaveConfig,
    TrainConfig,
    differences,
    dump,
    load,
    presets,
)

GROUPS = (DataConfig, AugmentConfig, ModelConfig, LossConfig, OptimConfig, TrainConfig, SaveConfig)


def write(folder: Path, text: str) -> Path:
    path = folder / "settings.yaml"
    path.write_text(text, encoding="utf-8")
    return path


# Reading and writing.


def test_there_are_presets():
    assert {"shapes", "carvana-small"} <= set(presets())


@pytest.mark.parametrize("preset", presets())
def test_a_preset_survives_writing_and_reading(preset, tmp_path):
    config = load(preset)
    assert load(write(tmp_path, dump(config))) == config


CHANGED = Config(
    data=DataConfig(
        dataset="folder",
        data_dir=Path("raw"),
        prepared_dir=Path("prepared"),
        size=(40, 56),
        stored_size=(60, 112),
        scenes=7,
        binary=True,
        val_fraction=0.35,
        test_fraction=0.1,
        split_by="sample",
        split_seed=3,
        overfit=2,
        mask_suffix="_m",
        description=Path("classes.yaml"),
        cache="none",
        mean=(0.1, 0.2, 0.3),
        std=(0.4, 0.5, 0.6),
    ),
    augment=AugmentConfig(
        horizontal_flip=0.25,
        vertical_flip=0.1,
        rotation=15,
        scale=(0.75, 1.5),
        translation=0.05,
        crop=0.5,
        crop_ratio=(0.2, 0.9),
        brightness=0.1,
        contrast=0.2,
        saturation=0.3,
        hue=0.05,
        gamma=0.4,
        outside="background",
    ),
    model=ModelConfig(
        architecture="residual",
        channels=(6, 12),
        blocks_per_stage=2,
        norm="batch",
        groups=5,
        upsample="bilinear",
        skip=False,
        size_policy="resize",
    ),
    loss=LossConfig(
        cross_entropy=0.5,
        dice=1.5,
        tversky=0.25,
        focal=2.0,
        lovasz=0.75,
        pos_weight=3.0,
        class_weights=(0.0, 2.5),
        label_smoothing=0.1,
        reduction="batch",
        smooth=1.0,
        tversky_alpha=0.4,
        tversky_beta=0.6,
        focal_gamma=3.0,
        focal_alpha=0.25,
        border_weight=10.0,
        border_sigma=4.0,
    ),
    optim=OptimConfig(
        optimizer="sgd",
        learning_rate=3e-5,
        weight_decay=0.5,
        decay_norms_and_biases=False,
        momentum=0.9,
        nesterov=True,
        clip_norm=math.inf,
        schedule="step",
        warmup=0.0,
        warmup_steps=7,
        step_epochs=3,
        step_factor=0.5,
    ),
    train=TrainConfig(
        epochs=3, batch_size=6, precision="float16", ema_decay=0.9, max_skipped=3, seed=11
    ),
    save=SaveConfig(best="val_loss", every_epochs=4, every_steps=9, keep=3),
)


OTHER_OPTIMS = [
    OptimConfig(betas=(0.8, 0.9), eps=1e-6, min_rate=0.1),
    OptimConfig(optimizer="rmsprop", rmsprop_alpha=0.9, schedule="polynomial", poly_power=2),
    OptimConfig(schedule="restarts", restart_epochs=3, restart_factor=2),
    OptimConfig(schedule="one_cycle", one_cycle_div=10, one_cycle_final_div=100),
    OptimConfig(schedule="plateau", plateau_patience=5, plateau_factor=0.5, plateau_threshold=0.01),
]
"""The settings that no one optimiser or schedule has all of."""


def test_every_setting_survives_writing_and_reading(tmp_path):
    configs = [CHANGED, *(dataclasses.replace(CHANGED, optim=optim) for optim in OTHER_OPTIMS)]
    parts = TrainConfig(accumulate=2)  # Which a Dice of the batch does not go with.
    configs.append(dataclasses.replace(CHANGED, loss=LossConfig(), train=parts))
    for group in ("data", "augment", "model", "loss", "optim", "train", "save"):
        default = dataclasses.asdict(getattr(Config(), group))
        changed = [dataclasses.asdict(getattr(config, group)) for config in configs]
        kept = [name for name in default if all(c[name] == default[name] for c in changed)]
        assert kept == (["architecture"] if group == "model" else []), "change every setting here"
    for config in configs:
        assert load(write(tmp_path, dump(config))) == config


def test_a_file_names_only_what_it_changes(tmp_path):
    config = load(write(tmp_path, "train: {epochs: 2}\ndata: {size: [32, 48]}\n"))
    assert config == Config(data=DataConfig(size=(32, 48)), train=TrainConfig(epochs=2))
    assert load(write(tmp_path, "")) == Config()


@pytest.mark.parametrize("weights", ["none", "inverse", "median"])
def test_class_weights_may_have_a_name(tmp_path, weights):
    config = load(write(tmp_path, f"loss: {{class_weights: {weights}}}"))
    assert config.loss.class_weights == weights
    assert load(write(tmp_path, dump(config))) == config


def test_a_number_in_scientific_notation_is_a_number(tmp_path):
    # YAML 1.1 takes 1e-4, without a point, for text.
    assert load(write(tmp_path, "optim: {learning_rate: 1e-4}")).optim.learning_rate == 1e-4


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.__name__)
def test_settings_are_frozen(group):
    settings = group()
    for field in dataclasses.fields(group):
        before = getattr(settings, field.name)
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(settings, field.name, before)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(Config(), "train", TrainConfig())  # noqa: B010


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.__name__)
def test_settings_have_no_positions(group):
    with pytest.raises(TypeError, match="positional"):
        group(1)


def test_a_replaced_setting_is_checked_again():
    with pytest.raises(ValueError, match=r"epochs: .*greater than or equal to 1; got 0"):
        dataclasses.replace(TrainConfig(), epochs=0)


def test_plain_takes_no_residual_options():
    arguments = ModelConfig(architecture="plain").arguments()
    assert set(ModelConfig().arguments()) - set(arguments) == {"blocks_per_stage", "skip"}
    assert "architecture" not in arguments


# Refusals: the field, what is allowed, and the value.


@pytest.mark.parametrize(
    ("group", "fields", "message"),
    [
        pytest.param(
            OptimConfig, {"rate": 1}, "rate: there is no such setting", id="unknown-field"
        ),
        pytest.param(
            TrainConfig, {"epochs": 0}, "epochs: *greater than or equal to 1; got 0", id="epochs-0"
        ),
        pytest.param(
            TrainConfig, {"epochs": 1.5}, "epochs: *valid integer*; got 1.5", id="epochs-1.5"
        ),
        pytest.param(
            TrainConfig,
            {"batch_size": "many"},
            "batch_size: *integer*; got 'many'",
            id="batch-text",
        ),
        pytest.param(
            TrainConfig,
            {"seed": -1},
            "seed: *greater than or equal to 0; got -1",
            id="seed-negative",
        ),
        pytest.param(
            SaveConfig,
            {"best": "loss"},
            "best: *'dice', *'val_loss'; got 'loss'",
            id="best-unknown",
        ),
        pytest.param(
            SaveConfig,
            {"every_epochs": 0},
            "every_epochs: *greater than or equal to 1; got 0",
            id="every-epochs-0",
        ),
        pytest.param(
            SaveConfig,
            {"every_steps": -1},
            "every_steps: *greater than or equal to 0; got -1",
            id="every-steps-negative",
        ),
        pytest.param(
            SaveConfig, {"keep": 0}, "keep: *greater than or equal to 1; got 0", id="keep-0"
        ),
        pytest.param(
            OptimConfig,
            {"learning_rate": 0.0},
            "learning_rate: *greater than 0; got 0.0",
            id="rate-0",
        ),
        pytest.param(
            OptimConfig,
            {"learning_rate": math.inf},
            "learning_rate: *finite*; got inf",
            id="rate-inf",
        ),
        pytest.param(
            OptimConfig,
            {"weight_decay": -0.1},
            "weight_decay: *greater than or equal to 0; got -0.1",
            id="decay-negative",
        ),
        pytest.param(
            OptimConfig, {"warmup": 1.01}, "warmup: *less than or equal to 1; got 1.01", id="warmup"
        ),
        pytest.param(
            OptimConfig, {"warmup": math.nan}, "warmup: *less than or equal to 1; got nan", id="nan"
        ),
        pytest.param(
            OptimConfig, {"clip_norm": 0}, "clip_norm: *greater than 0; got 0", id="clip-0"
        ),
        pytest.param(
            OptimConfig,
            {"clip_norm": math.nan},
            "clip_norm: *greater than 0; got nan",
            id="clip-nan",
        ),
        pytest.param(
            OptimConfig,
            {"optimizer": "lion"},
            "optimizer: *'adamw', 'adam', 'sgd' or 'rmsprop'; got 'lion'",
            id="optimizer",
        ),
        pytest.param(
            OptimConfig, {"schedule": "linear"}, "schedule: *'cosine'*; got 'linear'", id="schedule"
        ),
        pytest.param(OptimConfig, {"betas": (0.9, 1)}, "betas.1: *less than 1; got 1", id="beta-1"),
        pytest.param(OptimConfig, {"eps": 0}, "eps: *greater than 0; got 0", id="eps-0"),
        pytest.param(
            OptimConfig,
            {"momentum": 1, "optimizer": "sgd"},
            "momentum: *less than 1; got 1",
            id="momentum-1",
        ),
        pytest.param(
            OptimConfig,
            {"plateau_factor": 1, "schedule": "plateau"},
            "plateau_factor: *less than 1; got 1",
            id="plateau-factor-1",
        ),
        pytest.param(
            OptimConfig,
            {"step_epochs": 0, "schedule": "step"},
            "step_epochs: *greater than or equal to 1; got 0",
            id="no-epoch-to-a-drop",
        ),
        pytest.param(
            OptimConfig,
            {"momentum": 0.9},
            "momentum: 0.9 needs optimizer sgd or rmsprop; got adamw",
            id="momentum-of-adamw",
        ),
        pytest.param(
            OptimConfig,
            {"betas": (0.8, 0.9), "optimizer": "rmsprop"},
            "betas: (0.8, 0.9) needs optimizer adamw or adam; got rmsprop",
            id="betas-of-rmsprop",
        ),
        pytest.param(
            OptimConfig,
            {"eps": 1e-4, "optimizer": "sgd"},
            "eps: 0.0001 needs optimizer adamw or adam or rmsprop; got sgd",
            id="eps-of-sgd",
        ),
        pytest.param(
            OptimConfig,
            {"nesterov": True, "optimizer": "rmsprop", "momentum": 0.9},
            "nesterov: True needs optimizer sgd; got rmsprop",
            id="nesterov-of-rmsprop",
        ),
        pytest.param(
            OptimConfig,
            {"nesterov": True, "optimizer": "sgd"},
            "nesterov: True needs a momentum greater than 0",
            id="nesterov-without-momentum",
        ),
        pytest.param(
            OptimConfig,
            {"rmsprop_alpha": 0.9},
            "rmsprop_alpha: 0.9 needs optimizer rmsprop; got adamw",
            id="alpha-of-adamw",
        ),
        pytest.param(
            OptimConfig,
            {"decay_norms_and_biases": False, "weight_decay": 0},
            "decay_norms_and_biases: False needs a weight_decay greater than 0",
            id="masked-without-decay",
        ),
        pytest.param(
            OptimConfig,
            {"warmup_steps": 500},
            "warmup_steps: 500 needs warmup 0; got 0.1",
            id="two-warm-ups",
        ),
        pytest.param(
            OptimConfig,
            {"min_rate": 0.1, "schedule": "step"},
            "min_rate: 0.1 needs schedule cosine or restarts; got step",
            id="min-rate-of-step",
        ),
        pytest.param(
            OptimConfig,
            {"step_epochs": 3},
            "step_epochs: 3 needs schedule step; got cosine",
            id="step-epochs-of-cosine",
        ),
        pytest.param(
            OptimConfig,
            {"plateau_patience": 5, "schedule": "one_cycle"},
            "plateau_patience: 5 needs schedule plateau; got one_cycle",
            id="patience-of-one-cycle",
        ),
        pytest.param(
            DataConfig,
            {"dataset": "cats"},
            "dataset: *'shapes'*'carvana'*; got 'cats'",
            id="dataset",
        ),
        pytest.param(DataConfig, {"size": (96,)}, "size.1: *required; got (96,)", id="one-side"),
        pytest.param(
            DataConfig,
            {"size": (9, 9, 3)},
            "size: *at most 2 items*; got (9, 9, 3)",
            id="three-sides",
        ),
        pytest.param(
            DataConfig, {"size": (96, 0)}, "size.1: *greater than or equal to 1; got 0", id="side-0"
        ),
        pytest.param(
            DataConfig,
            {"stored_size": (96, 127), "size": (96, 128)},
            "stored_size: (96, 127) must be between size (96, 128) and twice that, (192, 256), on "
            "each side, or None for size itself",
            id="stored-smaller",
        ),
        pytest.param(
            DataConfig,
            {"stored_size": (193, 128), "size": (96, 128)},
            "stored_size: (193, 128) must be between size (96, 128) and twice that, *",
            id="stored-larger",
        ),
        pytest.param(
            DataConfig, {"val_fraction": 1}, "val_fraction: *less than 1; got 1", id="all-held-out"
        ),
        pytest.param(
            DataConfig,
            {"val_fraction": 0},
            "val_fraction: *greater than 0; got 0",
            id="none-held-out",
        ),
        pytest.param(
            AugmentConfig,
            {"horizontal_flip": 2},
            "horizontal_flip: *less than or equal to 1; got 2",
            id="flip",
        ),
        pytest.param(
            AugmentConfig,
            {"rotation": 181},
            "rotation: *less than or equal to 180; got 181",
            id="rotation",
        ),
        pytest.param(
            AugmentConfig,
            {"scale": (0, 1)},
            "scale.0: *greater than 0; got 0",
            id="zoom-0",
        ),
        pytest.param(
            AugmentConfig,
            {"scale": (1.5, 0.5)},
            "scale: (1.5, 0.5) must have the smaller one first",
            id="zooms-swapped",
        ),
        pytest.param(
            AugmentConfig,
            {"crop_ratio": (0.5, 1.1)},
            "crop_ratio.1: *less than or equal to 1; got 1.1",
            id="crop-too-large",
        ),
        pytest.param(
            AugmentConfig,
            {"crop_ratio": (0.9, 0.5)},
            "crop_ratio: (0.9, 0.5) must have the smaller one first",
            id="crops-swapped",
        ),
        pytest.param(
            AugmentConfig,
            {"brightness": -0.1},
            "brightness: *greater than or equal to 0; got -0.1",
            id="brightness",
        ),
        pytest.param(
            AugmentConfig, {"hue": 0.6}, "hue: *less than or equal to 0.5; got 0.6", id="hue"
        ),
        pytest.param(
            AugmentConfig, {"gamma": 3}, "gamma: *less than or equal to 2; got 3", id="gamma"
        ),
        pytest.param(
            AugmentConfig,
            {"outside": "zero"},
            "outside: *'auto', 'ignore' or 'background'; got 'zero'",
            id="outside",
        ),
        pytest.param(
            DataConfig,
            {"std": (0.2, 0, 0.2)},
            "std: (0.2, 0.0, 0.2) must be positive",
            id="std-0",
        ),
        pytest.param(
            DataConfig,
            {"dataset": "camvid", "mask_suffix": "_m"},
            "mask_suffix: _m needs dataset folder",
            id="suffix-of-a-published-set",
        ),
        pytest.param(
            DataConfig, {"mean": (0, math.inf, 0)}, "mean.1: *finite*; got inf", id="mean-inf"
        ),
        pytest.param(
            LossConfig, {"dice": -1}, "dice: *greater than or equal to 0; got -1", id="dice"
        ),
        pytest.param(
            LossConfig,
            {"cross_entropy": 0},
            "cross_entropy, dice, tversky, focal, lovasz: all are 0; one must be more",
            id="no-loss",
        ),
        pytest.param(
            LossConfig,
            {"class_weights": "mean"},
            "class_weights: 'mean' is neither none, inverse, median nor numbers of at least 0",
            id="class-weights-word",
        ),
        pytest.param(
            LossConfig,
            {"class_weights": (1.0, -1.0)},
            "class_weights: *1.0, -1.0* is neither none, *",
            id="class-weight-negative",
        ),
        pytest.param(
            LossConfig,
            {"class_weights": (0.0, 0.0)},
            "class_weights: (0.0, 0.0) must hold one above 0",
            id="class-weights-0",
        ),
        pytest.param(
            LossConfig,
            {"border_weight": 10, "cross_entropy": 0, "dice": 1},
            "border_weight: 10.0 needs a cross_entropy above 0",
            id="border-without-cross-entropy",
        ),
        *(
            pytest.param(
                LossConfig,
                {name: value, "cross_entropy": 0, "lovasz": 1},
                f"{name}: {value} needs a {needed} above 0",
                id=f"{name}-alone",
            )
            for name, value, needed in (
                ("pos_weight", 2.0, "cross_entropy"),
                ("label_smoothing", 0.1, "cross_entropy"),
                ("class_weights", "median", "cross_entropy or focal"),
                ("class_weights", (1.0, 2.0), "cross_entropy or focal"),
                ("reduction", "batch", "dice or tversky"),
                ("smooth", 1.0, "dice or tversky"),
                ("tversky_alpha", 0.5, "tversky"),
                ("tversky_beta", 0.5, "tversky"),
                ("focal_gamma", 1.0, "focal"),
                ("focal_alpha", 0.25, "focal"),
                ("border_sigma", 4.0, "border_weight"),
            )
        ),
        pytest.param(
            AugmentConfig,
            {"crop_ratio": (0.2, 1.0)},
            "crop_ratio: (0.2, 1.0) needs a crop above 0",
            id="crop-ratio-alone",
        ),
        pytest.param(
            LossConfig,
            {"focal_alpha": 1.5},
            "focal_alpha: *less than or equal to 1; got 1.5",
            id="focal-alpha",
        ),
        pytest.param(LossConfig, {"smooth": 0}, "smooth: *greater than 0; got 0", id="smooth-0"),
        pytest.param(
            LossConfig,
            {"reduction": "mean"},
            "reduction: *'image' or 'batch'; got 'mean'",
            id="reduction",
        ),
        pytest.param(
            ModelConfig,
            {"norm": "layer"},
            "norm: *'batch', 'group' or 'none'; got 'layer'",
            id="norm",
        ),
        pytest.param(
            ModelConfig, {"channels": ()}, "channels: *at least 1*; got ()", id="no-stage"
        ),
        pytest.param(ModelConfig, {"channels": 64}, "channels: *tuple; got 64", id="one-number"),
        pytest.param(
            ModelConfig, {"skip": "maybe"}, "skip: *boolean*; got 'maybe'", id="neither-yes-nor-no"
        ),
        pytest.param(
            ModelConfig,
            {"channels": (16, 24)},
            "groups: 16 does not divide the width 24 of channels (16, 24)",
            id="groups-not-dividing",
        ),
        pytest.param(
            ModelConfig,
            {"architecture": "plain", "skip": False},
            "skip: False needs architecture residual; plain allows True alone",
            id="plain-without-skips",
        ),
        pytest.param(
            ModelConfig,
            {"architecture": "plain", "blocks_per_stage": 2},
            "blocks_per_stage: 2 needs architecture residual; plain allows 1 alone",
            id="plain-with-two-blocks",
        ),
    ],
)
def test_a_bad_field_is_named_with_its_value(group, fields, message, tmp_path):
    """`*` in the message stands for anything, within a line."""
    pattern = ".*".join(re.escape(part) for part in message.split("*"))
    with pytest.raises(ValueError, match=f"^{pattern}$"):
        group(**fields)

    # The same in a file, whose path starts the line.
    name = group.__name__.removesuffix("Config").lower()
    path = write(tmp_path, yaml_of(name, fields))
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: ") as error:
        load(path)
    assert "\n" not in str(error.value)
    assert next(iter(fields)) in str(error.value)


def yaml_of(group: str, fields: dict[str, Any]) -> str:
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}
    return yaml.safe_dump({group: plain})


@pytest.mark.parametrize(
    ("fields", "classes", "message"),
    [
        pytest.param(
            {"class_weights": (1.0, 2.0, 3.0)},
            4,
            "class_weights: 3 numbers are given for 4 classes",
            id="class-weights",
        ),
        pytest.param(
            {"pos_weight": 2.0},
            3,
            "pos_weight: 2.0 needs two classes, and there are 3; class_weights has one for each",
            id="pos-weight",
        ),
        pytest.param(
            {"focal_alpha": 0.25, "focal": 1.0},
            3,
            "focal_alpha: 0.25 needs two classes, and there are 3; class_weights has one for each",
            id="focal-alpha",
        ),
    ],
)
def test_a_loss_that_does_not_go_with_the_classes_is_refused(fields, classes, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        LossConfig(**fields).check(classes)
    LossConfig(**fields).check(3 if "class_weights" in fields else 2)
    LossConfig().check(classes)


def test_micro_batches_divide_the_batch_that_there_is():
    message = "^accumulate: 3 does not divide batch_size 8$"
    with pytest.raises(ValueError, match=message):
        Config(train=TrainConfig(batch_size=8, accumulate=3))
    message = "^accumulate: 2 does not divide batch_size 3 with overfit 3$"
    with pytest.raises(ValueError, match=message):
        Config(data=DataConfig(overfit=3), train=TrainConfig(batch_size=8, accumulate=2))
    few = Config(data=DataConfig(overfit=4), train=TrainConfig(batch_size=8, accumulate=2))
    assert few.batch_size == 4


def test_the_largest_layer_is_that_of_the_images_at_once():
    model = ModelConfig(channels=(2, 8, 24), groups=2)
    assert model.largest_layer((8, 12)) == 8 * 12 * 2
    wide = ModelConfig(channels=(2, 16, 128), groups=2)
    assert wide.largest_layer((8, 12)) == 2 * 3 * 128
    config = Config(
        data=DataConfig(size=(8, 12), overfit=6), model=model, train=TrainConfig(accumulate=3)
    )
    assert config.largest_layer == 2 * model.largest_layer((8, 12))


def test_groups_need_not_divide_without_a_group_norm():
    assert ModelConfig(channels=(6, 10), norm="batch").channels == (6, 10)


def test_the_prepared_copy_has_the_stored_size_or_that_of_the_samples():
    assert DataConfig(size=(8, 9)).prepared_size == (8, 9)
    for stored in ((8, 9), (16, 9), (11, 18)):
        assert DataConfig(size=(8, 9), stored_size=stored).prepared_size == stored


@pytest.mark.parametrize(
    "recipe",
    [
        pytest.param({"learning_rate": 8e-4}, id="R1-Carvana"),
        pytest.param({"learning_rate": 1e-3, "warmup": 0, "warmup_steps": 500}, id="R1-ADE20K"),
        pytest.param(
            {
                "optimizer": "adam",
                "learning_rate": 1e-4,
                "weight_decay": 0,
                "schedule": "restarts",
                "warmup": 0,
                "clip_norm": math.inf,
            },
            id="R2a",
        ),
        pytest.param(
            {
                "optimizer": "adam",
                "learning_rate": 2e-4,
                "weight_decay": 0,
                "schedule": "constant",
                "warmup": 0,
                "clip_norm": math.inf,
            },
            id="R2d",
        ),
        pytest.param(
            {
                "optimizer": "rmsprop",
                "learning_rate": 1e-5,
                "weight_decay": 1e-8,
                "momentum": 0.999,
                "schedule": "plateau",
                "plateau_patience": 5,
                "warmup": 0,
            },
            id="R2e",
        ),
    ],
)
def test_a_published_recipe_can_be_said(recipe, tmp_path):
    config = load(write(tmp_path, yaml_of("optim", recipe)))
    assert {name: getattr(config.optim, name) for name in recipe} == recipe


def test_the_lowest_loss_is_best_and_the_highest_of_all_other_scores():
    scores = ("dice", "iou", "accuracy", "mean_class_accuracy", "boundary_f", "val_loss")
    assert [name for name in scores if SaveConfig(best=name).lowest] == ["val_loss"]


@pytest.mark.parametrize(
    "save", [SaveConfig(every_epochs=3), SaveConfig(every_steps=3), SaveConfig(keep=3)]
)
def test_how_often_a_run_is_saved_may_change_when_it_is_resumed(save: SaveConfig):
    assert differences(Config(), Config(save=save)) == []


def test_what_is_best_may_not_change_when_a_run_is_resumed():
    changed = Config(save=SaveConfig(best="iou"))
    assert differences(Config(), changed) == ["best: dice -> iou"]


@pytest.mark.parametrize("stages", [1, 3])
def test_a_size_too_small_for_the_stages_is_refused(stages):
    model, least = ModelConfig(channels=(16,) * stages), 2**stages
    Config(data=DataConfig(size=(least, 100)), model=model)
    size = (100, least - 1)
    message = f"size: {size} is too small; {stages} stages need at least {least} pixels a side"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Config(data=DataConfig(size=size), model=model)


def test_every_bad_field_has_a_line(tmp_path):
    path = write(tmp_path, "train: {epochs: 0, batch: 3}\nmodle: {}\noptim: {warmup: 7}\n")
    with pytest.raises(ValueError, match="epochs") as error:
        load(path)
    lines = str(error.value).splitlines()
    assert all(line.startswith(f"{path}: ") for line in lines)
    fields = [line.removeprefix(f"{path}: ").split(":")[0] for line in lines]
    assert sorted(fields) == ["modle", "optim.warmup", "train.batch", "train.epochs"]


@pytest.mark.parametrize("text", ["data: [", "a: b: c", "\t- x: {"])
def test_what_is_not_yaml_is_refused(text, tmp_path):
    path = write(tmp_path, text)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: not YAML: .+$"):
        load(path)


@pytest.mark.parametrize("text", ["- 1\n- 2\n", "epochs", "3"], ids=["list", "word", "number"])
def test_yaml_without_groups_is_refused(text, tmp_path):
    path = write(tmp_path, text)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: .*dictionary.*; got .+$"):
        load(path)


@pytest.mark.parametrize("name", ["shape", "nowhere.yaml", ""], ids=["typo", "no-file", "empty"])
def test_an_unknown_preset_lists_those_that_exist(name):
    with pytest.raises(ValueError, match="is neither a YAML file nor one of ") as error:
        load(name)
    assert str(error.value).startswith(f"preset {name!r} ")
    assert str(error.value).endswith(f"one of {', '.join(presets())}")

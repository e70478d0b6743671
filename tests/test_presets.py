"""Presets that reproduce a publication: each number, against the publication's."""

import dataclasses
import math
from typing import Any

import pytest

from unet_jax.config import load

PLAIN = {
    "model.architecture": "plain",
    "model.channels": (64, 128, 256, 512),
    "model.norm": "batch",
    "model.upsample": "transposed",
}
RESIDUAL = {
    "model.architecture": "residual",
    "model.channels": (64, 128, 256, 512),
    "model.blocks_per_stage": 1,
    "model.norm": "group",
    "model.groups": 16,
    "model.upsample": "transposed",
    "model.skip": True,
    "data.size": (256, 256),
    "augment.horizontal_flip": 0.5,
    "augment.crop": 0.5,
    "loss.cross_entropy": 1,
    "loss.dice": 0,
    "optim.optimizer": "adamw",
    "optim.betas": (0.9, 0.999),
    "optim.weight_decay": 0.01,  # PyTorch's default, as are betas and eps.
    "optim.eps": 1e-8,
    "optim.clip_norm": 1,
    "optim.schedule": "cosine",
    "train.accumulate": 4,
}
PUBLISHED: dict[str, dict[str, Any]] = {
    "residual-carvana": {
        **RESIDUAL,
        "data.dataset": "carvana",
        "data.val_fraction": 0.1,
        "data.split_by": "sample",
        "data.mean": (0.48897059, 0.46548275, 0.4294),
        "data.std": (0.22861765, 0.22948039, 0.24054667),
        "augment.crop_ratio": (0.5, 1),
        "optim.learning_rate": 8e-4,
        "optim.warmup": 0.1,
        "optim.min_rate": 0,
        "train.batch_size": 32,
        "train.epochs": 150,
        "train.precision": "float16",
        "save.best": "val_loss",
    },
    "residual-ade20k": {
        **RESIDUAL,
        "data.dataset": "ade20k",
        "augment.crop_ratio": (0.2, 1),
        "optim.learning_rate": 1e-3,
        "optim.warmup": 0,
        "optim.warmup_steps": 500,
        "train.batch_size": 128,
    },
    "plain-carvana": {
        **PLAIN,
        "data.dataset": "carvana",
        "data.size": (320, 480),
        "augment.horizontal_flip": 0.5,
        "augment.vertical_flip": 0.1,
        "loss.cross_entropy": 1,
        "loss.dice": 0,
        "optim.optimizer": "adam",
        "optim.learning_rate": 1e-4,
        "optim.weight_decay": 0,
        "optim.clip_norm": math.inf,
        "optim.schedule": "restarts",
        "train.epochs": 20,
        "train.batch_size": 16,
        "train.precision": "float16",
    },
    "plain-carvana-yaml": {**PLAIN, "data.dataset": "carvana", "data.split_by": "sample"},
    "plain-losses": {
        **PLAIN,
        "data.dataset": "carvana",
        "loss.cross_entropy": 1,
        "loss.dice": 1,
        "loss.border_weight": 10,
        "loss.border_sigma": 5,
    },
    "plain-camvid": {
        **PLAIN,
        "data.dataset": "camvid",
        "loss.cross_entropy": 1,
        "loss.dice": 0,
        "optim.optimizer": "adam",
        "optim.learning_rate": 2e-4,
        "optim.weight_decay": 0,
        "optim.clip_norm": math.inf,
    },
    "plain-milesial": {
        **PLAIN,
        "data.dataset": "carvana",
        "data.size": (640, 959),  # Half of 1280 and 1918.
        "data.mean": (0, 0, 0),
        "data.std": (1, 1, 1),
        "model.size_policy": "pad",
        "loss.cross_entropy": 1,
        "loss.dice": 1,
        "optim.optimizer": "rmsprop",
        "optim.learning_rate": 1e-5,
        "optim.weight_decay": 1e-8,
        "optim.momentum": 0.999,
        "optim.clip_norm": 1,
        "optim.schedule": "plateau",
        "optim.plateau_patience": 5,
        "train.epochs": 5,
        "train.batch_size": 1,
    },
}
MOVED = ("vertical_flip", "rotation", "translation", "crop")
COLOURED = ("brightness", "contrast", "saturation", "hue", "gamma")


@pytest.mark.parametrize("preset", PUBLISHED)
def test_a_preset_has_its_publications_numbers(preset: str):
    config = dataclasses.asdict(load(preset))
    for name, value in PUBLISHED[preset].items():
        group, field = name.split(".")
        assert config[group][field] == value, name


@pytest.mark.parametrize("preset", PUBLISHED)
def test_a_preset_augments_by_nothing_that_its_publication_does_not(preset: str):
    augment = dataclasses.asdict(load(preset).augment)
    used = {name for name in (*MOVED, *COLOURED) if augment[name]}
    expected = {"plain-carvana": {"vertical_flip", "rotation"}}
    cropped = {"crop"} if preset.startswith("residual") else set()
    assert used == expected.get(preset, cropped)
    assert augment["scale"] == (1, 1)
    if preset == "plain-milesial":
        assert augment["horizontal_flip"] == 0


def test_the_yaml_recipe_holds_out_50_and_50_of_5088():
    data = load("plain-carvana-yaml").data
    assert [round(5088 * f) for f in (data.val_fraction, data.test_fraction)] == [50, 50]

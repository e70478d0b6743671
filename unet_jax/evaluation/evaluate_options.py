"""The command line of evaluate.py."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import tyro

from unet_jax.cli import fail, parse_args
from unet_jax.config import DataConfig, load, presets
from unet_jax.prediction.predict_config import PredictConfig


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """What is evaluated, on what, and where the report goes."""

    run: tyro.conf.UseAppendAction[tuple[Path, ...]] = ()
    """Folder of a run of train_jax.py or train_torch.py; its best state is evaluated. May be given
    several times, and beside --weights: then they are compared."""

    weights: tyro.conf.UseAppendAction[tuple[Path, ...]] = ()
    """File of weights (.safetensors), or a PyTorch checkpoint. May be given several times."""

    split: Literal["train", "val", "test"] = "val"
    """Which part of the data: the samples that the (first) run has listed in its split.json."""

    out: Path | None = None
    """Folder for the report, which is made."""

    dataset: Literal["shapes", "carvana", "camvid", "ade20k", "folder"] | None = None
    """The data set, if there is no run to tell; it is divided as a training would divide it."""

    preset: str | None = None
    """Its settings: a preset's name or a YAML file. Default: the data set's name."""

    data_dir: Path | None = None
    """Where its files lie. Default: where they did for the run."""

    prepared_dir: Path | None = None
    """Where its prepared copy lies, or goes. Default: as the run or the preset says."""

    framework: Literal["auto", "jax", "torch", "both"] = "auto"
    """What computes. auto: PyTorch for runs of train_torch.py, else JAX. both: each network in
    both, side by side."""

    last: bool = False
    """Of runs, the last state instead of the best one. Files have one state."""

    ema: bool = True
    """Of runs with an average of their weights, that average. --no-ema: the weights."""

    batch_size: int = 8
    """Images, or tiles of one image, that the network is given at once."""

    bootstrap: int = 1000
    """How often groups of samples are drawn for the confidence intervals; 0: no intervals."""

    seed: int = 0
    """Of these draws."""

    force: bool = False
    """Write over a report that is there already."""

    debug: bool = False
    """Show where in the code a failure happens."""


@dataclass(frozen=True, kw_only=True)
class EvaluateArguments:
    files: EvaluateOptions = field(default_factory=EvaluateOptions)
    prediction: PredictConfig = field(default_factory=PredictConfig)


def parse_evaluate(
    args: Sequence[str] | None = None, *, description: str
) -> tuple[EvaluateOptions, PredictConfig]:
    """Reads an evaluation's command line; on a mistake says what is wrong, and exits with 2."""
    arguments = parse_args(EvaluateArguments, args, description=description)
    options, prediction = arguments.files, arguments.prediction
    if not options.run and not options.weights:
        fail("--run RUN or --weights FILE: what is to be evaluated")
    if options.out is None:
        fail("--out DIR: where the report goes")
    if not options.run and options.dataset is None and options.preset is None:
        fail("--dataset NAME: what the weights are to be evaluated on (or --preset, or --run)")
    if options.run and (options.dataset is not None or options.preset is not None):
        fail("--dataset, --preset: the run says which data it is; leave them out")
    for name, least in (("batch_size", 1), ("bootstrap", 0), ("seed", 0)):
        if getattr(options, name) < least:
            fail(f"--{name.replace('_', '-')}: {getattr(options, name)} is less than {least}")
    if prediction.min_area or prediction.white != 65535:
        fail("--min-area, --white: they are for predict.py; the data set knows its white")
    return options, prediction


def data_settings(options: EvaluateOptions) -> DataConfig:
    """What the command line says of the data, where no run does.

    Raises:
      ValueError: There are no such settings.
    """
    name = options.preset or options.dataset
    assert name is not None
    config = load(name if options.preset or name in presets() else "shapes").data
    return config if options.dataset is None else replace(config, dataset=options.dataset)

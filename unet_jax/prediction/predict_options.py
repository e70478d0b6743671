"""The command line of predict.py."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import tyro

from unet_jax.cli import fail, parse_args
from unet_jax.prediction.predict_config import PredictConfig

KINDS = ("mask", "binary", "probabilities", "probabilities16", "overlay", "panel")


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """With what, of what, and where to."""

    inputs: tyro.conf.Positional[
        Annotated[tuple[str, ...], tyro.conf.arg(name="INPUT", metavar="INPUT")]
    ] = ()
    """Images, folders of images (and of folders), and globs in quotes, such as "in/**/*.jpg"."""

    run: Path | None = None
    """Folder of a run of train_jax.py; its best state predicts."""

    weights: Path | None = None
    """File of weights (.safetensors), instead of a run."""

    last: bool = False
    """Of the run, the last state instead of the best one."""

    ema: bool = True
    """Of a run with an average of its weights (--ema-decay), that average: it is what was
    validated. --no-ema: the weights themselves."""

    out: Path | None = None
    """Folder for the results. Those of images in folders go into folders of the same names."""

    save: str = "mask"
    """What is written of each image, with commas between. mask: class ids as a PNG with palette.
    binary: 0 and 255 (two classes only). probabilities: NPZ, float32 [H, W, classes].
    probabilities16: PNG of 16 bits, 65535 being 1; of more than two classes one for each. overlay:
    the classes over the image. panel: image, classes and overlay side by side, small."""

    rle: Path | None = None
    """CSV file with run lengths of all masks, as Carvana's competition wants them (two classes
    only)."""

    coco: Path | None = None
    """JSON file with all masks in COCO's format: pip install -e ".[coco]"."""

    batch_size: int = 8
    """Images of one size, or tiles of one image, that the network is given at once."""

    force: bool = False
    """Write over results that are there already."""

    debug: bool = False
    """Show where in the code the first failure happens, and stop there."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """What is written of each image: some of `KINDS`, each once."""
        return tuple(dict.fromkeys(self.save.split(","))) if self.out else ()


@dataclass(frozen=True, kw_only=True)
class PredictArguments:
    files: PredictOptions = field(default_factory=PredictOptions)
    prediction: PredictConfig = field(default_factory=PredictConfig)


def parse_predict(
    args: Sequence[str] | None = None, *, description: str
) -> tuple[PredictOptions, PredictConfig]:
    """Reads a prediction's command line; on a mistake says what is wrong, and exits with 2."""
    arguments = parse_args(PredictArguments, args, description=description)
    options = arguments.files
    if (options.run is None) == (options.weights is None):
        fail("--run RUN or --weights FILE, one of them: what is to predict")
    if not options.inputs:
        fail("INPUT: which images, folders or globs are to be predicted")
    if options.out is None and options.rle is None and options.coco is None:
        fail("--out DIR: where the results go; or --rle FILE, or --coco FILE")
    unknown = sorted(set(options.kinds) - set(KINDS))
    if unknown:
        fail(f"--save: {', '.join(map(repr, unknown))} is none of {', '.join(KINDS)}")
    if options.batch_size < 1:
        fail(f"--batch-size: {options.batch_size} is less than 1")
    if options.coco is not None and find_spec("pycocotools") is None:
        fail('--coco needs pycocotools: pip install -e ".[coco]"')
    return options, arguments.prediction

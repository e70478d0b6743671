"""Which networks are compared: the built-in cases, a preset's, or a trained one."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from parity.cases import CASES, Case
from parity.options import Options
from parity.pictures import picture_batch, read_image
from parity.sides import carried, make_torch, scale_entry
from parity.twin import loaded_twin
from unet_jax.batch import Batch
from unet_jax.config import load
from unet_jax.datasets import class_ids
from unet_jax.datasets.encoding import voc_palette
from unet_jax.pipeline import num_logits
from unet_jax.visualize import Palette
from unet_jax.weights import load_weights


class Subject(NamedTuple):
    """A network to compare.

    Attributes:
      case: Its configuration.
      palette: RGB colour of each class.
      model: With its weights; None: random ones.
      extra: Batches beside random ones.
    """

    case: Case
    palette: Palette
    model: nn.Module | None = None
    extra: Sequence[Batch] = ()


def subjects(options: Options) -> list[Subject]:
    """What the options ask for; a picture goes to the first.

    Raises:
      ValueError: A preset, file or picture cannot be used, or there is no weight to break.
      OSError: A file cannot be read.
    """
    if options.weights is not None:
        found = [load_subject(options.weights)]
    elif options.preset is not None:
        config = load(options.preset)
        logits = num_logits(class_ids(config.data))
        case = Case(options.preset, config.model, logits, config.data.size)
        found = [Subject(case, voc_palette(max(logits, 2)))]
    else:
        found = [Subject(case, voc_palette(max(case.num_classes, 2))) for case in CASES]
    if options.break_weight is not None:
        found = found[:1]
        model = found[0].model or make_torch(found[0].case)
        scale_entry(carried(model), options.break_weight, 1.0)
    if options.image is not None:
        batch = picture_batch(found[0].case, read_image(options.image, found[0].case.size))
        found[0] = found[0]._replace(extra=(batch,))
    return found


def load_subject(path: Path) -> Subject:
    """The network of a file of `unet_jax.weights`."""
    trained = load_weights(path)
    normalisation = trained.mean, trained.std
    case = Case(path.stem, trained.model, trained.num_logits, trained.size, 2, normalisation)
    return Subject(case, trained.palette, loaded_twin(trained, torch.float64))

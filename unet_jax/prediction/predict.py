"""From a command line to predictions on disk."""

import time
from contextlib import nullcontext
from functools import partial

import jax
from rich.console import Console

from unet_jax.cli import INTERRUPTED, fail, mistakes
from unet_jax.datasets.files import quiet
from unet_jax.prediction.inputs import find_inputs
from unet_jax.prediction.picture import large_pictures
from unet_jax.prediction.predict_config import PredictConfig
from unet_jax.prediction.predict_options import PredictOptions
from unet_jax.prediction.predictor import Predictor, load
from unet_jax.prediction.results import Results
from unet_jax.prediction.work import Work


def predict(options: PredictOptions, config: PredictConfig) -> int:
    """Predicts images, and writes what was asked for.

    Returns:
      The exit status: 0; 1 if some images could not be predicted; 130 when Ctrl-C ended it.
    """
    console = Console()
    say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    try:
        with nullcontext() if options.debug else mistakes():
            inputs = find_inputs(options.inputs, options.out)
            place = options.run or options.weights
            assert place is not None
            predictor = load(
                place, last=options.last, ema=options.ema, batch_size=options.batch_size
            )
            predictor.check(config)
            results = Results(options, predictor.trained.classes)
            results.refuse_to_overwrite(inputs)
            work = Work(predictor, results, options, config)
            say(introduction(predictor))
            started = time.monotonic()
            with quiet(), large_pictures():
                failures = work.run(inputs)
    except KeyboardInterrupt:
        say("Stopped. What has been written is whole; --force goes over all images again.")
        return INTERRUPTED
    except jax.errors.JaxRuntimeError as error:
        if options.debug or "RESOURCE_EXHAUSTED" not in str(error):
            raise
        fail("the device has too little memory for the network")
    seconds, count = time.monotonic() - started, len(inputs) - len(failures)
    places = [str(path) for path in (options.out, options.rle, options.coco) if path is not None]
    say(
        f"{count:,} images in {seconds:.1f} s, {count / seconds:.1f} a second; results in "
        + ", ".join(places),
        style="bold green" if count else None,
    )
    if not failures:
        return 0
    lines = [f"error: {len(failures):,} of {len(inputs):,} images could not be predicted:"]
    lines += [f"  {failure.input.path}: {failure.reason}" for failure in failures]
    Console(stderr=True).print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
    return 1


def introduction(predictor: Predictor) -> str:
    """What predicts, in a line."""
    trained = predictor.trained
    parts = [
        f"{trained.model.architecture} U-Net of {trained.parameters:,} parameters",
        f"trained at {trained.size[0]}×{trained.size[1]}",
        f"{len(trained.classes)} classes",
    ]
    if "run" in trained.facts:
        average = ", average of the weights" if trained.facts["ema"] else ""
        parts.append(f"{trained.facts['state']}, step {trained.facts['step']}{average}")
    return "; ".join(parts)

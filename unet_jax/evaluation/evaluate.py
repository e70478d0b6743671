"""From a command line to a report on what networks reach."""

import shlex
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import jax
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from unet_jax.cli import INTERRUPTED, fail, mistakes
from unet_jax.config import DataConfig, load
from unet_jax.datasets.files import quiet
from unet_jax.evaluation.compared import SIZES, Compared, Evaluated
from unet_jax.evaluation.evaluate_options import EvaluateOptions, data_settings
from unet_jax.evaluation.evaluation import evaluate_network
from unet_jax.evaluation.findings import shown
from unet_jax.evaluation.measured import measure
from unet_jax.evaluation.networks import (
    InTorch,
    Network,
    check_classes,
    check_same,
    find_networks,
    recorded,
)
from unet_jax.evaluation.report import foreign, write_report
from unet_jax.evaluation.samples import Samples, samples_of_run, samples_of_set, with_places
from unet_jax.heap import keep_freed_memory
from unet_jax.metrics import SCORES
from unet_jax.prediction.predict_config import PredictConfig
from unet_jax.prediction.predictor import Predictor
from unet_jax.run import PACKAGES
from unet_jax.versions import versions


def evaluate(options: EvaluateOptions, config: PredictConfig, in_torch: InTorch) -> int:
    """Evaluates networks, and writes the report.

    Args:
      options: What is evaluated, on what.
      config: How images meet the networks.
      in_torch: Called if PyTorch is needed.

    Returns:
      The exit status: 0, or 130 when Ctrl-C ended it.
    """
    console = Console()
    say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    assert options.out is not None
    out = options.out.expanduser().absolute()
    try:
        with nullcontext() if options.debug else mistakes(), quiet():
            refuse_to_overwrite(out, force=options.force)
            compared = _evaluate(options, config, in_torch)
            out.parent.mkdir(parents=True, exist_ok=True)
            write_report(compared, out)
    except KeyboardInterrupt:
        say("Stopped; nothing was written.")
        return INTERRUPTED
    except ImportError as error:
        if options.debug or error.name != "torch":
            raise
        fail('PyTorch is needed for this, and not installed: pip install -e ".[torch]"')
    except jax.errors.JaxRuntimeError as error:
        if options.debug or "RESOURCE_EXHAUSTED" not in str(error):
            raise
        fail("the device has too little memory: try a smaller --batch-size, or --tile")
    console.print(_table(compared))
    if compared.samples.changed:
        say("The data is not what the run was trained on, though its samples' names are.")
    say(f"Report: {options.out / 'report.html'}", style="bold green")
    return 0


def refuse_to_overwrite(out: Path, *, force: bool) -> None:
    """Raises `ValueError` if the folder may not be replaced: only reports are, and by force."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not out.is_dir():
        raise ValueError(f"--out: {out} is a file; a folder is needed")
    others = foreign(out)
    if others:
        raise ValueError(
            f"--out: {out} holds something else than a report ({others[0]}); choose another folder"
        )
    if not force:
        raise ValueError(f"--out: {out} holds a report, which --force would write over")


def _evaluate(options: EvaluateOptions, config: PredictConfig, in_torch: InTorch) -> Compared:
    keep_freed_memory()
    networks = list(find_networks(options, in_torch))
    first = load_settings(options.run[0]) if options.run else data_settings(options)
    predictors = [_predictor(network, options, in_torch) for network in networks]
    found: list[Samples] = []
    for network, predictor in zip(networks, predictors, strict=True):
        predictor.check(config)
        found.append(_samples(network, first, options))
        check_classes(network, found[-1])
        check_same(network, found[-1], networks[0], found[0])
    # A network that was trained at the files' size is compared at theirs, too.
    native = any(samples.has_native for samples in found)
    evaluated = [
        _evaluate_one(network, predictor, samples, options, config, native=native)
        for network, predictor, samples in zip(networks, predictors, found, strict=True)
    ]
    # Flags, not objects: the report says how to make it again.
    default = PredictConfig()
    settings = {
        name: value if isinstance(value, str | float) else "×".join(map(str, value))
        for name, value in vars(config).items()
        if value != getattr(default, name)
    }
    return Compared(
        networks=evaluated,
        draws=options.bootstrap,
        seed=options.seed,
        settings=settings,
        command=shlex.join(["python", *sys.argv]),
        versions=versions(PACKAGES),
    )


def _evaluate_one(
    network: Network,
    predictor: Predictor,
    samples: Samples,
    options: EvaluateOptions,
    config: PredictConfig,
    *,
    native: bool,
) -> Evaluated:
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(network.label, total=len(samples.names))
        advance = partial(progress.advance, task)
        evaluation = evaluate_network(predictor, samples, config, advance, native=native)
    as_trained = config.flips == "none" and config.threshold == 0.5 and options.ema
    return Evaluated(
        label=network.label,
        place=network.place,
        framework="PyTorch" if network.torch else "JAX",
        trained=network.trained,
        samples=samples,
        evaluation=evaluation,
        measured={
            size: measure(tally, samples.groups, options.bootstrap, options.seed)
            for size, tally in evaluation.tallies.items()
        },
        recorded=recorded(network) if as_trained and samples.part == "val" else {},
    )


def _predictor(network: Network, options: EvaluateOptions, in_torch: InTorch) -> Predictor:
    make = in_torch()[1] if network.torch else Predictor
    return make(network.trained, batch_size=options.batch_size)


def load_settings(run: Path) -> DataConfig:
    """A run's settings of its data.

    Raises:
      ValueError: It has none.
    """
    path = run.expanduser() / "config.yaml"
    if not path.is_file():
        raise ValueError(f"{run}: not a run (no config.yaml)")
    return load(path).data


def _samples(network: Network, first: DataConfig, options: EvaluateOptions) -> Samples:
    """The samples at the size of this network; a run's own are prepared as for its training."""
    run = network.place if network.place.is_dir() else None
    config = first if run is None else load_settings(run)
    config = with_places(config, options.data_dir, options.prepared_dir, network.trained.size)
    source = run or (options.run[0] if options.run else None)
    if source is None:
        return samples_of_set(options.split, config)
    return samples_of_run(source, options.split, config)


def _table(compared: Compared) -> Table:
    """The scores, for a terminal."""
    table = Table(box=box.SIMPLE_HEAD, title=None)
    table.add_column("")
    columns = [(size, network) for size in SIZES for network in compared.networks]
    columns = [(size, network) for size, network in columns if size in network.measured]
    for size, network in columns:
        table.add_column(f"{network.label}\n{size} size\n{network.size(size)}", justify="right")
    for name, title in SCORES.items():
        cells = [
            shown(network.measured[size].estimate(name)).replace(" [", "\n[")
            for size, network in columns
        ]
        table.add_row(title, *cells)
    return table

"""All that `python -m parity` compares at a level, in order."""

import copy
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from parity.band import judge, summary
from parity.cases import CASES
from parity.compare import compare
from parity.components.augmentation import compare_augmentation
from parity.components.initialisation import compare_initialisation
from parity.components.losses import compare_losses
from parity.components.metrics import compare_metrics
from parity.components.optimisers import compare_optimisers
from parity.components.schedules import compare_schedules
from parity.components.steps import CONFIGS, compare_loss_scale, compare_overflows, compare_steps
from parity.device import arithmetic, precisions
from parity.loss_curves import plot
from parity.mutations import MUTATIONS, inject
from parity.options import Options
from parity.pages.page import write_page
from parity.pictures import draw_pictures
from parity.recipes import compare_recipe
from parity.reduced import reduce
from parity.reference import third_opinion
from parity.report import (
    STAGES,
    component_table,
    mutation_table,
    of_networks,
    table,
    ulps_table,
    verdict,
    write_json,
)
from parity.row import Row, first_divergence
from parity.sides import make_torch, scale_entry
from parity.subject import Subject
from parity.trajectory import Trajectory, trajectories
from unet_jax.config import AugmentConfig, Config, load, presets

Task = tuple[str, Callable[[], Any]]
"""What is under way, and its work."""

FLOAT32_CASES = (CASES[1].name, CASES[10].name)
"""Those that `quick` compares in float32, too: one of each architecture, of two stages."""
STEPS = {"quick": 50, "full": 200}
SIZES = {"quick": (32, 48), "full": (16, 24)}
"""Of the pictures that both are trained on: 200 steps in three precisions take their time."""
AUGMENT = AugmentConfig(
    rotation=15, scale=(0.8, 1.25), brightness=0.2, contrast=0.2, saturation=0.2
)
"""Of the batches that both are trained on, where no preset says how."""


@arithmetic("float32")
def inspect(options: Options, given: Sequence[Subject], console: Console) -> bool:
    """Compares, prints tables, writes the folder; returns whether the two are the same model.

    Args:
      options: What is compared.
      given: The networks, as `parity.subject.subjects` gives them for these options.
      console: To talk to the user.

    Raises:
      OSError: A file cannot be written.
    """
    begun = time.monotonic()
    change = None
    if options.break_weight is not None:
        change = partial(scale_entry, name=options.break_weight, factor=1.01)
    alone = any((options.preset, options.weights, options.break_weight, options.mutations))

    tasks = [_network(subject, options, change, alone) for subject in given]
    tasks += [] if alone else _components()
    tasks += _recipes(options, alone)
    rows = [row for found in _work(tasks, console) for row in found]

    trained: dict[str, Trajectory] = {}
    if not (options.mutations or change):
        for name, found in _work(_trajectories(options), console):
            rows += judge(found, name)
            trained = trained or found
    mutations: list[dict[str, Any]] = []
    if options.mutations or (options.level == "full" and not alone):
        faults = [(f"fault: {mutation.name}", partial(inject, mutation)) for mutation in MUTATIONS]
        mutations = [outcome.as_json() for outcome in _work(faults, console)]

    first = first_divergence(rows)
    survivors = sum(not mutation["killed"] for mutation in mutations)
    passed = first is None and not survivors
    facts: dict[str, Any] = {
        "passed": passed,
        "level": options.level,
        "command": shlex.join(["python", "-m", "parity", *sys.argv[1:]]),
        "seconds": round(time.monotonic() - begun, 1),
        "loss_gaps": {name: trajectory.difference for name, trajectory in trained.items()},
        "losses": summary(trained) if trained else {},
        "mutations": mutations,
        "pictures": _pictures(options, given, trained),
    }
    # First, for what comes after runs the network that is wrong.
    write_json(rows, facts, options.out / "report.json")
    opinion = _opinion(first, given, change)
    write_json(rows, facts | {"third_opinion": opinion}, options.out / "report.json")
    write_page(options.out)
    _print(console, rows, trained, mutations)
    said = verdict(first) if rows else "every fault was named"
    if survivors:
        missed = f"{survivors} of {len(mutations)} planted faults were not named"
        said = f"{said}; {missed}" if rows else missed
    colour = "bold green" if passed else "bold red"
    count = f"{len(rows):,} comparisons"
    count += f", {len(mutations)} planted faults" if mutations else ""
    console.print(f"[{colour}]{said}[/]; {count}; see {options.out}", soft_wrap=True)
    if opinion is not None:
        console.print(f"third opinion, {opinion}", soft_wrap=True)
    return passed


def _work(tasks: Sequence[Task], console: Console) -> list[Any]:
    """Does one after another, saying which."""
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True, width=console.width),
        transient=True,
    )
    results = []
    with progress:
        shown = progress.add_task("", total=len(tasks))
        for name, work in tasks:
            progress.update(shown, description=name)
            results.append(work())
            progress.advance(shown)
    return results


def _network(subject: Subject, options: Options, change: Any, alone: bool) -> Task:
    used = precisions(options.device)
    if options.level == "quick" and not alone and subject.case.name not in FLOAT32_CASES:
        used = used[:1]
    # A network of full size has tensors large enough that a few batches average their rounding.
    draws = {"draws": 2} if options.weights or options.preset else {}
    work = partial(
        compare, subject.case, change, used, model=subject.model, extra=subject.extra, **draws
    )
    return f"network: {subject.case.name}", work


def _components() -> list[Task]:
    return [
        ("losses", compare_losses),
        ("metrics", compare_metrics),
        ("augmentation", compare_augmentation),
        ("initialisation", compare_initialisation),
        ("optimisers", compare_optimisers),
        ("schedules", compare_schedules),
        *((f"steps: {name}", partial(compare_steps, name)) for name in CONFIGS),
        ("loss scale", compare_loss_scale),
        ("steps that overflow", compare_overflows),
    ]


def _recipes(options: Options, alone: bool) -> list[Task]:
    names = [options.preset] if options.preset and not options.break_weight else []
    if options.level == "full" and not alone:
        names = presets()
    return [(f"preset: {name}", partial(compare_recipe, name, load(name))) for name in names]


def _trajectories(options: Options) -> list[Task]:
    steps = STEPS[options.level] if options.steps is None else options.steps
    if not steps or options.weights:
        return []
    config = load(options.preset or "shapes")
    if options.preset is None:
        config = replace(config, augment=AUGMENT)
    full = options.level == "full"
    config = _on_shapes(reduce(config, stages=3, size=SIZES[options.level]))
    used = ("float64", "float32", "bfloat16") if full else ("float64", "float32")
    tasks: list[Task] = [
        (
            f"{steps} steps of training",
            lambda: ("trajectory", trajectories(config, steps, used)),
        )
    ]
    if full and options.preset is None:
        tasks += [_long_recipe(name, steps) for name in presets()]
    return tasks


def _long_recipe(preset: str, steps: int) -> Task:
    """A preset's training in float64, of a network and pictures that are small for its sake."""
    small = reduce(load(preset), stages=2, batch_size=2, size=(16, 24))
    name = f"trajectory: {preset}"
    return name, lambda: (name, trajectories(_on_shapes(small), steps, ("float64",)))


def _on_shapes(config: Config) -> Config:
    """The config on rendered scenes, which need no download."""
    fields = {"dataset": "shapes", "scenes": 100, "stored_size": None, "test_fraction": 0.0}
    data = replace(config.data, **fields, data_dir=None, description=None, mask_suffix="")
    return replace(config, data=data)


def _opinion(first: Row | None, given: Sequence[Subject], change: Any) -> str | None:
    """A third one, on a network's tensor."""
    by_name = {subject.case.name: subject for subject in given}
    if first is None or first.case not in by_name:
        return None
    subject = by_name[first.case]
    return third_opinion(subject.case, first, change, subject.model)


def _pictures(
    options: Options, given: Sequence[Subject], trained: Mapping[str, Trajectory]
) -> list[str]:
    names = []
    if trained:
        plot(trained, options.out / "loss_curves.png")
    if options.image is not None:
        subject = given[0]
        model = make_torch(subject.case) if subject.model is None else copy.deepcopy(subject.model)
        image = subject.extra[0].image[0]
        names += draw_pictures(subject.case, model, image, subject.palette, options.out)
    return names


def _print(
    console: Console,
    rows: Sequence[Row],
    trained: Mapping[str, Trajectory],
    mutations: Sequence[Mapping[str, Any]],
) -> None:
    networks = of_networks(rows)
    others = [row for row in rows if row.stage not in STAGES]
    if networks:
        console.print(table(networks))
    if any(row.ulps is not None for row in rows):
        console.print(ulps_table(rows))
    if others:
        console.print(component_table(others))
    if mutations:
        console.print(mutation_table(mutations))
    for precision, trajectory in trained.items():
        count = len(trajectory.jax.losses)
        gap = f"loss over {count} {precision} steps: at most {trajectory.difference:.1e} apart"
        console.print(gap, highlight=False)

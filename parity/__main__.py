"""`python -m parity`: shows that the Flax network and its PyTorch twin are the same model."""

import sys
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import tyro
from rich.console import Console
from rich.progress import track

CURVE_LIMIT = 1e-10
"""Largest relative difference of a float64 loss in 50 steps: Adam divides by gradients that are
rounding noise where they are nearly 0, so trajectories part faster than single steps do."""


@dataclass(frozen=True, kw_only=True)
class Options:
    preset: str | None = None
    """Compare this preset's network (a name or a YAML file) instead of the built-in cases."""

    out: Path = Path("parity_report")
    """Folder for report.json and loss_curves.png."""

    steps: int = 50
    """Training steps from the same weights on the same batches of shapes; 0: none."""

    break_weight: str | None = None
    """Change one entry of this Flax parameter, such as encoder_0/conv_1/kernel, by 1 percent in the
    first case, to see the report turn red and name the layer."""


def main() -> int:
    options = tyro.cli(Options, description=__doc__)
    import jax

    # Before anything is traced. PyTorch computes on the CPU here, so JAX does too.
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_platforms", "cpu")
    from parity.cases import CASES, Case
    from parity.compare import compare, first_divergence, scale_entry
    from parity.page import write_page
    from parity.report import table, verdict, write_json
    from parity.trajectory import curves, plot
    from unet_jax.cli import fail
    from unet_jax.config import load
    from unet_jax.datasets import class_ids
    from unet_jax.pipeline import num_logits

    begun, console = time.monotonic(), Console()
    cases, change = CASES, None
    try:
        config = load(options.preset or "shapes")
        if options.preset is not None:
            logits = num_logits(class_ids(config.data))
            cases = (Case(options.preset, config.model, logits, config.data.size),)
        if options.break_weight is not None:
            cases, change = cases[:1], partial(scale_entry, name=options.break_weight, factor=1.01)
        rows = []
        progress = Console(stderr=True)
        for case in track(cases, "Comparing", console=progress, transient=True):
            rows += compare(case, change)
    except ValueError as error:
        fail(str(error))

    trajectories = {}
    if options.steps and change is None:
        console.print(f"Training both for {options.steps} steps")
        # Small: XLA's float64 convolutions are slow on a CPU.
        shapes = replace(config.data, dataset="shapes", scenes=100, size=(32, 48))
        small = replace(config, data=shapes, train=replace(config.train, batch_size=4))
        trajectories = curves(small, options.steps)
    gaps = {precision: trajectory.difference for precision, trajectory in trajectories.items()}
    parted = not gaps.get("float64", 0.0) <= CURVE_LIMIT  # NaN, too.

    options.out.mkdir(parents=True, exist_ok=True)
    if trajectories:
        plot(trajectories, options.out / "loss_curves.png")
    losses = {precision: trajectory._asdict() for precision, trajectory in trajectories.items()}
    passed = first_divergence(rows) is None and not parted
    facts = {
        "passed": passed,
        "seconds": round(time.monotonic() - begun, 1),
        "loss_gaps": gaps,
        "losses": losses,
    }
    write_json(rows, facts, options.out / "report.json")
    write_page(options.out)

    console.print(table(rows))
    for precision, gap in gaps.items():
        console.print(
            f"loss over {options.steps} {precision} steps: at most {gap:.1e} apart"
            + (f" (limit {CURVE_LIMIT:.0e})" if precision == "float64" else ""),
            highlight=False,
        )
    outcome = verdict(first_divergence(rows))
    if parted:
        outcome += f"; but the float64 loss curves part by more than {CURVE_LIMIT:.0e}"
    colour = "bold green" if passed else "bold red"
    console.print(
        f"[{colour}]{outcome}[/]; {len(rows):,} tensors; see {options.out}", soft_wrap=True
    )
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())

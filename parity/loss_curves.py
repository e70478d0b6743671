"""The losses of a training in both frameworks, and how far apart they are, as a picture."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from parity.band import distances
from parity.training import EVERY
from parity.trajectory import Trajectory


def plot(trajectories: Mapping[str, Trajectory], path: Path) -> None:
    """Draws loss curves and distances to the float64 path into a PNG file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 9), layout="constrained")
    losses, differences, parted = figure.subplots(3, 1, sharex=True, height_ratios=(3, 2, 3))
    first = next(iter(trajectories.values()))
    steps = np.arange(1, len(first.jax.losses) + 1)
    losses.plot(steps, first.torch.losses, color="#f59e0b", linewidth=5, alpha=0.5, label="PyTorch")
    losses.plot(steps, first.jax.losses, color="#1d4ed8", linewidth=1.2, label="JAX")
    losses.set(title="Same weights, same batches, float64", ylabel="loss")
    colours = {"float64": "#16a34a", "float32": "#1d4ed8", "bfloat16": "#b91c1c"}
    for name, trajectory in trajectories.items():
        ours, theirs = np.asarray(trajectory.jax.losses), np.asarray(trajectory.torch.losses)
        gap = np.maximum(np.abs(ours - theirs) / theirs, 1e-17)
        differences.semilogy(steps, gap, linewidth=1, color=colours[name], label=name)
        far = distances(trajectory.jax, first.torch)["parameters"]
        places = EVERY * np.arange(1, len(far) + 1)
        style = {"color": colours[name], "linewidth": 1.5, "marker": ".", "label": f"JAX, {name}"}
        parted.semilogy(places, np.maximum(far, 1e-17), **style)
        if trajectory.variants:
            own = [
                distances(t, first.torch)["parameters"]
                for t in (trajectory.torch, *trajectory.variants.values())
            ]
            low, high = np.min(own, axis=0), np.max(own, axis=0)
            label = f"PyTorch's variants, {name}"
            parted.fill_between(places, low, high, color=colours[name], alpha=0.25, label=label)
    differences.set(ylabel="JAX to PyTorch: loss,\nrelative (0 at 1e-17)")
    parted.set(xlabel="step", ylabel="to PyTorch's float64:\nparameters, relative")
    for axes in (losses, differences, parted):
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small", ncols=2)
    figure.savefig(path, dpi=120)

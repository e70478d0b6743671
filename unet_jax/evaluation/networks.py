"""The networks that are evaluated: how they are found, told apart, and held to one another."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from unet_jax.evaluation.evaluate_options import EvaluateOptions
from unet_jax.evaluation.samples import Samples
from unet_jax.history import read_records
from unet_jax.metrics import SCORES
from unet_jax.prediction.predictor import Predictor
from unet_jax.trained import PICKLED, load_trained
from unet_jax.weights import ASSUMED, Trained

TorchPredictor = Callable[..., Predictor]
InTorch = Callable[[], tuple[Callable[..., Trained], TorchPredictor]]
"""Loads PyTorch; what reads its runs and checkpoints, and what predicts with them."""


@dataclass(frozen=True, kw_only=True)
class Network:
    """One that is to be evaluated.

    Attributes:
      label: Short, and no other network's.
      place: The run's folder, or the file.
      trained: The network.
      torch: Whether PyTorch computes.
    """

    label: str
    place: Path
    trained: Trained
    torch: bool


def find_networks(options: EvaluateOptions, in_torch: InTorch) -> Iterator[Network]:
    """Reads all networks, before anything is evaluated.

    Args:
      options: Which they are.
      in_torch: Called if PyTorch is needed.

    Raises:
      ValueError: One is not there, or damaged, or has no such state; the message names it.
    """
    found = []
    for place in (*options.run, *options.weights):
        place = place.expanduser()
        torch = any((place / "checkpoints").glob("*.pt"))
        if place in options.run and not place.is_dir():
            raise ValueError(f"--run: {place} is not a folder; files are given with --weights")
        if torch or (place.is_file() and place.suffix in PICKLED):
            read = in_torch()[0]
        else:
            read = load_trained
        trained = read(place, last=options.last, ema=options.ema)
        each = {"auto": [torch], "jax": [False], "torch": [True], "both": [False, True]}
        found += [(place, trained, computes) for computes in each[options.framework]]
    names = {place: place.resolve().name if place.is_dir() else place.stem for place, *_ in found}
    for n, (place, trained, torch) in enumerate(found):
        label = names[place] if [*names.values()].count(names[place]) == 1 else str(place)
        if len({computes for *_, computes in found}) > 1:
            label += " (PyTorch)" if torch else " (JAX)"
        before = sum(other == place and computes == torch for other, _, computes in found[:n])
        label += f" {before + 1}" if before else ""
        yield Network(label=label, place=place, trained=trained, torch=torch)


def check_classes(network: Network, samples: Samples) -> None:
    """Raises `ValueError` if the network's classes are not those of the data, in their order."""
    own, theirs, dataset = network.trained.classes, samples.classes, samples.config.dataset
    if len(own) != len(theirs):
        raise ValueError(
            f"{network.place}: its network has {len(own)} classes, and {dataset} has {len(theirs)}"
        )
    if "classes" in network.trained.facts.get(ASSUMED, ()):  # Then nobody knows their names.
        return
    for number, (name, right) in enumerate(zip(own, theirs, strict=True)):
        if name != right:
            raise ValueError(
                f"{network.place}: its network's class {number} is {name}, and that of {dataset} "
                f"is {right}; classes have to be the same, in the same order"
            )


def check_same(network: Network, samples: Samples, first: Network, theirs: Samples) -> None:
    """Raises `ValueError` if the network cannot be compared with the first on these samples."""
    if sorted(theirs.names) != sorted(samples.names):
        raise ValueError(
            f"{network.place}: its {samples.part} samples are others than those of "
            f"{first.place}; networks are compared on the same ones"
        )


def recorded(network: Network) -> dict[str, float]:
    """The scores that a run has recorded for its state; empty if it has not, or it is none."""
    step = network.trained.facts.get("step")
    if not network.place.is_dir() or step is None:
        return {}
    records = read_records(network.place / "metrics.jsonl")
    found = next((record for record in records if record.get("step") == step), {})
    return {name: found[name] for name in SCORES if isinstance(found.get(name), float)}

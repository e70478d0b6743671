"""A trained network in whatever form it comes: a run, a file of ours, or a PyTorch state."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import safe_open

from parity.convert import ConversionError
from parity.porting.agreement import check_same
from parity.porting.finished_run import described_by, is_run, load_run
from parity.porting.foreign import described, network_as, recognise
from parity.porting.state_file import MaskValues, SavedState, is_safetensors, read_state
from unet_jax.datasets.encoding import voc_palette
from unet_jax.exporting.provenance import with_provenance
from unet_jax.weights import ASSUMED, KEY, Channels, Colour, Trained, load_weights

Say = Callable[[str], object]

ARCHITECTURE = ("groups", "size_policy")
DESCRIPTION = ("classes", "mean", "std", "size")


@dataclass(frozen=True, kw_only=True)
class Given:
    """What the user says of the network; None: nothing.

    Attributes:
      groups, size_policy: Of the architecture; a state does not tell them.
      classes, palette, mean, std, size: As `Trained` has them.
    """

    groups: int | None = None
    size_policy: str | None = None
    classes: tuple[str, ...] | None = None
    palette: tuple[Colour, ...] | None = None
    mean: Channels | None = None
    std: Channels | None = None
    size: tuple[int, int] | None = None

    def fields(self, *names: str) -> dict[str, Any]:
        """Those of `names` that are given."""
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


def read(source: Path, given: Given, say: Say = print) -> Trained:
    """Reads a network in any form.

    Args:
      source: A run's folder, a file of `save_weights`, or a PyTorch state.
      given: What the source does not tell.
      say: Told what was found, and what was assumed.

    Raises:
      ValueError: It is none that can be used; the message names it.
      OSError: It cannot be read.
    """
    if source.is_dir():
        if not is_run(source):
            raise ValueError(f"{source}: a folder, but not a run's (no config.yaml)")
        trained, what = with_provenance(load_run(source, say), source), "run"
    elif not source.is_file():
        raise ValueError(f"{source}: there is no such file")
    elif _is_ours(source):
        trained, what = load_weights(source), "flax"
    else:
        saved, run = read_state(source), source.absolute().parent.parent
        try:
            if is_run(run) and source.absolute().parent.name == "checkpoints":
                known = described_by(run)
                _check_own(given, known)
                given = replace(given, **known | given.fields(*DESCRIPTION))
            return _recognised(saved, source, given, say)
        except ValueError as error:
            raise type(error)(f"{source}: {error}") from None
    try:
        _check_own(given, trained.model.arguments())
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    network = network_as("torch", trained.model, trained.num_logits)
    check_same(trained.variables, network.to_flax(network.to_torch(trained.variables)))
    say(f"{source}: {what}: {_summary(trained)}")
    return _redescribed(trained, given)


def _redescribed(trained: Trained, given: Given) -> Trained:
    """As the user says; that is not assumed any more."""
    said, facts = given.fields(*DESCRIPTION), dict(trained.facts)
    if ASSUMED in facts:
        facts[ASSUMED] = [name for name in facts[ASSUMED] if name not in said]
    return replace(trained, facts=facts, **said)


def _check_own(given: Given, own: Mapping[str, Any]) -> None:
    """Raises `ValueError` if the user says of the network what it is not."""
    for name, value in given.fields(*ARCHITECTURE).items():
        if value != own.get(name):
            raise ValueError(f"{name}: {value} given, but its own is {own.get(name, 'none')}")


def _is_ours(path: Path) -> bool:
    if not is_safetensors(path):
        return False
    try:
        with safe_open(path, "numpy") as file:
            return KEY in (file.metadata() or {})
    except Exception:  # It is damaged: `read_state` says so.
        return False


def _recognised(saved: SavedState, source: Path, given: Given, say: Say) -> Trained:
    network = recognise(saved.tensors, **given.fields(*ARCHITECTURE))
    family, classes = network.family, max(network.num_logits, 2)
    facts: dict[str, Any] = {"converted_from": {"file": source.name, "names": family.name}}
    facts[ASSUMED] = [name for name in DESCRIPTION if not given.fields(name)]
    if saved.mask_values is not None:
        if len(saved.mask_values) != classes:
            raise ConversionError(
                f"mask_values: {saved.mask_values} do not go with {network.num_logits} logits"
            )
        facts["mask_values"] = saved.mask_values
    assumed: dict[str, Any] = {
        "classes": class_names(classes),
        "mean": family.mean,
        "std": family.std,
        "size": family.size,
    }
    trained = Trained(
        variables=network.to_flax(saved.tensors),
        model=network.model,
        num_logits=network.num_logits,
        palette=given.palette or _palette(classes, saved.mask_values),
        facts=facts,
        **assumed | given.fields(*DESCRIPTION),
    )
    check_same(saved.tensors, network.to_torch(trained.variables))
    say(f"{source}: {family.name}: {_summary(trained)}")
    if saved.mask_values is not None:
        say(f"mask values: {', '.join(map(str, saved.mask_values))}")
    if network.model.norm == "group":
        assumed["groups"] = network.model.groups
    if "size_policy" not in family.only:
        assumed["size_policy"] = network.model.size_policy
    flags = [_flag(key, value) for key, value in assumed.items() if not given.fields(key)]
    if flags:
        say(f"assumed, since the file does not tell: {' '.join(flags)}")
    return trained


def class_names(count: int) -> tuple[str, ...]:
    """Names for classes whose own are not known."""
    if count == 2:
        return ("background", "foreground")
    return tuple(f"class {n}" for n in range(count))


def _palette(classes: int, mask_values: MaskValues | None) -> tuple[Colour, ...]:
    """The masks' own colours, if they have any."""
    if mask_values is not None and all(isinstance(value, list) for value in mask_values):
        return tuple((red, green, blue) for red, green, blue in mask_values)
    return voc_palette(classes)


def _summary(trained: Trained) -> str:
    described_as = described(trained.model, trained.num_logits)
    return f"{described_as}, {trained.parameters:,} parameters"


def _flag(name: str, value: Any) -> str:
    """How the value would be given."""
    if name == "classes" and len(value) > 2:
        value = (f"'{value[0]}'", "…", f"'{value[-1]}'")
    words = " ".join(map(str, value)) if isinstance(value, tuple) else value
    return f"--{name.replace('_', '-')} {words}"

"""Converts a trained network from any form to any other, by way of ours, and checks the result."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from parity.porting.agreement import check_same, disagreement
from parity.porting.foreign import Network, described, network_as
from parity.porting.source import DESCRIPTION, Given, read
from parity.porting.state_file import SAFETENSORS, TORCH, SavedState, write_state
from parity.tolerances import FLOAT64
from unet_jax.weights import save_weights

Target = Literal["flax", "torch", "r1", "r2"]


def convert(
    source: Path,
    out: Path,
    *,
    to: Target,
    given: Given,
    force: bool = False,
    say: Callable[[str], object] = print,
) -> int:
    """Converts, and writes the result if it computes the same.

    Args:
      source: A run's folder, a file of `save_weights`, or a PyTorch state.
      out: The file to write.
      to: What it is to be.
      given: What the source does not tell.
      force: Whether `out` may be there already.
      say: Told what was found, what was assumed, and how well the two agree.

    Returns:
      The exit status: 0, or 1 if the two networks' logits differ; then nothing is written.

    Raises:
      ValueError: The source cannot be used, or not as this target.
      OSError: It cannot be read, or the result not written.
    """
    _check_out(out, to, force, given)
    trained = read(source, given, say)
    network, state = None, {}
    if to != "flax":
        network = network_as(to, trained.model, trained.num_logits)
        state = network.to_torch(trained.variables)
        check_same(trained.variables, network.to_flax(state))
    error, (height, width) = disagreement(trained)
    place = f"in float64 on {height}×{width} pixels"
    if error > FLOAT64:
        say(f"logits differ by {error:.0e} {place}, more than {FLOAT64:.0e}: nothing is written")
        return 1
    say(f"logits agree to {error:.0e} {place}")
    out.parent.mkdir(parents=True, exist_ok=True)
    if network is None:
        save_weights(trained, out)
    else:
        write_state(out, SavedState(state, trained.facts.get("mask_values")))
        say(_not_in_the_file(network))
    say(f"wrote {out}, {out.stat().st_size / 1e6:,.1f} MB")
    return 0


def _check_out(out: Path, to: Target, force: bool, given: Given) -> None:
    suffixes = SAFETENSORS if to == "flax" else (*TORCH, *SAFETENSORS)
    if out.suffix not in suffixes:
        raise ValueError(f"{out}: --to {to} writes files that end in {', '.join(suffixes)}")
    if out.is_dir():
        raise ValueError(f"{out}: is a folder")
    if out.exists() and not force:
        raise ValueError(f"{out}: is there already; choose another name, or --force")
    flags = [f"--{name}" for name in given.fields(*DESCRIPTION)]
    if to != "flax" and flags:
        raise ValueError(f"{', '.join(flags)}: a state_dict has no place for it; --to flax has")


def _not_in_the_file(network: Network) -> str:
    """What a PyTorch program has to know beside the file."""
    model = network.model
    if network.family.name == "torch":
        arguments = {"num_classes": network.num_logits, **model.arguments()}
        words = [repr(model.architecture), *(f"{k}={v!r}" for k, v in arguments.items())]
        return f"it is the state of unet_torch_ref.models.build_model({', '.join(words)})"
    groups = f", {model.groups} groups a norm" if model.norm == "group" else ""
    words = described(model, network.num_logits)
    return f"it is the state of {network.family.name}: {words}{groups}"

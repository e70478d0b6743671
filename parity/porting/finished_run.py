"""What a run of either framework has trained, read from its folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from parity.porting.foreign import network_as
from parity.porting.state_file import averaged
from unet_jax.config import load
from unet_jax.pipeline import num_logits
from unet_jax.trained import assemble, load_trained, run_classes
from unet_jax.weights import Trained
from unet_torch_ref.checkpoint import Checkpoints

Say = Callable[[str], object]


def is_run(folder: Path) -> bool:
    """Whether the folder is a run's."""
    return (folder / "config.yaml").is_file()


def described_by(folder: Path) -> dict[str, Any]:
    """What a run says that its checkpoints do not: options of the network, and fields of `Trained`.

    Args:
      folder: The run's.

    Raises:
      ValueError: Its classes are not known.
    """
    config = load(folder / "config.yaml")
    facts: dict[str, Any] = {"size_policy": config.model.size_policy, "size": config.data.size}
    facts |= {"mean": config.data.mean, "std": config.data.std}
    if config.model.norm == "group":
        facts["groups"] = config.model.groups
    facts["classes"], facts["palette"] = run_classes(folder)
    return facts


def load_run(folder: Path, say: Say = print, *, last: bool = False, ema: bool = True) -> Trained:
    """The run's best state.

    Args:
      folder: The run's.
      say: Told of each checkpoint of PyTorch that is damaged; those of JAX are named on stderr.
      last: The last state instead of the best one.
      ema: Of a run that has an average of its weights, whether that is taken.

    Raises:
      ValueError: It holds no whole checkpoint that was validated, or its classes are not known.
    """
    if not any((folder / "checkpoints").glob("*.pt")):
        return load_trained(folder, last=last, ema=ema)
    config = load(folder / "config.yaml")
    save, (classes, _) = config.save, run_classes(folder)
    checkpoints = Checkpoints(folder / "checkpoints", save.best, lowest=save.lowest, say=say)
    found = checkpoints.restore({}) if last else checkpoints.restore_best({})
    if found is None:
        raise ValueError(f"{folder}: no state has been validated yet")
    state, _ = found
    averages = ema and bool(state.get("ema"))
    network = network_as("torch", config.model, num_logits(classes))
    tensors = averaged(state) if averages else state["model"]
    arrays = {name: value.numpy() for name, value in tensors.items()}
    return assemble(folder, network.to_flax(arrays), last=last, step=state["step"], ema=averages)

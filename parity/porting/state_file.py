"""Files with the state of a PyTorch network: read without running anything, written whole."""

import io
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from parity.convert import StateDict
from unet_jax.draft import draft

WRAPPERS = ("state", "state_dict", "model_state_dict", "model")
"""Keys that training programs keep the state under, beside their optimiser's and others."""
TWINS = {"model", "optimizer", "schedule", "step"}
"""Keys that a checkpoint of the twin's training has under `state`."""
PREFIXES = ("module.", "_orig_mod.")
"""What DataParallel and `torch.compile` put in front of every name."""
MASK_VALUES = "mask_values"
SAFETENSORS, TORCH = (".safetensors",), (".pt", ".pth", ".bin")
FLOATS = (torch.float16, torch.float32, torch.float64)
INTEGERS = (torch.int32, torch.int64)
COUNTER = "num_batches_tracked"

MaskValues = list[Any]
"""The pixel value of each class in the masks trained on: grey levels, or colours as lists."""


class SavedState(NamedTuple):
    """What a file holds.

    Attributes:
      tensors: Arrays by name.
      mask_values: If it has them.
    """

    tensors: StateDict
    mask_values: MaskValues | None


def is_safetensors(path: Path) -> bool:
    """Whether the file begins as one: the header's length in 8 bytes, and the header, JSON."""
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def read_state(path: Path) -> SavedState:
    """Reads what `torch.save` or safetensors has written; which one, its content tells.

    Raises:
      ValueError: It is neither, or damaged, or would run code, or holds no state of a network; the
        message names it.
      OSError: It cannot be read.
    """
    content = _safetensors(path) if is_safetensors(path) else _pickled(path)
    mask_values, twins = None, False
    while True:
        if not isinstance(content, Mapping):
            raise ValueError(f"{path}: holds a {type(content).__name__}, not a state_dict")
        mask_values = content.get(MASK_VALUES, mask_values)
        inner = [content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)]
        if not inner:
            break
        # Elsewhere `ema` may be anything; what it would be an average of, no name tells.
        content = averaged(content) if twins else inner[0]
        twins = set(content) >= TWINS
    return SavedState(
        _arrays({name: x for name, x in content.items() if name != MASK_VALUES}, path),
        None if mask_values is None else _mask_values(mask_values, path),
    )


def averaged(state: Mapping[str, Any]) -> dict[str, Any]:
    """A twin's network as it is validated: with the average of its parameters, if there is one."""
    model = dict(state["model"])
    for name, value in state.get("ema", {}).items():
        own = name.removeprefix("module.")
        if own in model and not own.endswith(("running_mean", "running_var", COUNTER)):
            model[own] = value
    return model


def write_state(path: Path, state: SavedState) -> None:
    """Writes the file, which is whole or not there.

    Args:
      path: Its suffix says how: one of safetensors, or of PyTorch.
      state: What is written; arrays keep their dtypes.
    """
    tensors = {name: torch.from_numpy(array) for name, array in state.tensors.items()}
    if path.suffix in SAFETENSORS:
        if state.mask_values is not None:
            tensors[MASK_VALUES] = torch.tensor(state.mask_values)
        content = safetensors.torch.save(tensors)
    else:
        values = {} if state.mask_values is None else {MASK_VALUES: state.mask_values}
        archive = io.BytesIO()  # Writing to a file, torch hides what the disk said.
        torch.save({**tensors, **values}, archive)
        content = archive.getvalue()
    with draft(path) as part:
        part.write_bytes(content)


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path}: a damaged safetensors file ({error})") from None


def _pickled(path: Path) -> Any:
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                wrong = archive.testzip()  # torch.load does not look at checksums.
            if wrong is not None:
                raise ValueError(f"the checksum of {wrong} is wrong")
        with warnings.catch_warnings():
            # Of old pickles it says that it may not know them: then it raises, too.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # What reading other files raises, nobody lists.
        raise ValueError(f"{path}: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    found = re.search(r"GLOBAL (\S+)", text)
    if found:
        return (
            f"refused, and nothing in it was run: a pickle that asks for {found[1]} could run any "
            "code. Where it comes from, save weights alone: torch.save(model.state_dict(), …)"
        )
    return (
        "neither a safetensors file nor one of PyTorch that holds weights alone, or damaged "
        f"({type(error).__name__}: {text[:120]})"
    )


def _arrays(entries: Mapping[str, Any], path: Path) -> StateDict:
    """Raises `ValueError` if an entry is no array of a type that can be kept as it is."""
    problems, arrays = [], {}
    for name, value in entries.items():
        if not isinstance(value, Tensor):
            problems.append(f"{name} is a {type(value).__name__}, not a tensor")
        elif value.dtype not in (INTEGERS if str(name).endswith(COUNTER) else FLOATS):
            allowed = "float16, float32 and float64"
            problems.append(f"{name} is {str(value.dtype)[6:]}; {allowed} can be converted")
        else:
            arrays[str(name)] = value.detach().contiguous().numpy()
    if problems:
        raise ValueError(f"{path}: not a network's state_dict:\n" + listed(problems))
    for prefix in PREFIXES * 2:  # Either may be outermost.
        if arrays and all(name.startswith(prefix) for name in arrays):
            arrays = {name.removeprefix(prefix): array for name, array in arrays.items()}
    return arrays


def _mask_values(values: Any, path: Path) -> MaskValues:
    values = values.tolist() if isinstance(values, Tensor) else values
    if isinstance(values, list | tuple):
        plain = [list(v) if isinstance(v, list | tuple) else v for v in values]
        if all(
            isinstance(v, int | float)
            or (isinstance(v, list) and len(v) == 3 and all(isinstance(c, int) for c in v))
            for v in plain
        ):
            return plain
    raise ValueError(f"{path}: mask_values: {values!r} is no list of grey levels or RGB colours")


def listed(lines: list[str], most: int = 20) -> str:
    """The lines, indented; of many, the first ones and how many more there are."""
    more = [f"and {len(lines) - most} more"] if len(lines) > most else []
    return "\n".join(f"  {line}" for line in lines[:most] + more)

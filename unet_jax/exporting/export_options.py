"""The command line of export.py."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from unet_jax.cli import fail, parse_args

FormatName = Literal["stablehlo", "safetensors", "pt2", "onnx"]
NEEDS: dict[FormatName, dict[str, tuple[str, ...]]] = {
    "pt2": {"torch": ("torch",)},
    "onnx": {"torch": ("torch",), "onnx": ("onnx", "onnxscript", "onnxruntime")},
}
"""What a format needs beside the project's dependencies: modules, by the extra they come with."""


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What is exported, as what, and where to."""

    run: Path | None = None
    """Folder of a run of train_jax.py; its best state is exported."""

    weights: Path | None = None
    """File of weights (.safetensors), instead of a run."""

    last: bool = False
    """Of the run, the last state instead of the best one."""

    ema: bool = True
    """Of a run with an average of its weights (--ema-decay), that average: it is what was
    validated. --no-ema: the weights themselves."""

    format: tuple[FormatName, ...] = ("stablehlo", "safetensors")
    """stablehlo: for JAX, without this package. safetensors: for this package. pt2: for PyTorch
    (pip install -e ".[torch]"). onnx: for ONNX Runtime and others (".[torch,onnx]")."""

    out: Path | None = None
    """Folder for the files, named model with the format's suffix, and for their MODEL_CARD.md."""

    size: tuple[int, int] | None = None
    """Height and width of the images that the files take. Default: what the network was trained
    at. Safetensors takes any."""

    force: bool = False
    """Write over an export that is there already."""

    debug: bool = False
    """Show where in the code a failure happens."""


def parse_export(args: Sequence[str] | None = None, *, description: str) -> ExportOptions:
    """Reads an export's command line; on a mistake says what is wrong, and exits with 2."""
    options = parse_args(ExportOptions, args, description=description)
    if (options.run is None) == (options.weights is None):
        fail("--run RUN or --weights FILE, one of them: what is exported")
    if options.out is None:
        fail("--out DIR: the folder that the files go to")
    if not options.format:
        fail("--format: at least one of stablehlo, safetensors, pt2, onnx")
    for name in options.format:
        for extra, modules in NEEDS.get(name, {}).items():
            missing = [module for module in modules if find_spec(module) is None]
            if missing:
                fail(f'--format {name} needs {", ".join(missing)}: pip install -e ".[{extra}]"')
    return options

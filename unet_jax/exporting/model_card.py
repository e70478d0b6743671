"""The Markdown page beside an export: what the network is, and how each file is used."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from unet_jax.exporting.artefact import Format, Size
from unet_jax.exporting.origin import data, licence, recipe, results
from unet_jax.exporting.table import table
from unet_jax.exporting.verification import Difference
from unet_jax.weights import Trained

CARD = "MODEL_CARD.md"
IMAGES = """\
import numpy as np
from PIL import Image

image = Image.open("image.jpg").convert("RGB")
image = image.resize(({width}, {height}), Image.Resampling.BILINEAR)
images = np.array(image)[None]  # uint8 [1, {height}, {width}, 3]
"""


class Exported(NamedTuple):
    """A file that has been written and verified.

    Attributes:
      name: Its name.
      path: Where it is now.
      format: What it is.
      difference: What verifying it has measured.
    """

    name: str
    path: Path
    format: Format
    difference: Difference


def model_card(
    trained: Trained, files: Sequence[Exported], size: Size, versions: Mapping[str, str]
) -> str:
    """Writes the page.

    Args:
      trained: The network; its `facts` are those of `provenance`, as far as they are known.
      files: What was exported.
      size: Height and width that they take.
      versions: Of the packages that exported.
    """
    facts = trained.facts
    sections = (
        _header(files),
        _introduction(trained),
        _signature(trained, size),
        _usage(files, size),
        "## Files\n\n" + _files(files),
        "## Data\n\n" + data(trained),
        "## Recipe\n\n" + recipe(facts),
        "## Results\n\n" + results(facts),
        "## Licence\n\n" + licence(facts),
        "## Use and limits\n\n" + _limits(trained, files),
        "## Versions\n\n" + _versions(facts, versions),
    )
    return "\n\n".join(sections) + "\n"


def _header(files: Sequence[Exported]) -> str:
    kinds = [file.format.suffix.removeprefix(".") for file in files]
    fields = {
        "license": "other",
        "library_name": "unet-jax",
        "pipeline_tag": "image-segmentation",
        "tags": ["image-segmentation", "semantic-segmentation", "u-net", "jax", *kinds],
    }
    return f"---\n{yaml.safe_dump(fields, sort_keys=False)}---"


def _introduction(trained: Trained) -> str:
    model, facts = trained.model, trained.facts
    data = f" on {facts['dataset']}" if "dataset" in facts else ""
    norm = f"group norm ({model.groups} groups)" if model.norm == "group" else f"{model.norm} norm"
    few = len(trained.classes) <= 12
    named = f": {', '.join(trained.classes)}" if few else ", of those listed below"
    lines = [
        f"# {model.architecture.capitalize()} U-Net, {len(trained.classes)} classes{data}",
        f"Finds the class of every pixel{named}. A {model.architecture} "
        f"U-Net of {trained.parameters:,} parameters with stages of {_numbers(model.channels)} "
        f"channels, {norm.replace('none norm', 'no norm')}, {model.upsample} upsampling, "
        f"trained at {trained.size[0]}×{trained.size[1]} pixels with unet-jax.",
    ]
    return "\n\n".join(lines)


def _signature(trained: Trained, size: Size) -> str:
    sides, classes = f"{size[0]}, {size[1]}", len(trained.classes)
    shapes = (
        ("`images`: RGB as decoded, 0 to 255, uint8", f"[B, {sides}, 3]", f"[B, 3, {sides}]"),
        (
            "`probabilities` of each class, sum 1, float32",
            f"[B, {sides}, {classes}]",
            f"[B, {classes}, {sides}]",
        ),
    )
    return f"""\
## What goes in and out

{table(("", "StableHLO", "PyTorch, ONNX"), shapes)}

B is any number of images. They are normalised inside: give pixels as they are. Height and width \
are fixed: resize images with antialiasing, as Pillow does, which is how the network has seen them \
in training. The safetensors file is for unet-jax, which resizes by itself.

{table(("id", "class", "colour (RGB)"), _classes(trained))}"""


def _classes(trained: Trained) -> Iterable[Sequence[Any]]:
    for number, (name, colour) in enumerate(zip(trained.classes, trained.palette, strict=True)):
        yield number, name, _numbers(colour)


def _usage(files: Sequence[Exported], size: Size) -> str:
    images = IMAGES.format(height=size[0], width=size[1])
    blocks = [
        f"`{file.name}`:\n\n```python\n{file.format.usage.format(file=file.name, images=images)}```"
        for file in files
    ]
    return "## How it is used\n\n" + "\n\n".join(blocks)


def _files(files: Sequence[Exported]) -> str:
    rows = [
        (
            f"`{file.name}`",
            f"{file.path.stat().st_size:,}",
            f"{file.difference.error:.1e}",
            f"{file.difference.times:.2f}",
            f"{file.format.times:g}: {file.format.reason}",
            f"{file.difference.largest:.1e}",
        )
        for file in files
    ]
    headings = (
        "file",
        "bytes",
        "relative error",
        "times Flax's own",
        "allowed",
        "largest difference",
    )
    sums = "\n".join(f"{_sha256(file.path)}  {file.name}" for file in files)
    return (
        f"{table(headings, rows)}\n\nEach file was read back and run on the CPU, on a rendered "
        "scene and on noise, in batches of one and of two. Relative error: of the probabilities, "
        "‖file − exact‖ / ‖exact‖, the exact ones being Flax's in float64; beside it, how many "
        "times that is the error of Flax in float32. Largest difference: of one probability, "
        "from Flax's in float32. SHA-256:\n\n```\n" + sums + "\n```"
    )


def _limits(trained: Trained, files: Sequence[Exported]) -> str:
    data = f"like those of `{trained.facts['dataset']}`" if "dataset" in trained.facts else "alike"
    lines = [
        f"For images {data}; of others nothing is known until it is measured.",
        f"Every pixel gets one of the {len(trained.classes)} classes above; nothing says "
        '"none of these".',
        "Probabilities are as trained, not calibrated.",
        "Verified on the CPU; other devices round products as they do by default (TF32, bfloat16).",
    ]
    if any(file.format.suffix == ".stablehlo" for file in files):
        lines.append(
            "The StableHLO file is for CPU, CUDA and TPU alike, and read by the JAX versions of "
            "the next six months at least; after that, export anew from safetensors."
        )
    return "\n".join(f"- {line}" for line in lines)


def _versions(facts: Mapping[str, Any], versions: Mapping[str, str]) -> str:
    trained = facts.get("training", {}).get("versions", {})
    names = dict.fromkeys([*versions, *trained])
    rows = [(name, versions.get(name, "–"), trained.get(name, "–")) for name in names]
    return table(("package", "exported with", "trained with"), rows)


def _numbers(values: Iterable[Any]) -> str:
    return ", ".join(map(str, values))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""A network's options, as far as the shapes of its PyTorch state tell them.

Nothing is checked here: what is found is a guess that a strict comparison of every name and shape
has to confirm.
"""

import re
from collections.abc import Mapping
from typing import Any

Shapes = Mapping[str, tuple[int, ...]]
"""Shape of each entry of a state, by its name."""

Options = dict[str, Any]
"""Fields of `ModelConfig`."""


def residual_options(shapes: Shapes) -> Options:
    """Of a residual network, by its published or our twin's names."""
    channels = _widths(shapes, r"encoder\.(\d+)\.weight")
    blocks = {m[1] for m in (re.match(r"bottleneck\.(\d+)\.", name) for name in shapes) if m}
    upsample = _first(shapes, r"upsample\.0\.conv\.weight|decoder\.\d+\.upsample(\.1)?\.weight")
    first = shapes.get("decoder.0.conv_1.weight", ())
    return {
        "architecture": "residual",
        "channels": channels,
        "blocks_per_stage": max(len(blocks), 1),
        "norm": _norm(shapes),
        "upsample": "bilinear" if upsample[2:] == (3, 3) else "transposed",
        # Without skips its first decoder block takes what the bottleneck gives, and no more.
        "skip": first[1:2] != channels[-1:],
    }


def plain_options(shapes: Shapes) -> Options:
    """Of a plain network, by our twin's names."""
    channels = _widths(shapes, r"encoder\.(\d+)\.conv_1\.weight")
    deepest = _widths(shapes, r"bottleneck()\.conv_1\.weight")
    return _plain(channels, deepest) | {"norm": _norm(shapes)}


def r2_options(shapes: Shapes) -> Options:
    """Of a plain network, by its published names."""
    first = _widths(shapes, r"inc()\.double_conv\.0\.weight")
    further = _widths(shapes, r"down(\d+)\.maxpool_conv\.1\.double_conv\.0\.weight")
    return _plain(first + further[:-1], further[-1:])


def _plain(channels: tuple[int, ...], deepest: tuple[int, ...]) -> Options:
    # With a transposed convolution the bottleneck is twice as wide as the last level.
    upsample = "bilinear" if deepest == channels[-1:] else "transposed"
    return {"architecture": "plain", "channels": channels, "norm": "batch", "upsample": upsample}


def _widths(shapes: Shapes, pattern: str) -> tuple[int, ...]:
    """Output channels of the kernels whose names match, in the order of their numbers."""
    found = [(re.fullmatch(pattern, name), shape) for name, shape in shapes.items()]
    numbered = [(int(m[1] or 0), shape[0]) for m, shape in found if m and len(shape) == 4]
    return tuple(width for _, width in sorted(numbered))


def _first(shapes: Shapes, pattern: str) -> tuple[int, ...]:
    return next((shape for name, shape in shapes.items() if re.fullmatch(pattern, name)), ())


def _norm(shapes: Shapes) -> str:
    if any(name.endswith(".running_mean") for name in shapes):
        return "batch"
    return "group" if _first(shapes, r".*norm_\d\.weight") else "none"

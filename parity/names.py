"""What the layers of published U-Nets are called in PyTorch, beside what our twin calls them."""

from unet_jax.config import ModelConfig
from unet_torch_ref.models.residual import encoder_stages

LayerNames = dict[str, str]
"""A published layer's name by our twin's."""

RESIDUAL_BLOCK = {
    "norm_1": "groupnorm_1",
    "conv_1": "conv_1",
    "norm_2": "groupnorm_2",
    "conv_2": "conv_2",
    "shortcut": "residual_connection",
}
DOUBLE_CONV = {
    "conv_1": "double_conv.0",
    "norm_1": "double_conv.1",
    "conv_2": "double_conv.3",
    "norm_2": "double_conv.4",
}


def r1_names(model: ModelConfig) -> LayerNames:
    """The residual network's, whose decoder counts blocks and upsamplings together.

    Args:
      model: Of architecture residual; says how many layers there are.
    """
    stages = encoder_stages(model.channels, model.blocks_per_stage)
    names = {"conv_in": "conv_in_proj", "conv_out": "conv_out_proj"}
    for n, stage in enumerate(stages):
        if stage.down:
            names[f"encoder.{n}"] = f"encoder.{n}"
        else:
            names |= _block(f"encoder.{n}", f"encoder.{n}", RESIDUAL_BLOCK)
    for n in range(model.blocks_per_stage):
        names |= _block(f"bottleneck.{n}", f"bottleneck.{n}", RESIDUAL_BLOCK)
    upsampling = "upsample.1" if model.upsample == "bilinear" else "upsample"
    place, level = 0, 0
    for n, down in enumerate([*(stage.down for stage in reversed(stages)), False]):
        names |= _block(f"decoder.{n}", f"decoder.{place}", RESIDUAL_BLOCK)
        place += 1
        if down:
            names[f"upsample.{level}.conv"] = f"decoder.{place}.{upsampling}"
            place, level = place + 1, level + 1
    return names


def r2_names(model: ModelConfig) -> LayerNames:
    """The plain network's, which counts the bottleneck as its last `down`.

    Args:
      model: Of architecture plain; says how many layers there are.
    """
    levels = len(model.channels)
    names = {"conv_out": "outc.conv"} | _block("encoder.0", "inc", DOUBLE_CONV)
    for n in range(1, levels + 1):
        ours = f"encoder.{n}" if n < levels else "bottleneck"
        names |= _block(ours, f"down{n}.maxpool_conv.1", DOUBLE_CONV)
    for n in range(levels):
        names |= _block(f"decoder.{n}", f"up{n + 1}.conv", DOUBLE_CONV)
        names[f"upsample.{n}"] = f"up{n + 1}.up"
    return names


def our_names(model: ModelConfig) -> LayerNames:
    """Our twin's: none differs."""
    return {}


def _block(ours: str, theirs: str, parts: LayerNames) -> LayerNames:
    return {f"{ours}.{part}": f"{theirs}.{name}" for part, name in parts.items()}


def rename(entry: str, names: LayerNames) -> str:
    """The entry `layer.key` of a state under its layer's published name, if that differs."""
    layer, _, key = entry.rpartition(".")
    return f"{names.get(layer, layer)}.{key}"

"""The kinds of PyTorch state that weights are converted from and to."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from parity.architecture import Options, Shapes, plain_options, r2_options, residual_options
from parity.names import LayerNames, our_names, r1_names, r2_names
from unet_jax.config import DataConfig, ModelConfig
from unet_jax.weights import Channels

OURS = DataConfig()


@dataclass(frozen=True, kw_only=True)
class Family:
    """States that name their entries in one way.

    Attributes:
      name: As `--to` has it.
      title: What it is.
      pattern: What the names of its entries begin with.
      head: The layer that gives the logits.
      options: What a state's shapes tell of the network.
      layers: What its layers are called.
      only: The options that it has one value of, and which.
      mean, std, size: What such networks were published with: nothing in a state tells them.
    """

    name: str
    title: str
    pattern: re.Pattern[str]
    head: str
    options: Callable[[Shapes], Options]
    layers: Callable[[ModelConfig], LayerNames]
    only: Mapping[str, Any] = field(default_factory=dict)
    mean: Channels = OURS.mean
    std: Channels = OURS.std
    size: tuple[int, int] = OURS.size

    def matches(self, names: Iterable[str]) -> int:
        """How many entries are named as in this family."""
        return sum(self.pattern.match(name) is not None for name in names)

    def check(self, model: ModelConfig) -> None:
        """Raises `ValueError` if there is no such network in this family."""
        for option, value in self.only.items():
            if getattr(model, option) != value:
                raise ValueError(
                    f"{option}: {getattr(model, option)} has no place in {self.name}; the "
                    f"{self.title} has {value} alone"
                )


R1 = Family(
    name="r1",
    title="published residual U-Net",
    pattern=re.compile(
        r"conv_(in|out)_proj\."
        r"|(encoder|bottleneck|decoder)\.\d+\.(groupnorm_|conv_|residual_connection\.|upsample\.)"
        r"|encoder\.\d+\.(weight|bias)$"
    ),
    head="conv_out_proj",
    options=residual_options,
    layers=r1_names,
    only={"architecture": "residual", "norm": "group"},
    # Its Carvana recipe's.
    mean=(0.48897059, 0.46548275, 0.4294),
    std=(0.22861765, 0.22948039, 0.24054667),
    size=(256, 256),
)
R2 = Family(
    name="r2",
    title="published plain U-Net",
    pattern=re.compile(
        r"inc\.double_conv\.|down\d+\.maxpool_conv\.|up\d+\.(up|conv)\.|outc\.conv\."
    ),
    head="outc.conv",
    options=r2_options,
    layers=r2_names,
    only={"architecture": "plain", "norm": "batch", "size_policy": "pad"},
    # It takes images in 0..1 as they are, half as large as Carvana has them.
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
    size=(640, 959),
)
RESIDUAL_TWIN = Family(
    name="torch",
    title="residual U-Net of our twin",
    pattern=re.compile(
        r"conv_(in|out)\.|(encoder|bottleneck|decoder)\.\d+\.(norm_|conv_|shortcut\.)"
        r"|encoder\.\d+\.(weight|bias)$|upsample\.\d+\.conv\."
    ),
    head="conv_out",
    options=residual_options,
    layers=our_names,
    only={"architecture": "residual"},
)
PLAIN_TWIN = Family(
    name="torch",
    title="plain U-Net of our twin",
    pattern=re.compile(
        r"conv_out\.|((encoder|decoder)\.\d+|bottleneck)\.(norm_|conv_)|upsample\.\d+\.(weight|bias)$"
    ),
    head="conv_out",
    options=plain_options,
    layers=our_names,
    only={"architecture": "plain"},
)
FAMILIES = (R1, R2, RESIDUAL_TWIN, PLAIN_TWIN)


def nearest(names: Iterable[str]) -> Family | None:
    """The family that most entries are named as in; None if none is."""
    names = list(names)
    family = max(FAMILIES, key=lambda family: family.matches(names))
    return family if family.matches(names) else None


def family_for(name: str, model: ModelConfig) -> Family:
    """The family of this name that a network is of.

    Raises:
      ValueError: It has no such network.
    """
    twin = RESIDUAL_TWIN if model.architecture == "residual" else PLAIN_TWIN
    family = {"r1": R1, "r2": R2, "torch": twin}[name]
    family.check(model)
    return family

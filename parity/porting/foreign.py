"""A PyTorch state of some family, recognised, and carried to Flax and back."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import nn

from parity.convert import ConversionError, StateDict, Variables, to_flax, to_torch
from parity.porting.families import FAMILIES, Family, family_for, nearest
from parity.porting.names import rename
from parity.porting.state_file import listed
from unet_jax.config import ModelConfig
from unet_jax.weights import mismatches
from unet_torch_ref.models import build_model


@dataclass(frozen=True, kw_only=True)
class Network:
    """What a state is of.

    Attributes:
      family: How its entries are named.
      model: The architecture.
      num_logits: Channels of its logits.
    """

    family: Family
    model: ModelConfig
    num_logits: int

    def twin(self) -> nn.Module:
        """Our twin of it, without any values."""
        with torch.device("meta"):
            return build_model(
                self.model.architecture, num_classes=self.num_logits, **self.model.arguments()
            )

    def names(self, twin: nn.Module) -> dict[str, str]:
        """The family's name of each of the twin's entries."""
        layers = self.family.layers(self.model)
        return {entry: rename(entry, layers) for entry in twin.state_dict()}

    def to_flax(self, state: StateDict) -> Variables:
        """The state as Flax variables, of the same bytes."""
        twin = self.twin()
        return to_flax({ours: state[name] for ours, name in self.names(twin).items()}, twin)

    def to_torch(self, variables: Mapping[str, Any]) -> StateDict:
        """Flax variables as a state of the family: the inverse of `to_flax`."""
        twin = self.twin()
        names = self.names(twin)
        return {names[ours]: array for ours, array in to_torch(variables, twin).items()}


def network_as(name: str, model: ModelConfig, num_logits: int) -> Network:
    """A network with its entries named as in this family: torch, r1 or r2.

    Raises:
      ValueError: The family has no such network.
    """
    return Network(family=family_for(name, model), model=model, num_logits=num_logits)


def recognise(state: StateDict, **known: Any) -> Network:
    """The network that a state is of, to the last name and shape.

    Args:
      state: Arrays by name.
      known: Fields of `ModelConfig` that no state tells: its groups, its size policy.

    Raises:
      ConversionError: No network that can be converted has these names and shapes; the message
        lists those that do not match the nearest one.
      ValueError: What is known does not go with it.
    """
    shapes = {name: array.shape for name, array in state.items()}
    family = nearest(shapes)
    options = {**family.options(shapes), **family.only} if family else {}
    if family is None or not options["channels"]:
        kinds = ", ".join(f"{family.name} ({family.title})" for family in FAMILIES)
        names = [f"unexpected: {name} {shape}" for name, shape in shapes.items()]
        raise ConversionError(f"none of {kinds}:\n{listed(names)}")
    if "groups" in known and options["norm"] != "group":
        raise ValueError(f"groups: {known['groups']} given, but its norm is {options['norm']}")
    model = ModelConfig(**options | known)
    family.check(model)
    logits = shapes.get(f"{family.head}.weight", (1,))[0]
    network = Network(family=family, model=model, num_logits=logits)
    twin = network.twin()
    own = twin.state_dict()
    expected = {name: tuple(own[entry].shape) for entry, name in network.names(twin).items()}
    problems = mismatches(shapes, expected)
    if problems:
        kinds = groupby(problems, key=lambda line: line.partition(":")[0])
        lines = "\n".join(listed(list(group), most=10) for _, group in kinds)
        raise ConversionError(
            f"not a network that can be converted; the nearest is {family.name}, the "
            f"{family.title}: {described(model, logits)}. What does not match:\n{lines}"
        )
    return network


def described(model: ModelConfig, num_logits: int) -> str:
    """A network in a line: `plain, 64-128-256-512, transposed upsampling, 1 logit`."""
    words = [model.architecture, "-".join(map(str, model.channels))]
    if model.blocks_per_stage > 1:
        words.append(f"{model.blocks_per_stage} blocks a stage")
    words += [f"{model.upsample} upsampling"] + ([] if model.skip else ["no skips"])
    return ", ".join([*words, f"{num_logits} logit{'s' * (num_logits > 1)}"])

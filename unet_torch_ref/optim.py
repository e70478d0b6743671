"""PyTorch's optimisers, with or without decay of norms and biases."""

from typing import Any, Literal

import torch
from torch import nn


def build_optimizer(
    module: nn.Module,
    *,
    optimizer: Literal["adamw", "adam", "sgd", "rmsprop"],
    learning_rate: float,
    weight_decay: float,
    decay_norms_and_biases: bool,
    betas: tuple[float, float],
    eps: float,
    momentum: float,
    nesterov: bool,
    rmsprop_alpha: float,
    fused: bool = False,
) -> torch.optim.Optimizer:
    """The optimiser of a network's parameters.

    Args:
      module: The network.
      optimizer: Which one.
      learning_rate: The peak.
      weight_decay: Decoupled with AdamW; part of the gradient with the others.
      decay_norms_and_biases: Whether the scales of norms and all biases decay, too.
      betas: Of Adam and AdamW.
      eps: Of all but SGD.
      momentum: Of SGD and RMSprop.
      nesterov: Of SGD.
      rmsprop_alpha: RMSprop's `alpha`.
      fused: Whether all parameters are updated by one kernel: the same arithmetic, sooner. RMSprop
        has none in PyTorch, and stays as it is.
    """
    parameters: list[dict[str, Any]] = [{"params": list(module.parameters())}]
    if not decay_norms_and_biases:
        kernels = [p for p in module.parameters() if p.ndim > 1]
        vectors = [p for p in module.parameters() if p.ndim <= 1]
        parameters = [{"params": kernels}, {"params": vectors, "weight_decay": 0.0}]
    shared: dict[str, Any] = {"lr": learning_rate, "weight_decay": weight_decay}
    one = {"fused": fused or None}  # False would also rule out what PyTorch does by default.
    match optimizer:
        case "adamw":
            return torch.optim.AdamW(parameters, betas=betas, eps=eps, **one, **shared)
        case "adam":
            return torch.optim.Adam(parameters, betas=betas, eps=eps, **one, **shared)
        case "sgd":
            return torch.optim.SGD(
                parameters, momentum=momentum, nesterov=nesterov, **one, **shared
            )
        case "rmsprop":
            return torch.optim.RMSprop(
                parameters, alpha=rmsprop_alpha, eps=eps, momentum=momentum, **shared
            )

"""AdamW under warm-up and cosine decay."""

import math
from collections.abc import Iterable

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR


def warmup_cosine(step: int, warmup: float, total_steps: int) -> float:
    """The share of the peak learning rate at step 0, 1, …: up in a line, down in a half cosine.

    References:
      Goyal et al., 2017 (warm-up). https://arxiv.org/abs/1706.02677
      Loshchilov and Hutter, 2017 (cosine). https://arxiv.org/abs/1608.03983
    """
    rising = round(warmup * total_steps)
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(total_steps - rising, 1)))


def build_optimizer(
    parameters: Iterable[nn.Parameter],
    *,
    learning_rate: float,
    weight_decay: float,
    warmup: float,
    total_steps: int,
) -> tuple[torch.optim.Optimizer, LambdaLR]:
    """AdamW with decoupled weight decay on every parameter, and its schedule.

    References:
      Loshchilov and Hutter, 2019 (AdamW). https://arxiv.org/abs/1711.05101
    """
    optimizer = torch.optim.AdamW(
        parameters, learning_rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=weight_decay
    )
    return optimizer, LambdaLR(optimizer, lambda step: warmup_cosine(step, warmup, total_steps))

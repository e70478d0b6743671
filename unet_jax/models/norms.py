"""Norm layers with PyTorch's defaults, and what is beside them. Images are [B, H, W, C]."""

from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from unet_jax.models.layers import Affine, Conv, each_is_asked_for
from unet_jax.models.standardise import Alike, by_statistics, standardise

NormKind = Literal["batch", "group", "none"]


class BatchNorm(nn.Module):
    """`torch.nn.BatchNorm2d`, its running variance included.

    PyTorch normalises with the biased variance and keeps the unbiased one; Flax keeps the biased
    one too, which would shift evaluation by n / (n - 1). It can be differentiated in reverse only,
    and not through the running statistics.

    References:
      Ioffe and Szegedy, 2015. https://arxiv.org/abs/1502.03167
    """

    epsilon: float = 1e-5
    momentum: float = 0.1  # PyTorch's convention: the share of the new statistics.
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, rectified: bool = False) -> jax.Array:
        """Normalises x; `rectified`: with a ReLU after it."""
        shape = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape)
        steps = self.variable("batch_stats", "num_batches_tracked", jnp.zeros, (), jnp.int32)

        if not train:
            mean, var = (a.value.reshape(1, 1, 1, -1) for a in (running_mean, running_var))
            y = by_statistics(x, mean, var, scale, bias, self.epsilon)
            return nn.relu(y) if rectified else y
        replicas = 1 if self.axis_name is None else lax.axis_size(self.axis_name)
        n = x.size // x.shape[-1] * replicas
        if n == 1:
            raise ValueError(
                "batch norm needs more than one value per channel to train on; got input of "
                f"shape {x.shape}. Use a larger batch or image"
            )
        alike = Alike(axis_name=self.axis_name)
        y, mean, var = standardise(x, scale, bias, alike, self.epsilon, rectified)
        if not self.is_initializing():
            mean, var = mean.reshape(-1), var.reshape(-1)
            running_mean.value += self.momentum * (mean - running_mean.value)
            running_var.value += self.momentum * (var * (n / (n - 1)) - running_var.value)
            steps.value += 1
        return y

    def affine(self) -> Affine:
        """What it does to a channel by its running statistics."""
        scale, bias = (self.get_variable("params", name) for name in ("scale", "bias"))
        mean, var = (self.get_variable("batch_stats", name) for name in ("mean", "var"))
        scale *= lax.rsqrt(var + self.epsilon)
        return Affine(scale, bias - mean * scale)


class GroupNorm(nn.Module):
    """`torch.nn.GroupNorm`: each image's channels normalised in `groups` groups.

    References:
      Wu and He, 2018. https://arxiv.org/abs/1803.08494
    """

    groups: int
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array, rectified: bool = False) -> jax.Array:
        """Normalises x; `rectified`: with a ReLU after it."""
        features = x.shape[-1]
        if features % self.groups:
            raise ValueError(f"{features} channels do not divide into {self.groups} groups")
        scale = self.param("scale", nn.initializers.ones, (features,))
        bias = self.param("bias", nn.initializers.zeros, (features,))
        return standardise(x, scale, bias, Alike(self.groups), self.epsilon, rectified)[0]


class Norm(NamedTuple):
    """The norm layers of a network.

    Statistics and arithmetic are of the parameters' type; a result has the type of its input.
    Where each layer's own result is asked for (`capture_intermediates`), a layer does nothing of
    its neighbours' work.

    Attributes:
      kind: Of the layers; "none" adds none.
      groups: Groups of a group norm.
      axis_name: Mapped axis over whose devices a batch norm takes its statistics together.
    """

    kind: NormKind
    groups: int
    axis_name: str | None

    def rectified(self, block: nn.Module, x: jax.Array, train: bool, name: str) -> jax.Array:
        """Adds the layer `name` to the calling block, and a ReLU after it.

        Args:
          block: Which calls.
          x: [B, H, W, C].
          train: Whether a batch norm takes the batch's statistics, not the running ones.
          name: Of the layer.
        """
        within = not each_is_asked_for(block)
        match self.kind:
            case "batch":
                y = BatchNorm(axis_name=self.axis_name, name=name)(x, train, within)
            case "group":
                y = GroupNorm(self.groups, name=name)(x, within)
            case "none":
                return nn.relu(x)
        return y if within else nn.relu(y)

    def after(
        self, conv: Conv, block: nn.Module, x: jax.Array, train: bool, name: str
    ) -> jax.Array:
        """Convolves, and adds the layer `name` to the calling block, and a ReLU after it.

        By running statistics a batch norm multiplies each channel and adds to it, as the
        convolution's kernel and bias can do: it is folded into them.

        Args:
          conv: In front of the layer; its result is used by nothing else.
          block: Which calls.
          x: [B, H, W, C], what is convolved.
          train: Whether a batch norm takes the batch's statistics, not the running ones.
          name: Of the layer.

        References:
          Jacob et al., 2018 (3.2, folding). https://arxiv.org/abs/1712.05877
        """
        apart = train or block.is_initializing() or each_is_asked_for(block)
        if self.kind != "batch" or apart:
            return self.rectified(block, conv(x), train, name)
        layer = BatchNorm(axis_name=self.axis_name, name=name)
        return nn.relu(conv(x, then=layer.affine()))

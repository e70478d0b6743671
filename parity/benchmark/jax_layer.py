"""A convolution by itself, as JAX runs it here."""

import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from parity.benchmark.contender import Precision
from parity.benchmark.contestant import Contestant, Start
from parity.benchmark.convolution import Convolution
from parity.benchmark.task import SAMPLED
from unet_jax.models.layers import Conv, UpConv
from unet_jax.onednn.cores import share_cores
from unet_jax.recipe import DTYPES


class JaxLayer(Contestant):
    """Layer after layer, each compiled."""

    def __init__(self, precision: Precision, gpu: bool, largest: int) -> None:
        """Args:
        precision: What they compute in.
        gpu: Whether the device is one.
        largest: Values of the network's largest layer, by which a CPU's cores are shared.

        Raises:
          ValueError: JAX computes elsewhere than PyTorch does.
        """
        os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
        jax.config.update("jax_enable_compilation_cache", False)
        fast = precision == "tf32"
        jax.config.update("jax_default_matmul_precision", "tensorfloat32" if fast else "highest")
        share_cores(largest, "float32" if fast else precision, trained=True)
        if jax.default_backend() != ("gpu" if gpu else "cpu"):
            raise ValueError(f"JAX computes on {jax.default_backend()}, and PyTorch does not")
        self._dtype: Any = DTYPES.get(precision) or jnp.float32

    def choose(self, layer: Convolution, part: str) -> Start:
        """Starts with a part, "forward" or "backward", of a layer."""
        self.steps = 0
        if layer.kind == "conv":
            stride = layer.stride
            module = Conv(layer.features, layer.kernel_size, stride, False, dtype=self._dtype)
        else:
            module = UpConv(layer.features, dtype=self._dtype)

        def forward(x: jax.Array, kernel: jax.Array) -> Any:
            bias = {} if layer.kind == "conv" else {"bias": jnp.zeros(layer.features, self._dtype)}
            return module.apply({"params": {"kernel": kernel} | bias}, x)

        def backward(x: jax.Array, kernel: jax.Array, dy: jax.Array) -> Any:
            _, pull = jax.vjp(forward, x, kernel)
            return pull(dy)

        x, kernel, dy = (jnp.asarray(array, self._dtype) for array in layer.arrays())
        if part == "forward":
            self._run, self._arguments = jax.jit(lambda *a: (forward(*a),)), (x, kernel)
        else:
            self._run, self._arguments = jax.jit(backward), (x, kernel, dy)
        return self.start()

    def step(self) -> None:
        self._results = self._run(*self._arguments)

    def wait(self) -> None:
        jax.block_until_ready(self._results)

    def outcome(self) -> np.ndarray:
        """Some of the output, or of the input's gradient: [H, W, C]."""
        return np.asarray(self._results[0][0, ::SAMPLED, ::SAMPLED].astype(jnp.float32))

    def kernel_gradient(self) -> np.ndarray:
        """After a "backward": [k, k, C, features]."""
        return np.asarray(self._results[1].astype(jnp.float32))

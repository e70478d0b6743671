"""A convolution's shape, and what it costs; knows no framework."""

from typing import NamedTuple

import numpy as np


class Convolution(NamedTuple):
    """A convolution, as PyTorch and JAX both have it.

    Attributes:
      kind: "conv", or "up_conv": transposed, 2×2 with stride 2.
      kernel_size, stride: As usual.
      batch, height, width, inputs: Of its input.
      features: Channels of its output.
    """

    kind: str
    kernel_size: int
    stride: int
    batch: int
    height: int
    width: int
    inputs: int
    features: int

    @property
    def output(self) -> tuple[int, int]:
        """Height and width."""
        if self.kind == "up_conv":
            return self.stride * self.height, self.stride * self.width
        return -(-self.height // self.stride), -(-self.width // self.stride)

    @property
    def flops(self) -> int:
        """Forward; a multiply-add counts as 2."""
        height, width = self.output
        # Of a transposed convolution without overlap, each output pixel sees one tap.
        taps = self.kernel_size**2 if self.kind == "conv" else 1
        return 2 * taps * self.batch * height * width * self.inputs * self.features

    @property
    def values(self) -> int:
        """Numbers that are read and written, each once; either gradient moves as many."""
        height, width = self.output
        pixels = self.height * self.width * self.inputs + height * width * self.features
        return self.batch * pixels + self.kernel_size**2 * self.inputs * self.features

    def __str__(self) -> str:
        kind = "" if self.kind == "conv" else " transposed"
        stride = "" if self.stride == 1 else f", stride {self.stride}"
        input = "×".join(map(str, (self.batch, self.height, self.width)))
        channels = f"{self.inputs} → {self.features}"
        return f"{self.kernel_size}×{self.kernel_size}{kind}, {input}, {channels}{stride}"

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Input [B, H, W, C], kernel [k, k, C, features], and the output's gradient; float32."""
        rng = np.random.default_rng(0)
        k, (height, width) = self.kernel_size, self.output
        shapes = (
            (self.batch, self.height, self.width, self.inputs),
            (k, k, self.inputs, self.features),
            (self.batch, height, width, self.features),
        )
        x, kernel, dy = (rng.standard_normal(shape, np.float32) for shape in shapes)
        return x, kernel, dy

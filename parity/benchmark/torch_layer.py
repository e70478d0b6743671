"""A convolution by itself, in PyTorch."""

import numpy as np
import torch
from torch import Tensor

from parity.benchmark.contender import Precision
from parity.benchmark.contestant import Contestant, Start
from parity.benchmark.convolution import Convolution
from parity.benchmark.task import SAMPLED

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class TorchLayer(Contestant):
    """Layer after layer, eagerly, in channels-last memory."""

    def __init__(self, precision: Precision, gpu: bool) -> None:
        """Args:
        precision: What they compute in.
        gpu: Whether the device is one.
        """
        self._device = torch.device("cuda" if gpu else "cpu")
        fast = precision == "tf32"
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = fast
        torch.backends.cudnn.benchmark = True
        self._dtype = DTYPES.get(precision, torch.float32)

    def choose(self, layer: Convolution, part: str) -> Start:
        """Starts with a part, "forward" or "backward", of a layer."""
        self.steps = 0
        x, kernel, dy = layer.arrays()
        # [k, k, C, F] -> [F, C, k, k], and of a transposed convolution [C, F, k, k].
        self._axes = (3, 2, 0, 1) if layer.kind == "conv" else (2, 3, 0, 1)
        self._x, self._dy = (self._placed(a.transpose(0, 3, 1, 2)) for a in (x, dy))
        self._kernel = self._placed(kernel.transpose(self._axes))
        padding = layer.kernel_size // 2 if layer.kind == "conv" else 0
        transposed = layer.kind == "up_conv"
        self._shape = ([layer.stride] * 2, [padding] * 2, [1, 1], transposed, [0, 0], 1)
        self._part = part
        return self.start()

    def _placed(self, array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array)).to(self._device, self._dtype)
        return tensor.contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def step(self) -> None:
        if self._part == "forward":
            self._result = torch.ops.aten.convolution(self._x, self._kernel, None, *self._shape)
        else:
            both = [True, True, False]
            arrays = (self._dy, self._x, self._kernel)
            self._result, self._kernels, _ = torch.ops.aten.convolution_backward(
                *arrays, None, *self._shape, both
            )

    def wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize()

    def outcome(self) -> np.ndarray:
        """Some of the output, or of the input's gradient: [H, W, C]."""
        return self._result[0, :, ::SAMPLED, ::SAMPLED].permute(1, 2, 0).float().cpu().numpy()

    def kernel_gradient(self) -> np.ndarray:
        """After a "backward": [k, k, C, features]."""
        return self._kernels.permute(*np.argsort(self._axes)).float().cpu().numpy()

"""PyTorch in its best honest dress: nothing in a step waits for the device."""

import os
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from parity.benchmark import memory
from parity.benchmark.contender import Contender
from parity.benchmark.contestant import WHOLE_SAMPLE, Contestant
from parity.benchmark.task import BATCH, SAMPLED, TORCH, Task
from unet_torch_ref.augment import border_map, inputs_and_targets, normalise
from unet_torch_ref.batch import Batch
from unet_torch_ref.losses import Loss
from unet_torch_ref.metrics import predict_classes
from unet_torch_ref.models import build_model
from unet_torch_ref.optim import build_optimizer
from unet_torch_ref.step import Scaler, lower_precision

MODES = {"compile": None, "compile frozen": None, "compile max-autotune": "max-autotune"}


class TorchContestant(Contestant):
    """What training and inference share: device, network, batch, memory."""

    least = WHOLE_SAMPLE

    def __init__(self, task: Task, contender: Contender) -> None:
        """Args:
        task: What is to be run.
        contender: How.
        """
        self.task, self.contender = task, contender
        # A new one each time, for the time to compile is shown.
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = tempfile.mkdtemp(dir=task.folder)
        os.environ["TORCHINDUCTOR_FREEZING"] = str(int(contender.how == "compile frozen"))
        self.device = torch.device("cuda" if task.gpu else "cpu")
        fast = contender.precision == "tf32"
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = fast
        torch.backends.cudnn.benchmark = True
        self._before = memory.resident()
        self.batch = self.placed(task.load(BATCH))
        data = task.config.data
        mean, std = (torch.tensor(values, device=self.device) for values in (data.mean, data.std))
        self.mean_std = (mean, std)
        channels_last = contender.channels_last
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        model = build_model(
            task.config.model.architecture,
            num_classes=task.num_classes,
            **task.config.model.arguments(),
        )
        weights = {name: torch.from_numpy(x) for name, x in task.load(TORCH).items()}
        model.load_state_dict(weights)
        self.model: nn.Module = model.to(self.device).to(memory_format=self.layout)  # type: ignore[call-overload]
        halves = {"bfloat16": torch.bfloat16, "float16": torch.float16}
        self.dtype = halves.get(contender.precision)

    def placed(self, arrays: Mapping[str, np.ndarray]) -> Batch:
        """The batch on the device."""
        tensors: dict[str, Any] = {
            name: torch.from_numpy(array).to(self.device, non_blocking=True)
            for name, array in arrays.items()
        }
        return Batch(**tensors)

    def compiled(self, function: Any) -> Any:
        """The function as the contender runs it."""
        if self.contender.how == "eager":
            return function
        return torch.compile(function, mode=MODES[self.contender.how], dynamic=False)

    def mark(self) -> None:
        """Tells CUDA graphs, which max-autotune makes, that a step begins."""
        if self.device.type == "cuda" and self.contender.how != "eager":
            torch.compiler.cudagraph_mark_step_begin()

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def forget_peak(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        super().forget_peak()

    def peak(self) -> int | None:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated()
        most = memory.peak()
        return None if most is None else most - self._before

    def room(self) -> tuple[int, int]:
        if self.device.type == "cuda":
            return torch.cuda.memory_reserved(), torch.cuda.mem_get_info()[0]
        return super().room()


class TorchTraining(TorchContestant):
    """Whole training steps: `unet_torch_ref.step.train_step` without what a benchmark can spare.

    Nothing is skipped if the loss is not finite (float16's scaler aside), no metric but the loss is
    kept, the optimiser is fused where PyTorch has one, and pixels' places are of float32.
    """

    def __init__(self, task: Task, contender: Contender) -> None:
        super().__init__(task, contender)
        config = task.config
        self.model.train()
        arguments = config.optim.optimizer_arguments()
        self.optimizer = build_optimizer(self.model, **arguments, fused=True)
        self.loss = Loss(**config.loss.arguments(task.class_weights))
        self.scaler = Scaler(self.device.type) if contender.precision == "float16" else None
        self.parameters = list(self.model.parameters())
        decay = config.train.ema_decay
        self.average = [p.detach().clone() for p in self.parameters] if decay else []
        self.fill = config.augment.fill(task.classes)
        self._inputs = self.compiled(self.inputs)
        self._share = self.compiled(self.share)
        self._whole = self.compiled(lambda batch: self.share(*self.inputs(batch), {}))

    def step(self) -> None:
        self.mark()
        self.optimizer.zero_grad(set_to_none=True)
        self.last = self.gradients(self.batch)
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.parameters, self.task.config.optim.clip_norm)
        if self.scaler is not None:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            self.optimizer.step()
        if self.average:
            with torch.no_grad():
                share = 1 - self.task.config.train.ema_decay
                # As `torch.optim.swa_utils` has it, without asking the device how many there were.
                torch._foreach_lerp_(self.average, self.parameters, share)  # type: ignore

    def gradients(self, batch: Batch) -> Tensor:
        """Adds the gradients of the batch's loss to the parameters'; gives the loss."""
        parts = self.task.config.train.accumulate
        if parts == 1:  # Augmentation, forward and loss in one function, for a compiler to fuse.
            loss = self._whole(batch)
            self.backward(loss)
            return loss.detach()
        image, mask, valid, border = self._inputs(batch)
        known = self.loss.normalisers(mask, valid)
        total = image.new_zeros(())
        for n in range(parts):
            rows = slice(n, None, parts)
            part = None if border is None else border[rows]
            loss = self._share(image[rows], mask[rows], valid[rows], part, known)
            self.backward(loss)
            total += loss.detach()
        return total

    def backward(self, loss: Tensor) -> None:
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def inputs(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """What the network and its loss are given."""
        size, dtype = self.task.config.data.size, torch.float32
        image, mask = inputs_and_targets(batch, self.mean_std, dtype, self.fill, size, dtype)
        image = image.contiguous(memory_format=self.layout)
        return image, mask, batch.valid, border_map(batch, size, dtype)

    def share(
        self,
        image: Tensor,
        mask: Tensor,
        valid: Tensor,
        border: Tensor | None,
        known: Mapping[str, Tensor],
    ) -> Tensor:
        """The part of these images in the loss of a batch whose normalisers are known."""
        with lower_precision(self.dtype, self.device):
            logits = self.model(image)
        sums = self.loss.sums(logits.float(), mask, valid, border)
        return self.loss.total(sums | dict(known))

    def outcome(self) -> np.ndarray:
        return self.last.cpu().numpy()


class TorchInference(TorchContestant):
    """From uint8 images to class ids."""

    def __init__(self, task: Task, contender: Contender) -> None:
        super().__init__(task, contender)
        self.model.eval()
        height, width = task.config.data.size
        self._image = self.batch.image[:, :height, :width].contiguous()
        self._predict = self.compiled(self.predict)

    def predict(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Class ids [B, H, W], and some of the logits."""
        normal = normalise(image, self.mean_std, torch.float32)
        with lower_precision(self.dtype, self.device):
            logits = self.model(normal.contiguous(memory_format=self.layout))
        logits = logits.float()
        return predict_classes(logits), logits[0, :, ::SAMPLED, ::SAMPLED]

    @torch.inference_mode()
    def step(self) -> None:
        self.mark()
        self.last = self._predict(self._image)

    def outcome(self) -> np.ndarray:
        return self.last[1].permute(1, 2, 0).cpu().numpy()

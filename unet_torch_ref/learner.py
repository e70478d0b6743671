"""The PyTorch side of a run: the model, its optimiser, and their checkpoints."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils._pytree import tree_map

from unet_torch_ref.augment import Normalisation
from unet_torch_ref.batch import Arrays, to_tensors
from unet_torch_ref.checkpoint import Checkpoints
from unet_torch_ref.losses import Loss
from unet_torch_ref.optim import build_optimizer
from unet_torch_ref.schedule import build_schedule
from unet_torch_ref.step import Scaler, eval_step, train_step

Precision = Literal["float32", "bfloat16", "float16"]
COUNTERS = ("step", "skipped", "skipped_in_row")


class TorchLearner:
    """Trains the twin, eagerly and in channels-last memory; see `unet_jax.framework.Learner`."""

    framework = "torch"

    def __init__(
        self,
        model: nn.Module,
        *,
        loss: Loss,
        optimizer: Mapping[str, Any],
        schedule: Mapping[str, Any],
        clip_norm: float,
        precision: Precision,
        accumulate: int,
        ema_decay: float,
        mean_std: Normalisation,
        fill: int,
        size: tuple[int, int],
        classes: int,
        checkpoints: Checkpoints,
    ) -> None:
        """Args:
        model: The network, with its first weights.
        loss: What is minimised.
        optimizer, schedule: Arguments of `build_optimizer` and `build_schedule`.
        clip_norm: Largest global norm of the gradient.
        precision: What convolutions compute in, by autocast; float16 with a scaled loss.
        accumulate: Micro-batches a step.
        ema_decay: Share that the average of the parameters keeps of itself; 0: no average.
        mean_std: Per-channel mean and standard deviation of images in 0..1.
        fill: What masks hold outside of the picture, when a sample is moved.
        size: H and W that the network is given.
        classes: Classes in the masks.
        checkpoints: Where states go.
        """
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = model.to(self._device).to(memory_format=torch.channels_last)  # type: ignore
        self.loss = loss
        self.optimizer = build_optimizer(self.model, **optimizer)
        self.schedule = build_schedule(self.optimizer, **schedule)
        self.clip_norm, self.accumulate = clip_norm, accumulate
        self.dtype = None if precision == "float32" else getattr(torch, precision)
        self.scaler = Scaler(self._device.type) if precision == "float16" else None
        average = get_ema_multi_avg_fn(ema_decay)
        self.ema = AveragedModel(self.model, multi_avg_fn=average) if ema_decay else None
        self.mean_std, self.fill, self.size, self.classes = mean_std, fill, size, classes
        self.checkpoints = checkpoints
        self.step, self.skipped, self.skipped_in_row = 0, 0, 0

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    def weights(self) -> dict[str, np.ndarray]:
        named = self.model.named_parameters()
        return {name.replace(".", "/"): p.detach().cpu().numpy() for name, p in named}

    @property
    def device(self) -> str:
        name = torch.cuda.get_device_name() if self._device.type == "cuda" else "cpu"
        return f"{self._device.type}: {name}"

    @property
    def free_memory(self) -> int | None:
        return torch.cuda.mem_get_info()[0] if self._device.type == "cuda" else None

    def hold(self, *arrays: np.ndarray) -> Callable[[np.ndarray], tuple[Tensor, ...]]:
        held = [torch.from_numpy(array).to(self._device) for array in arrays]

        def fetch(index: np.ndarray) -> tuple[Tensor, ...]:
            place = torch.from_numpy(index).to(self._device)
            return tuple(array[place] for array in held)

        return fetch

    def train_step(self, batch: Arrays) -> Mapping[str, Any]:
        metrics = train_step(
            self.model,
            self.optimizer,
            self.schedule.steps.step,
            to_tensors(batch, self._device),
            loss=self.loss,
            mean_std=self.mean_std,
            fill=self.fill,
            clip_norm=self.clip_norm,
            size=self.size,
            accumulate=self.accumulate,
            dtype=self.dtype,
            scaler=self.scaler,
            ema=self.ema,
        )
        self.step += 1
        finite = metrics.pop("finite")
        self.skipped += not finite
        self.skipped_in_row = 0 if finite else self.skipped_in_row + 1
        return metrics | {"skipped_in_row": self.skipped_in_row}

    def eval_step(self, batch: Arrays) -> tuple[Mapping[str, Any], Any]:
        if self.ema is not None:  # It averages parameters; statistics are the model's own.
            for average, buffer in zip(
                self.ema.module.buffers(), self.model.buffers(), strict=True
            ):
                average.copy_(buffer)
        return eval_step(
            self.model if self.ema is None else self.ema.module,
            to_tensors(batch, self._device),
            loss=self.loss,
            mean_std=self.mean_std,
            classes=self.classes,
            size=self.size,
            dtype=self.dtype,
        )

    def read(self, values: Any) -> Any:
        return tree_map(lambda x: x.detach().cpu().numpy() if isinstance(x, Tensor) else x, values)

    def total(self, sums: Mapping[str, np.ndarray]) -> float:
        return float(self.loss.total({name: torch.as_tensor(x) for name, x in sums.items()}))

    def validated(self, metrics: Mapping[str, float]) -> None:
        if self.schedule.plateau is not None:
            self.schedule.plateau.step(metrics["dice"])

    def save(self, position: Mapping[str, Any], metrics: Mapping[str, float] | None) -> None:
        state = {name: part.state_dict() for name, part in self.parts().items()}
        state |= {name: getattr(self, name) for name in COUNTERS}
        self.checkpoints.save(state, position, metrics)

    def restore(self) -> dict[str, Any] | None:
        parts = self.parts()
        expected = {
            name: parts[name].state_dict() if name in parts else {} for name in ("model", "ema")
        }
        restored = self.checkpoints.restore(expected)
        if restored is None:
            return None
        state, position = restored
        for name, part in parts.items():
            part.load_state_dict(state[name])
        for name in COUNTERS:
            setattr(self, name, state[name])
        return position

    def close(self) -> None:
        self.checkpoints.close()

    def parts(self) -> dict[str, Any]:
        """All that has a state of its own."""
        parts = {
            "model": self.model,
            "optimizer": self.optimizer,
            "schedule": self.schedule.steps,
            "plateau": self.schedule.plateau,
            "scaler": self.scaler,
            "ema": self.ema,
        }
        return {name: part for name, part in parts.items() if part is not None}

"""The PyTorch side of a run: the model, its optimiser, and their checkpoints."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unet_torch_ref.augment import Normalisation
from unet_torch_ref.batch import Arrays, to_tensors
from unet_torch_ref.optim import build_optimizer
from unet_torch_ref.step import eval_step, train_step


class TorchLearner:
    """Trains the twin, eagerly and in channels-last memory; see `unet_jax.loop.Learner`."""

    framework = "torch"

    def __init__(
        self,
        model: nn.Module,
        *,
        learning_rate: float,
        weight_decay: float,
        warmup: float,
        clip_norm: float,
        mean_std: Normalisation,
        fill: int,
        classes: int,
        total_steps: int,
        folder: Path,
    ) -> None:
        """Args:
        model: The network, with its first weights.
        learning_rate, weight_decay, warmup, clip_norm: As in `unet_torch_ref.optim`.
        mean_std: Per-channel mean and standard deviation of images in 0..1.
        fill: What masks hold outside of the picture, when a sample is moved.
        classes: Classes in the masks.
        total_steps: Steps of the whole run.
        folder: Where checkpoints go: `last.pt` and `best.pt`.
        """
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = model.to(self._device).to(memory_format=torch.channels_last)  # type: ignore
        self.optimizer, self.schedule = build_optimizer(
            self.model.parameters(),
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            warmup=warmup,
            total_steps=total_steps,
        )
        self.mean_std, self.fill, self.classes = mean_std, fill, classes
        self.clip_norm = clip_norm
        self.folder = folder
        self.step, self.best = 0, float("-inf")

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    @property
    def device(self) -> str:
        name = torch.cuda.get_device_name() if self._device.type == "cuda" else "cpu"
        return f"{self._device.type}: {name}"

    @property
    def free_memory(self) -> int | None:
        return torch.cuda.mem_get_info()[0] if self._device.type == "cuda" else None

    def hold(
        self, image: np.ndarray, mask: np.ndarray
    ) -> Callable[[np.ndarray], tuple[Tensor, Tensor]]:
        images, masks = (torch.from_numpy(array).to(self._device) for array in (image, mask))

        def fetch(index: np.ndarray) -> tuple[Tensor, Tensor]:
            place = torch.from_numpy(index).to(self._device)
            return images[place], masks[place]

        return fetch

    def train_step(self, batch: Arrays) -> Mapping[str, Any]:
        metrics = train_step(
            self.model,
            self.optimizer,
            self.schedule,
            to_tensors(batch, self._device),
            mean_std=self.mean_std,
            fill=self.fill,
            clip_norm=self.clip_norm,
        )
        self.step += 1
        return metrics

    def eval_step(self, batch: Arrays) -> tuple[Mapping[str, Any], Any]:
        metrics, predicted = eval_step(
            self.model,
            to_tensors(batch, self._device),
            mean_std=self.mean_std,
            classes=self.classes,
        )
        return {name: value.cpu() for name, value in metrics.items()}, predicted.cpu()

    def save(self, position: Mapping[str, Any], metrics: Mapping[str, float] | None) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if metrics is not None and metrics["dice"] >= self.best:
            self.best = metrics["dice"]
            self._write("best.pt", position)
        self._write("last.pt", position)

    def restore(self) -> dict[str, Any] | None:
        path = self.folder / "last.pt"
        if not path.exists():
            return None
        saved = torch.load(path, map_location=self._device, weights_only=True)
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.schedule.load_state_dict(saved["schedule"])
        self.step, self.best = saved["step"], saved["best"]
        return saved["position"]

    def close(self) -> None:
        """Nothing is under way between calls."""

    def _write(self, name: str, position: Mapping[str, Any]) -> None:
        draft = self.folder / f"{name}.part"
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "step": self.step,
            "best": self.best,
            "position": dict(position),
        }
        torch.save(state, draft)
        os.replace(draft, self.folder / name)

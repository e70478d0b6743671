"""The PyTorch twin in place of the Flax network: all else of a prediction is the same code."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from parity.porting.finished_run import load_run
from parity.porting.source import Given, read
from parity.twin import loaded_twin
from unet_jax.prediction.predictor import Predictor
from unet_jax.trained import check_one_state
from unet_jax.weights import Trained
from unet_torch_ref.augment import normalise


class TorchPredictor(Predictor):
    """Predicts as `Predictor` does, but with the twin of the same weights; on a GPU if PyTorch
    finds one."""

    @cached_property
    def network(self) -> Callable[[np.ndarray], np.ndarray]:
        trained = self.trained
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model = loaded_twin(trained).to(device)
        model = model.to(memory_format=torch.channels_last)  # type: ignore
        mean_std = (trained.mean, trained.std)

        @torch.inference_mode()
        def network(images: np.ndarray) -> np.ndarray:
            # PyTorch warns of arrays that it may not write to, such as Pillow's.
            given = torch.from_numpy(np.require(images, requirements=["C", "W"])).to(device)
            logits = model(normalise(given, mean_std, torch.float32))
            found = logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(1)
            return found.permute(0, 2, 3, 1).cpu().numpy()

        return network


def read_torch(place: Path, *, last: bool = False, ema: bool = True) -> Trained:
    """Reads what PyTorch has trained.

    Args:
      place: The folder of a run of train_torch.py, or a checkpoint.
      last: Of a run, the last state instead of the best one.
      ema: Of a run that has an average of its weights, whether that is taken.

    Raises:
      ValueError: It is neither, or damaged, or has no such state; the message names it.
      OSError: It cannot be read.
    """
    if place.is_dir():
        return load_run(place, last=last, ema=ema)
    check_one_state(place, last, ema)
    return read(place, Given())

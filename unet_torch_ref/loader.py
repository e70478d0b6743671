"""The usual PyTorch loader, to measure ours against: decodes and resizes every file, every time."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset


class PairFiles(Dataset):
    """Images and masks as they lie, resized when asked for."""

    def __init__(self, pairs: Sequence[tuple[Path, Path]], size: tuple[int, int]) -> None:
        """Args:
        pairs: The files of each image and its mask.
        size: Height and width to resize to.
        """
        self.pairs, self.size = pairs, (size[1], size[0])

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Image float32 [3, H, W] in 0..1, and mask int64 [H, W] of the file's values."""
        image_file, mask_file = self.pairs[index]
        with Image.open(image_file) as opened:
            image = opened.convert("RGB").resize(self.size, Image.Resampling.BILINEAR)
        with Image.open(mask_file) as opened:
            mask = opened.resize(self.size, Image.Resampling.NEAREST)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div(255)
        return pixels, torch.from_numpy(np.array(mask)).long()


def file_loader(
    pairs: Sequence[tuple[Path, Path]], size: tuple[int, int], *, batch_size: int, workers: int
) -> DataLoader:
    """Shuffled batches of `PairFiles`, by worker processes that stay."""
    return DataLoader(
        PairFiles(pairs, size),
        batch_size=batch_size,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        # Forking a process in which JAX runs threads can deadlock.
        multiprocessing_context="spawn" if workers else None,
    )

"""Masks as COCO has them: a JSON file that pycocotools opens."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from unet_jax.draft import draft

Region = dict[str, Any]


def regions(mask: np.ndarray, classes: Sequence[str]) -> list[Region]:
    """What each class that occurs covers, as compressed run lengths; of two classes, the second.

    Args:
      mask: Class ids, uint8 [H, W].
      classes: Name of each class id.

    Returns:
      For each, `category_id` (the class id), `segmentation`, `area` (pixels), `bbox` (x, y, width,
      height) and `iscrowd` 1, which says that the segmentation is one of run lengths.

    References:
      https://cocodataset.org/#format-data
    """
    import pycocotools.mask as extra  # Only where it is asked for.

    coco: Any = extra

    found = []
    for each in range(1 if len(classes) == 2 else 0, len(classes)):
        pixels = mask == each
        if not pixels.any():
            continue
        runs = coco.encode(np.asfortranarray(pixels, np.uint8))
        found.append(
            {
                "category_id": each,
                "segmentation": {"size": list(mask.shape), "counts": runs["counts"].decode()},
                "area": int(coco.area(runs)),
                "bbox": coco.toBbox(runs).tolist(),
                "iscrowd": 1,
            }
        )
    return found


class CocoFile:
    """Takes images one by one, and writes what they hold at once: runs are many."""

    def __init__(self, file: IO[str]) -> None:
        self._file, self._images, self._count = file, [], 0
        file.write('{"annotations": [')

    def add(self, name: str, mask_size: tuple[int, int], found: Sequence[Region]) -> None:
        """Adds an image.

        Args:
          name: Of its file.
          mask_size: Its height and width.
          found: As from `regions`.
        """
        number = len(self._images) + 1
        height, width = mask_size
        self._images.append({"id": number, "file_name": name, "height": height, "width": width})
        for region in found:
            self._count += 1
            entry = {"id": self._count, "image_id": number, **region}
            self._file.write(("," if self._count > 1 else "") + "\n" + json.dumps(entry))

    def finish(self, classes: Sequence[str]) -> None:
        """Writes the rest: the images and the classes."""
        categories = [{"id": n, "name": name} for n, name in enumerate(classes)]
        rest = {"images": self._images, "categories": categories}
        self._file.write("\n], " + json.dumps(rest)[1:] + "\n")


@contextmanager
def coco_file(path: Path, classes: Sequence[str]) -> Iterator[CocoFile]:
    """A COCO file, which is there when all images have been added."""
    with draft(path) as part, part.open("w", encoding="utf-8") as file:
        made = CocoFile(file)
        yield made
        made.finish(classes)

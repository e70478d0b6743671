"""Pictures of data and of runs: masks over their images, predictions beside the truth."""

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from PIL import Image

from unet_jax.batch import IGNORED
from unet_jax.datasets.encoding import voc_palette
from unet_jax.plots import plot_confusion as plot_confusion
from unet_jax.reliability import plot_reliability as plot_reliability
from unet_jax.sheet import GAP, SWATCH, Entry, draw_sheet

WRONG = (255, 64, 88)
PANEL_WIDTH = 240  # Of a prediction panel's pictures, at least, if they are small.
PANEL_SIDE = 480  # Pixels of their long side, at most.
CELL_AREA = 220 * 165  # Pixels of a contact sheet's picture, whatever its shape.
SHEET_WIDTH = 1700
RESULT_SIDE = 560  # Pixels of the long side of a result's pictures.
GREYS_SHOWN = ((24, 28, 36), (255, 176, 32))
Palette = Sequence[Sequence[int]]


def overlay(
    image: np.ndarray,
    mask: np.ndarray,
    palette: Palette,
    *,
    alpha: float = 0.5,
    outlines: bool = False,
) -> np.ndarray:
    """The image tinted in the colours of its classes, and hatched in grey where it is ignored.

    Args:
      image: uint8 [H, W, 3].
      mask: Class ids [H, W]; 255 where ignored.
      palette: RGB colour of each class.
      alpha: Opacity of the tint.
      outlines: Whether a line, a pixel wide, parts the classes: in the colour of the one that
        comes later in the palette, made lighter.

    Returns:
      uint8 [H, W, 3].
    """
    colours = np.zeros((IGNORED + 1, 3), np.float32)
    colours[: len(palette)] = _tints(palette)
    shown = (1 - alpha) * image + alpha * colours[mask]
    shown = np.where((mask == IGNORED)[..., None], _hatched(image), shown)
    if outlines:
        later = mask.copy()  # Of a pixel and its neighbours to the right and below.
        later[:, :-1] = np.maximum(later[:, :-1], mask[:, 1:])
        later[:-1] = np.maximum(later[:-1], mask[1:])
        lines = 0.65 * colours[later] + 0.35 * 255
        shown = np.where((later != mask)[..., None], lines, shown)
    return shown.astype(np.uint8)


def _tints(palette: Palette) -> Palette:
    """The palette; or, if it has no hue, one that can be seen on grey images."""
    if any(min(colour) != max(colour) for colour in palette):
        return palette
    return (*GREYS_SHOWN, *voc_palette(IGNORED)[2:])[: len(palette)]


def _hatched(image: np.ndarray) -> np.ndarray:
    """Light diagonals over the image [H, W, 3], which becomes dark and grey: [H, W, 3]."""
    height, width = image.shape[:2]
    diagonal = (np.arange(height)[:, None] + np.arange(width)) % 6 < 2
    return (np.where(diagonal, 110, 30) + 0.25 * image.mean(axis=2))[..., None].repeat(3, axis=2)


def prediction_panel(
    images: np.ndarray,
    truth: np.ndarray,
    predicted: np.ndarray,
    palette: Palette,
    classes: Sequence[str],
    title: str,
    captions: Sequence[str] = (),
) -> Image.Image:
    """A row for each sample: image, truth, prediction, and the pixels that are wrong.

    Args:
      images: uint8 [N, H, W, 3].
      truth: Class ids [N, H, W]; 255 where ignored, and nothing is wrong.
      predicted: Class ids [N, H, W].
      palette: RGB colour of each class.
      classes: Name of each class.
      title: Written above.
      captions: Written below each row, if any.
    """
    height, width = truth.shape[1:]
    share = min(1, PANEL_SIDE / max(height, width))
    size = max(1, round(share * width)), max(1, round(share * height))
    scale = max(1, round(PANEL_WIDTH / size[0])) if share == 1 else 1
    cells = []
    for sample in zip(images, truth, predicted, strict=True):
        image, true, guess = (_resized(picture, size) for picture in sample)
        row = (
            image,
            overlay(image, true, palette),
            overlay(image, guess, palette),
            _mistakes(image, true, guess),
        )
        cells += [cell.repeat(scale, axis=0).repeat(scale, axis=1) for cell in row]
    legend = [*_legend([*truth, *predicted], palette, classes), Entry(_swatch(WRONG), "wrong")]
    headers = ("image", "truth", "prediction", "mistakes")
    below = [text for caption in captions for text in (caption, "", "", "")]
    return draw_sheet(
        cells, len(headers), title=title, legend=legend, headers=headers, captions=below
    )


def _resized(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The image [H, W, 3], or the class ids [H, W], at this width and height."""
    if picture.shape[1::-1] == size:
        return picture
    way = Image.Resampling.BICUBIC if picture.ndim == 3 else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(picture.astype(np.uint8)).resize(size, way))


def result_panel(
    read: Callable[[tuple[int, int]], np.ndarray],
    mask: np.ndarray,
    palette: Palette,
    classes: Sequence[str],
    title: str,
) -> Image.Image:
    """An image, its classes, and both over each other, side by side; no larger than a screen.

    Args:
      read: The image, uint8 [h, w, 3], at the height and width it is given.
      mask: Class ids [H, W], of the native size.
      palette: RGB colour of each class.
      classes: Name of each class.
      title: Written above.
    """
    height, width = mask.shape
    share = RESULT_SIDE / max(height, width)
    size = max(1, round(share * height)), max(1, round(share * width))
    image = read(size)
    way = (size[1], size[0]), Image.Resampling.NEAREST
    ids = np.asarray(Image.fromarray(mask).resize(*way))
    colours = np.asarray(_tints(palette), np.uint8)[ids]
    cells = (image, colours, overlay(image, ids, palette, outlines=True))
    headers = ("image", "prediction", "overlay")
    legend = _legend([mask], palette, classes)
    return draw_sheet(cells, len(headers), title=title, legend=legend, headers=headers)


def _mistakes(image: np.ndarray, truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    wrong = (truth != predicted) & (truth != IGNORED)
    dark = np.where((truth == IGNORED)[..., None], _hatched(image), 0.6 * image)
    return np.where(wrong[..., None], WRONG, dark).astype(np.uint8)


def contact_sheet(
    images: Sequence[np.ndarray],
    masks: Sequence[np.ndarray],
    names: Sequence[str],
    palette: Palette,
    classes: Sequence[str],
    title: str,
) -> Image.Image:
    """Samples side by side, each as the image and the image under its mask.

    Args:
      images: uint8 [H, W, 3] each.
      masks: Class ids [H, W] each; 255 where ignored.
      names: Written below each.
      palette: RGB colour of each class.
      classes: Name of each class.
      title: Written above.
    """
    height, width = masks[0].shape
    cell_w = max(1, round(math.sqrt(CELL_AREA * width / height)))
    size = cell_w, max(1, round(CELL_AREA / cell_w))
    cells = []
    for image, mask in zip(images, masks, strict=True):
        picture = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
        ids = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
        cells.append(np.concatenate([picture, overlay(picture, ids, palette, outlines=True)], 1))
    columns = min(max(1, round(SHEET_WIDTH / (2 * cell_w + GAP))), len(cells))
    legend = _legend(masks, palette, classes)
    return draw_sheet(cells, columns, title=title, legend=legend, captions=names)


def _legend(masks: Iterable[np.ndarray], palette: Palette, classes: Sequence[str]) -> list[Entry]:
    """The classes that occur, in order of their ids."""
    present = np.zeros(IGNORED + 1, bool)
    for mask in masks:
        present[mask] = True
    ids, colours = np.flatnonzero(present[:IGNORED]).tolist(), _tints(palette)
    entries = [Entry(_swatch(colours[i]), classes[i]) for i in ids]
    if present[IGNORED]:
        entries.append(Entry(_hatched(_swatch((128, 128, 128))).astype(np.uint8), "ignored"))
    return entries


def _swatch(colour: Sequence[int]) -> np.ndarray:
    return np.full((SWATCH, SWATCH, 3), colour, np.uint8)

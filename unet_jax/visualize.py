"""Pictures of data and of runs: masks over their images, predictions beside the truth, plots."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unet_jax.batch import IGNORED
from unet_jax.datasets.encoding import voc_palette
from unet_jax.evaluation.calibration import Calibration, best_threshold, dice_by_threshold
from unet_jax.sheet import GAP, SWATCH, Entry, draw_sheet

WRONG = (255, 64, 88)
CELL_AREA = 220 * 165  # Pixels of a contact sheet's picture, whatever its shape.
SHEET_WIDTH = 1700
RESULT_SIDE = 560  # Pixels of the long side of a result's pictures.
MOST_NAMED, MOST_NUMBERED = 40, 12  # Classes of a confusion matrix.
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
    scale = max(1, round(240 / truth.shape[2]))
    cells = []
    for image, true, guess in zip(images, truth, predicted, strict=True):
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


def plot_curves(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draws loss and validation scores by epoch into the PNG file `path`."""
    from matplotlib.figure import Figure  # Slow to import, and only needed here.

    epochs = [record["epoch"] for record in records]
    figure = Figure(figsize=(10, 4), layout="constrained")
    losses, quality = figure.subplots(1, 2)
    for name, label in (("train_loss", "training"), ("val_loss", "validation")):
        losses.plot(epochs, [r[name] for r in records], marker=".", label=label)
    for name, label in (("dice", "Dice"), ("iou", "IoU"), ("accuracy", "pixel accuracy")):
        quality.plot(epochs, [r[name] for r in records], marker=".", label=label)
    losses.set(title="Loss", xlabel="epoch", ylabel="nats per pixel", yscale="log")
    quality.set(title="Validation", xlabel="epoch")
    for axes in (losses, quality):
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=120)


def plot_confusion(confusion: np.ndarray, classes: Sequence[str], path: Path) -> None:
    """Draws into the PNG file `path` what the pixels of each true class were taken for.

    Args:
      confusion: Counts [C, C], true classes in rows.
      classes: Name of each class; left out where they are too many to be read.
      path: Overwritten.
    """
    from matplotlib.colors import PowerNorm  # Slow to import, and only needed here.
    from matplotlib.figure import Figure

    count, names = len(classes), [_shortened(name) for name in classes]
    pixels = confusion.sum(axis=1, keepdims=True)
    percent = 100 * np.ma.divide(np.ma.asarray(confusion), np.ma.masked_equal(pixels, 0))
    cell = 0.62 if count <= MOST_NUMBERED else 0.27 if count <= MOST_NAMED else 0.05  # In inches.
    side = max(cell * count, 2.5)
    figure = Figure(figsize=(side, side))
    axes = figure.add_axes((0, 0, 1, 1))  # Labels are outside; saving makes room for them.
    # Below a power of 1, a few per cent of confusion are seen beside a strong diagonal.
    scale = PowerNorm(0.5, 0, 100)
    image = axes.imshow(percent, "Blues", norm=scale, interpolation="nearest")
    empty = " (grey: none)" if (pixels == 0).any() else ""
    axes.set(xlabel="predicted class", ylabel="true class" + empty, facecolor="#e4e4e4")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if count <= MOST_NAMED:
        # A name may have dollar signs, which are no formula.
        axes.set_xticks(range(count), names, rotation=90 if count > 2 else 0, parse_math=False)
        axes.set_yticks(range(count), names, parse_math=False)
    if count <= MOST_NUMBERED:
        for (row, column), share in np.ma.ndenumerate(percent):
            if share >= 0.05:
                ink = "white" if scale(share) > 0.6 else "#24303c"
                style = {"ha": "center", "va": "center", "fontsize": 9, "color": ink}
                axes.text(column, row, f"{share:.1f}", style)
    bar = figure.colorbar(
        image, cax=axes.inset_axes((1.02, 0, 0.03, 1)), ticks=[0, 1, 5, 10, 25, 50, 75, 100]
    )
    bar.set_label("% of the true class' pixels")
    bar.outline.set_visible(False)
    figure.savefig(path, dpi=120, bbox_inches="tight", pad_inches=0.15)


def plot_reliability(found: Mapping[str, Calibration], classes: int, path: Path) -> None:
    """Draws into the PNG file `path` how often what has a probability comes true; and of two
    classes, what Dice other thresholds would give.

    Args:
      found: Of each network, by its label.
      classes: Number of classes.
      path: Overwritten.
    """
    from matplotlib.figure import Figure  # Slow to import, and only needed here.
    from matplotlib.ticker import LogLocator, NullFormatter

    two = classes == 2
    figure = Figure(figsize=(10 if two else 5, 5), layout="constrained")
    panels = figure.subplots(2, 2 if two else 1, height_ratios=(3, 1), squeeze=False, sharex="col")
    curve, pixels = panels[:, 0]
    curve.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle="--")
    for label, each in found.items():
        some = each.pixels > 0
        given = each.probability[some] / each.pixels[some]
        curve.plot(
            given,
            each.occurred[some] / each.pixels[some],
            marker="o",
            ms=4,
            label=label,
            clip_on=False,
        )
        pixels.stairs(each.pixels / each.pixels.sum(), np.linspace(0, 1, len(each.pixels) + 1))
    event = "foreground" if two else "right"
    curve.set(title="Reliability", ylabel=f"share that is {event}", xlim=(0, 1), ylim=(0, 1))
    pixels.set(
        xlabel=f"probability of {'the foreground' if two else 'the predicted class'}",
        ylabel="pixels",
        yscale="log",
    )
    pixels.yaxis.set_major_locator(LogLocator(numticks=4))
    pixels.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g} %")
    pixels.yaxis.set_minor_formatter(NullFormatter())
    if two:
        figure.delaxes(panels[1, 1])
        figure.delaxes(panels[0, 1])
        dice = figure.add_subplot(panels[0, 0].get_gridspec()[:, 1])
        heights: list[float] = []
        for label, each in found.items():
            values, line = dice_by_threshold(each.levels)
            best = best_threshold(each.levels)
            (drawn,) = dice.plot(values, line, label=label)
            dice.plot(*best, marker="o", color=drawn.get_color())
            heights += [best.dice, line[len(line) // 2]]  # And at 0.5.
        dice.axvline(0.5, color="0.6", linewidth=1, linestyle="--")
        dice.set(title="Dice by threshold", xlabel="threshold", xlim=(0, 1))
        room = max(0.05, (max(heights) - min(heights)) / 4)
        dice.set_ylim(max(0, min(heights) - room), min(1, max(heights) + room / 4))
    for axes in figure.axes:
        axes.grid(alpha=0.3)
    if len(found) > 1:
        figure.axes[-1 if two else 0].legend()
    figure.savefig(path, dpi=120)


def _shortened(name: str) -> str:
    return name if len(name) <= 20 else name[:19] + "…"

"""Pictures of a run: predictions beside the truth, and the curves."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

INK = (232, 234, 238)
PAPER = (18, 20, 26)
WRONG = (255, 64, 88)
Palette = Sequence[tuple[int, int, int]]


def overlay(image: np.ndarray, mask: np.ndarray, palette: Palette, alpha: float = 0.55):
    """The image with every class but the background tinted in its colour.

    Args:
      image: uint8 [H, W, 3].
      mask: Class ids [H, W].
      palette: RGB colour of each class.
      alpha: Opacity of the tint.

    Returns:
      uint8 [H, W, 3].
    """
    colours = np.asarray(palette, np.float32)[mask]
    tinted = (1 - alpha) * image + alpha * colours
    return np.where(mask[..., None] > 0, tinted, image * 0.6).astype(np.uint8)


def prediction_panel(
    images: np.ndarray,
    truth: np.ndarray,
    predicted: np.ndarray,
    palette: Palette,
    classes: Sequence[str],
    title: str,
) -> Image.Image:
    """A row for each sample: image, truth, prediction, and the pixels that are wrong.

    Args:
      images: uint8 [N, H, W, 3].
      truth: Class ids [N, H, W].
      predicted: Class ids [N, H, W].
      palette: RGB colour of each class.
      classes: Name of each class.
      title: Written above.
    """
    height, width = truth.shape[1:]
    scale = max(1, round(240 / width))
    cell_h, cell_w, gap, top, foot = height * scale, width * scale, 8, 62, 34
    columns = ("image", "truth", "prediction", "mistakes")
    sheet_w = len(columns) * (cell_w + gap) + gap
    sheet = Image.new("RGB", (sheet_w, top + len(images) * (cell_h + gap) + foot), PAPER)
    draw = ImageDraw.Draw(sheet)
    small, large = ImageFont.load_default(14), ImageFont.load_default(18)
    draw.text((gap, 8), title, INK, large)
    for c, name in enumerate(columns):
        draw.text((gap + c * (cell_w + gap), 38), name, INK, small)
    for r, (image, true, guess) in enumerate(zip(images, truth, predicted, strict=True)):
        wrong = (true != guess).astype(int)
        cells = (
            image,
            overlay(image, true, palette),
            overlay(image, guess, palette),
            overlay(image, wrong, (palette[0], WRONG), alpha=1.0),
        )
        for c, cell in enumerate(cells):
            picture = Image.fromarray(cell).resize((cell_w, cell_h), Image.Resampling.NEAREST)
            sheet.paste(picture, (gap + c * (cell_w + gap), top + r * (cell_h + gap)))
    _legend(draw, palette, classes, gap, sheet.height - foot + 8, small)
    return sheet


def _legend(
    draw: ImageDraw.ImageDraw, palette: Palette, classes: Sequence[str], x: int, y: int, font: Any
) -> None:
    entries = [*zip(palette[1:], classes[1:], strict=True), (WRONG, "wrong")]
    for colour, name in entries:
        draw.rectangle((x, y + 3, x + 12, y + 15), fill=colour)
        draw.text((x + 18, y), name, INK, font)
        x += 18 + int(draw.textlength(name, font=font)) + 20


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

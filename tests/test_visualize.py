"""Pictures of a run: every cell shows what its column says, pixel for pixel."""

import colorsys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unet_jax.visualize import WRONG, overlay, plot_curves, prediction_panel

PALETTE = ((24, 28, 36), (255, 176, 32), (40, 120, 255))
CLASSES = ("background", "car", "bus")
COLUMNS = ("image", "truth", "prediction", "mistakes")
GAP, TOP = 8, 62  # Of the panel: between cells, and above the first.


def samples(count: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images, masks, and predictions that are wrong in about a third of the pixels."""
    rng = np.random.default_rng(0)
    # No channel can be mistaken for `WRONG` or the palette.
    images = rng.integers(60, 200, (count, height, width, 3), dtype=np.uint8)
    truth = rng.integers(0, 3, (count, height, width), dtype=np.uint8)
    wrong = rng.random(truth.shape) < 0.3
    predicted = np.where(wrong, (truth + rng.integers(1, 3, truth.shape)) % 3, truth)
    return images, truth, predicted.astype(np.int32)


def cell(panel: Image.Image, row: int, column: int, height: int, width: int) -> np.ndarray:
    """A cell at the size of its sample, after a check that it is enlarged by whole pixels."""
    scale = (panel.width - GAP) // len(COLUMNS) - GAP
    assert scale % width == 0
    scale //= width
    left, top = GAP + column * (width * scale + GAP), TOP + row * (height * scale + GAP)
    box = (left, top, left + width * scale, top + height * scale)
    large = np.asarray(panel.crop(box))
    small = large[scale // 2 :: scale, scale // 2 :: scale]
    np.testing.assert_array_equal(large, small.repeat(scale, 0).repeat(scale, 1))
    return small


def tinted(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """What `overlay` promises, one pixel after another."""
    expected = np.empty(image.shape)
    for place in np.ndindex(*mask.shape):
        if mask[place]:
            expected[place] = 0.45 * image[place] + 0.55 * np.array(PALETTE[mask[place]])
        else:
            expected[place] = 0.6 * image[place]
    return expected


@pytest.mark.parametrize(("count", "height", "width"), [(3, 16, 24), (1, 9, 250), (2, 40, 17)])
def test_panel_cells(count: int, height: int, width: int):
    images, truth, predicted = samples(count, height, width)
    panel = prediction_panel(images, truth, predicted, PALETTE, CLASSES, "epoch 1")
    for row in range(count):
        cells = [cell(panel, row, column, height, width) for column in range(len(COLUMNS))]
        np.testing.assert_array_equal(cells[0], images[row])
        for shown, mask in ((cells[1], truth[row]), (cells[2], predicted[row])):
            # A colour is cut to a whole number: up to one below.
            np.testing.assert_allclose(shown, tinted(images[row], mask) - 0.5, rtol=0, atol=0.51)
        wrong = truth[row] != predicted[row]
        np.testing.assert_array_equal((cells[3] == WRONG).all(axis=-1), wrong)
        dark = 0.6 * images[row][~wrong]
        np.testing.assert_allclose(cells[3][~wrong], dark - 0.5, rtol=0, atol=0.51)


def test_a_perfect_prediction_shows_no_mistake():
    images, truth, _ = samples(1, 16, 24)
    panel = prediction_panel(images, truth, truth, PALETTE, CLASSES, "")
    assert not (cell(panel, 0, 3, 16, 24) == WRONG).all(axis=-1).any()


def test_rows_need_as_many_masks_as_images():
    images, truth, predicted = samples(2, 8, 8)
    with pytest.raises(ValueError, match="zip"):
        prediction_panel(images, truth, predicted[:1], PALETTE, CLASSES, "")


def test_legend_names_every_class_but_the_background():
    images, truth, predicted = samples(1, 16, 24)
    panel = prediction_panel(images, truth, predicted, PALETTE, CLASSES, "")
    legend = np.asarray(panel)[-30:].reshape(-1, 3)
    colours = {tuple(int(v) for v in colour) for colour in np.unique(legend, axis=0)}
    assert {*PALETTE[1:], WRONG} <= colours
    assert PALETTE[0] not in colours


def test_overlay_only_darkens_the_background():
    image = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)
    mask = np.zeros(image.shape[:2], np.uint8)
    mask[:, 10:] = 1
    shown = overlay(image, mask, PALETTE)
    for before, after in zip(image[mask == 0], shown[mask == 0], strict=True):
        hue, _, value = colorsys.rgb_to_hsv(*before.tolist())
        new_hue, _, new_value = colorsys.rgb_to_hsv(*after.tolist())
        assert new_value < value
        # Hue is a sixth of (middle - least) / (most - least), and cutting to whole numbers moves
        # either difference by less than 1.
        turn = abs(hue - new_hue)
        assert min(turn, 1 - turn) <= 2 / 6 / max(np.ptp(after), 1)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_overlay_blends_by_alpha(alpha: float):
    image = np.full((2, 3, 3), 100, np.uint8)
    mask = np.array([[0, 1, 2], [2, 1, 0]])
    shown = overlay(image, mask, PALETTE, alpha)
    assert shown.dtype == np.uint8
    for place in np.ndindex(2, 3):
        colour = np.array(PALETTE[mask[place]])
        expected = (1 - alpha) * 100 + alpha * colour if mask[place] else np.full(3, 60)
        # Cut to a whole number, after rounding in single precision.
        np.testing.assert_allclose(shown[place], expected - 0.5, rtol=0, atol=0.51)


def curves(values: Sequence[float], path: Path) -> np.ndarray:
    """The curves of a run whose five scores all take these values, slightly apart."""
    names = ("train_loss", "val_loss", "dice", "iou", "accuracy")
    records = [
        {"epoch": n, **{name: value / (1 + i / 9) for i, name in enumerate(names)}}
        for n, value in enumerate(values, 1)
    ]
    plot_curves(records, path)
    with Image.open(path) as picture:
        assert (picture.format, picture.size) == ("PNG", (1200, 480))
        return np.asarray(picture.convert("RGB"))


@pytest.mark.parametrize("epochs", [1, 2, 12])
def test_curves_are_drawn(epochs: int, tmp_path: Path):
    drawn = curves([1 / n for n in range(1, epochs + 1)], tmp_path / "curves.png")
    legend_alone = curves([float("nan")] * epochs, tmp_path / "nan.png")
    # Matplotlib's first colours: two lines on the left, three on the right.
    for half, lines in ((slice(0, 600), 2), (slice(600, 1200), 3)):
        for colour in ((31, 119, 180), (255, 127, 14), (44, 160, 44))[:lines]:
            dots, in_legend = (
                int((pixels[:, half] == colour).all(axis=-1).sum())
                for pixels in (drawn, legend_alone)
            )
            assert dots > in_legend > 0


def test_curves_are_drawn_over_the_last_ones(tmp_path: Path):
    one = curves([0.5], tmp_path / "curves.png")
    two = curves([0.5, 0.25], tmp_path / "curves.png")
    assert not np.array_equal(one, two)

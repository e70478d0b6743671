"""Pictures of data and runs: every cell shows what it says, pixel for pixel."""

import colorsys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image

from unet_jax.config import Config
from unet_jax.datasets import IGNORED
from unet_jax.launch import Launch
from unet_jax.plots import plot_confusion, plot_curves
from unet_jax.run import Run
from unet_jax.sheet import GAP, LINE, SWATCH
from unet_jax.visualize import WRONG, contact_sheet, overlay, prediction_panel

PALETTE = ((24, 28, 36), (255, 176, 32), (40, 120, 255))
CLASSES = ("background", "car", "bus")
COLUMNS = ("image", "truth", "prediction", "mistakes")
TOP = 2 * GAP + 2 * LINE  # Of a panel's first row.
MANY = [[1 + n, 254 - n, 7 * n % 256] for n in range(150)]


def samples(count: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images, masks of which a tenth is ignored, and predictions, a third of them wrong."""
    rng = np.random.default_rng(0)
    # No channel can be mistaken for `WRONG` or the palette.
    images = rng.integers(60, 200, (count, height, width, 3), dtype=np.uint8)
    truth = rng.integers(0, 3, (count, height, width), dtype=np.uint8)
    wrong = rng.random(truth.shape) < 0.3
    predicted = np.where(wrong, (truth + rng.integers(1, 3, truth.shape)) % 3, truth)
    truth[rng.random(truth.shape) < 0.1] = IGNORED
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


def tinted(image: np.ndarray, mask: np.ndarray, alpha: float = 0.5) -> np.ndarray:
    """What `overlay` promises where nothing is ignored, one pixel after another."""
    expected = np.empty(image.shape)
    for place in np.ndindex(*mask.shape):
        if mask[place] != IGNORED:
            expected[place] = (1 - alpha) * image[place] + alpha * np.array(PALETTE[mask[place]])
    return expected


def assert_close(shown: np.ndarray, expected: np.ndarray) -> None:
    """Equal, but that a colour is cut to a whole number: up to one below."""
    np.testing.assert_allclose(shown, expected - 0.5, rtol=0, atol=0.51)


def legend(picture: Image.Image, lines: int = 1) -> set[tuple[int, ...]]:
    """All colours in the last lines of a picture."""
    pixels = np.asarray(picture)[-lines * LINE - GAP :].reshape(-1, 3)
    return {tuple(colour) for colour in np.unique(pixels, axis=0).tolist()}


# Overlays.


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_overlay_blends_by_alpha(alpha: float):
    (image, *_), (mask, *_), _ = samples(1, 12, 20)
    shown = overlay(image, mask, PALETTE, alpha=alpha)
    assert shown.dtype == np.uint8
    known = mask != IGNORED
    assert_close(shown[known], tinted(image, mask, alpha)[known])


def test_overlay_takes_lists_and_wide_integers():
    (image, *_), (mask, *_), _ = samples(1, 12, 20)
    lists = [list(colour) for colour in PALETTE]
    np.testing.assert_array_equal(
        overlay(image, mask.astype(np.int32), lists), overlay(image, mask, PALETTE)
    )


def test_overlay_hatches_what_is_ignored_in_grey():
    image = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    mask = np.zeros(image.shape[:2], np.uint8)
    mask[:, 12:] = IGNORED
    ignored = overlay(image, mask, PALETTE)[:, 12:]
    assert (ignored == ignored[..., :1]).all()
    light = ignored[..., 0] > 105
    # Light and dark alternate along rows and columns, and are parted by more than the image is.
    assert light.any(axis=0).all()
    assert light.any(axis=1).all()
    assert 0.2 < light.mean() < 0.5
    assert ignored[..., 0][~light].max() <= 94


def test_overlay_only_darkens_under_a_dark_class():
    image = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)
    mask = np.zeros(image.shape[:2], np.uint8)
    mask[:, 10:] = 1
    shown = overlay(image, mask, ((0, 0, 0), *PALETTE[1:]))
    for before, after in zip(image[mask == 0], shown[mask == 0], strict=True):
        hue, _, value = colorsys.rgb_to_hsv(*before.tolist())
        new_hue, _, new_value = colorsys.rgb_to_hsv(*after.tolist())
        assert new_value < value
        # Hue is a sixth of (middle - least) / (most - least), and cutting to whole numbers moves
        # either difference by less than 1.
        turn = abs(hue - new_hue)
        assert min(turn, 1 - turn) <= 2 / 6 / max(np.ptp(after), 1)


def test_a_palette_without_hue_gets_one():
    image = np.full((4, 4, 3), 90, np.uint8)
    mask = np.eye(4, dtype=np.uint8)
    shown = overlay(image, mask, ((0, 0, 0), (255, 255, 255)))
    assert (np.ptp(shown[mask == 1].astype(int), axis=-1) > 50).all()


def test_outlines_run_between_classes_in_the_later_ones_colour():
    image = np.full((5, 6, 3), 100, np.uint8)
    mask = np.zeros((5, 6), np.uint8)
    mask[:, 3:] = 2
    plain, outlined = (overlay(image, mask, PALETTE, outlines=x) for x in (False, True))
    changed = (plain != outlined).any(axis=-1)
    np.testing.assert_array_equal(changed, np.arange(6)[None, :].repeat(5, 0) == 2)
    line = outlined[0, 2].astype(int)
    assert line.argmax() == 2  # Blue, as PALETTE[2] is.
    assert (line > 0.6 * np.array(PALETTE[2])).all()


# Panels.


@pytest.mark.parametrize(("count", "height", "width"), [(3, 16, 24), (1, 9, 250), (2, 40, 17)])
def test_panel_cells(count: int, height: int, width: int):
    images, truth, predicted = samples(count, height, width)
    panel = prediction_panel(images, truth, predicted, PALETTE, CLASSES, "epoch 1")
    for row in range(count):
        cells = [cell(panel, row, column, height, width) for column in range(len(COLUMNS))]
        known = truth[row] != IGNORED
        np.testing.assert_array_equal(cells[0], images[row])
        assert_close(cells[1][known], tinted(images[row], truth[row])[known])
        assert_close(cells[2], tinted(images[row], predicted[row]))
        wrong = (truth[row] != predicted[row]) & known
        np.testing.assert_array_equal((cells[3] == WRONG).all(axis=-1), wrong)
        assert_close(cells[3][known & ~wrong], 0.6 * images[row][known & ~wrong])
        np.testing.assert_array_equal(cells[1][~known], cells[3][~known])


def test_a_perfect_prediction_shows_no_mistake():
    images, truth, _ = samples(1, 16, 24)
    predicted = np.where(truth == IGNORED, 1, truth)
    panel = prediction_panel(images, truth, predicted, PALETTE, CLASSES, "")
    assert not (cell(panel, 0, 3, 16, 24) == WRONG).all(axis=-1).any()


def test_rows_need_as_many_masks_as_images():
    images, truth, predicted = samples(2, 8, 8)
    with pytest.raises(ValueError, match="zip"):
        prediction_panel(images, truth, predicted[:1], PALETTE, CLASSES, "")


def test_legend_names_the_classes_that_occur():
    images, truth, predicted = samples(1, 16, 24)
    truth[truth == 2] = IGNORED
    shown = prediction_panel(images, truth, predicted, PALETTE, CLASSES, "")
    assert {*PALETTE, WRONG} <= legend(shown)  # 2 occurs in the prediction.
    shown = prediction_panel(images, truth, np.zeros_like(truth), PALETTE, CLASSES, "")
    assert {*PALETTE[:2], WRONG} <= legend(shown)
    assert PALETTE[2] not in legend(shown)


def test_legend_of_many_classes_wraps_and_stays_inside():
    images, truth, _ = samples(1, 16, 24)
    names = [f"class number {n}" for n in range(150)]
    truth[0].flat[:150] = range(150)
    shown = prediction_panel(images, truth, truth, MANY, names, "")
    one = prediction_panel(images, truth * 0, truth * 0, MANY, names, "")
    assert shown.width == one.width
    lines = 1 + (shown.height - one.height) // LINE
    assert lines > 10
    assert {tuple(colour) for colour in MANY} <= legend(shown, lines)
    margin = np.asarray(shown)[-lines * LINE :, -GAP:]
    assert (margin == margin[0, 0]).all()


# Contact sheets.


def sheet(count: int, height: int, width: int, names: Sequence[str] = ()) -> Image.Image:
    images, masks, _ = samples(count, height, width)
    names = names or [f"sample {n}" for n in range(count)]
    return contact_sheet(list(images), list(masks), names, PALETTE, CLASSES, "24 of 900")


@pytest.mark.parametrize(
    ("count", "height", "width"), [(24, 96, 128), (5, 300, 20), (1, 7, 200), (24, 64, 64)]
)
def test_contact_sheets_are_of_a_readable_size(count: int, height: int, width: int):
    shown = sheet(count, height, width)
    assert shown.width <= 2400
    assert shown.height <= 2400
    assert {*PALETTE} <= legend(shown, 2)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (96, 128), (300, 20)])
def test_cells_keep_their_shape(height: int, width: int):
    image = np.full((height, width, 3), 200, np.uint8)
    mask = np.zeros((height, width), np.uint8)
    shown = contact_sheet([image], [mask], ["a"], PALETTE, CLASSES, "")
    cell_h = (np.asarray(shown)[:, GAP] == 200).all(axis=-1).sum()
    cell_w = (shown.width - 2 * GAP) // 2
    # Sides are rounded to whole pixels.
    assert cell_w / cell_h == pytest.approx(width / height, rel=0.02)


def test_a_sample_is_shown_as_it_is_and_under_its_mask():
    image = np.full((60, 80, 3), (90, 140, 60), np.uint8)
    mask = np.zeros((60, 80), np.uint8)
    mask[:, 40:] = 2
    shown = np.asarray(contact_sheet([image], [mask], ["a"], PALETTE, CLASSES, ""))
    row = shown[TOP - LINE + 20]
    width = (shown.shape[1] - 2 * GAP) // 2
    assert (row[GAP : GAP + width] == (90, 140, 60)).all()
    over = row[GAP + width : GAP + 2 * width]
    assert_close(over[10], 0.5 * np.array((90, 140, 60)) + 0.5 * np.array(PALETTE[0]))
    assert_close(over[-10], 0.5 * np.array((90, 140, 60)) + 0.5 * np.array(PALETTE[2]))


def test_long_names_are_shortened_to_their_cells():
    short, long = (sheet(2, 60, 80, [name, "b"]) for name in ("a", "a" * 300))
    assert short.size == long.size
    gap = GAP + (short.width - GAP) // 2 - GAP  # Between the two cells.
    pixels = np.asarray(long)[:, gap : gap + GAP]
    np.testing.assert_array_equal(pixels[TOP:], np.asarray(short)[TOP:, gap : gap + GAP])
    assert SWATCH < LINE  # Lines of a legend do not touch.


@pytest.mark.parametrize("size", [(640, 959), (1500, 400), (480, 480)])
def test_large_pictures_are_made_smaller(size: tuple[int, int]):
    panel = prediction_panel(*samples(2, *size), PALETTE, CLASSES, "")
    assert panel.width <= GAP + len(COLUMNS) * (480 + GAP)
    assert panel.height <= TOP + 2 * (480 + GAP) + 2 * LINE + GAP


# Curves.


def curves(values: Sequence[float], path: Path) -> np.ndarray:
    """The curves of a run whose five scores all take these values, slightly apart."""
    names = ("train_loss", "val_loss", "dice", "iou", "accuracy")
    records = [
        {"epoch": n, **{name: value / (1 + i / 9) for i, name in enumerate(names)}}
        for n, value in enumerate(values, 1)
    ]
    plot_curves(records, "dice", path)
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


# Confusion matrices.


def confusion(counts: object, names: Sequence[str], path: Path) -> np.ndarray:
    plot_confusion(np.array(counts), names, path)
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def blue(percent: float) -> tuple[int, ...]:
    """Matplotlib's Blues, at the square root of a share: 0 is the lightest, 100 % the darkest."""
    return colormaps["Blues"]((percent / 100) ** 0.5, bytes=True)[:3]


def places(drawn: np.ndarray, colour: Sequence[int]) -> np.ndarray:
    """(row, column) of each pixel of this colour, left of the colour bar."""
    return np.argwhere((drawn[:, : int(0.8 * drawn.shape[1])] == colour).all(axis=-1))


def test_rows_are_the_truth_and_add_up_to_100_percent(tmp_path: Path):
    # Shares of 60, 30 and 10 %; of 0, 80 and 20 %; and none of the last class.
    counts = [[600, 300, 100], [0, 8, 2], [0, 0, 0]]
    drawn = confusion(counts, CLASSES, tmp_path / "confusion.png")
    cells = {60: (0, 0), 30: (0, 1), 10: (0, 2), 0: (1, 0), 80: (1, 1), 20: (1, 2)}
    first, last = (np.median(places(drawn, blue(share)), axis=0) for share in (60, 20))
    step = (last - first) / (1, 2)
    assert (step > 60).all()
    for share, cell in cells.items():
        pixels = places(drawn, blue(share))
        assert len(pixels) > 0.5 * step.prod()  # The rest is under its number.
        np.testing.assert_allclose(np.median(pixels, axis=0), first + step * cell, atol=3)
    grey = places(drawn, (0xE4, 0xE4, 0xE4))
    assert len(grey) > 2.8 * step.prod()
    np.testing.assert_allclose(np.median(grey, axis=0), first + step * (2, 1), atol=3)


@pytest.mark.parametrize(
    ("classes", "named", "numbered"),
    [(2, True, True), (11, True, True), (31, True, False), (150, False, False)],
)
def test_only_what_can_be_read_is_written(classes: int, named: bool, numbered: bool, tmp_path):
    counts = 9 * np.eye(classes, dtype=int) + 1
    short, long = (
        confusion(counts, [name] * classes, tmp_path / "confusion.png")
        for name in ("x", "a class$ of_this$ name")
    )
    assert (long.shape[1] > short.shape[1] + 50) == named
    assert max(long.shape) < 1500
    assert (len(places(short, (0x24, 0x30, 0x3C))) > 0) == numbered  # The numbers' ink.


def test_the_confusion_kept_is_the_best_epochs(tmp_path: Path):
    run = Run(tmp_path / "run", Config(), Launch(), resume=False)
    drawn = []
    for epoch, dice in enumerate((0.5, 0.7, 0.6, 0.7), 1):
        run.records.append({"epoch": epoch, "dice": dice})
        run.confusion(np.array([[100 - epoch, epoch], [0, 1]]), ("background", "car"))
        drawn.append((run.workdir / "confusion.png").read_bytes())
    run.close()
    first, second, third, fourth = drawn
    assert first != second == third != fourth

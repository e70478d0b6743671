"""What masks mean is seen from the masks themselves, or they are refused, and by name."""

from pathlib import Path

import numpy as np
import pytest
from drawing import (
    BLACK,
    GREEN,
    IDS,
    NATIVE,
    RED,
    WHITE,
    Save,
    bits,
    draw,
    draw_classes,
    levels,
    masks,
    open_folder,
    open_set,
    painted,
    palette,
    real,
    refused_folder,
    save_image,
    write_folder,
)
from PIL import Image

from unet_jax.config import DataConfig
from unet_jax.datasets import class_ids

TWO = (["background", "foreground"], [0, 1, 1])
THREE = (["background", "class 1", "class 2"], [0, 1, 2])
LOOKS = {
    "indices": (levels(0, 1, 2), *THREE),
    "indices with void": (levels(255, 0, 1), ["background", "class 1"], [255, 0, 1]),
    "indices with gaps": (levels(0, 2, 3), [*THREE[0], "class 3"], [0, 2, 3]),
    "0 and 1": (levels(0, 1, 1), *TWO),
    "0 and 255": (levels(0, 255, 255), *TWO),
    "1 bit": (bits, *TWO),
    "grey levels": (levels(0, 128, 255), ["level 0", "level 128", "level 255"], [0, 1, 2]),
    "16 bits": (levels(0, 9, 65535, dtype="u2"), ["level 0", "level 9", "level 65535"], [0, 1, 2]),
    "palette": (palette(BLACK, RED, GREEN), *THREE),
    "colours": (painted(RED, BLACK, GREEN), ["#000000", "#00ff00", "#ff0000"], [2, 0, 1]),
    "black and white as RGB": (painted(BLACK, WHITE, BLACK), TWO[0], [0, 1, 0]),
}  # fmt: skip


@pytest.mark.parametrize("look", LOOKS)
def test_what_masks_mean_is_seen(look: str, tmp_path: Path):
    save, classes, ids = LOOKS[look]
    builder = open_folder(write_folder(tmp_path / "data", save=save), tmp_path)
    assert builder.facts.classes == classes
    assert len(builder.facts.palette) == len(classes)
    for name, mask in masks(builder).items():
        np.testing.assert_array_equal(mask, np.array(ids)[IDS[name]])


def test_what_was_seen_is_said_with_how_to_say_otherwise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    builder = open_folder(write_folder(tmp_path / "data", save=levels(0, 255, 0)), tmp_path)
    assert "Masks hold 0 and 255." in builder.facts.note
    assert "--description" in builder.facts.note
    assert builder.facts.note in capsys.readouterr().err


def test_a_palettes_colours_are_kept(tmp_path: Path):
    builder = open_folder(
        write_folder(tmp_path / "data", save=palette(GREEN, RED, BLACK)), tmp_path
    )
    assert builder.facts.palette == [list(GREEN), list(RED), list(BLACK)]


def test_palettes_that_disagree_are_read_by_their_colours(tmp_path: Path):
    data = tmp_path / "data"
    write_folder(data, names="ab", save=palette(BLACK, RED, GREEN))
    write_folder(data, names="c", save=palette(GREEN, BLACK, RED))
    builder = open_folder(data, tmp_path)
    assert builder.facts.classes == ["#000000", "#00ff00", "#ff0000"]
    stored = masks(builder)
    np.testing.assert_array_equal(stored["a"], np.array([0, 2, 1])[IDS["a"]])
    np.testing.assert_array_equal(stored["c"], np.array([1, 0, 2])[IDS["c"]])


def test_one_mask_in_colour_makes_all_of_them_colours(tmp_path: Path):
    data = tmp_path / "data"
    write_folder(data, names="a", save=painted(RED, BLACK, WHITE))
    write_folder(data, names="b", save=levels(0, 255, 0))
    builder = open_folder(data, tmp_path)
    assert builder.facts.classes == ["#000000", "#ff0000", "#ffffff"]
    np.testing.assert_array_equal(masks(builder)["b"], np.array([0, 2, 0])[IDS["b"]])


def test_all_masks_are_looked_at_before_one_is_understood(tmp_path: Path):
    """The first masks hold 0 and 1 only; the last one shows that there are three classes."""
    data = tmp_path / "data"
    write_folder(data, names="ab", save=levels(0, 1, 0))
    write_folder(data, names="c", save=levels(0, 1, 2))
    assert open_folder(data, tmp_path).facts.classes == THREE[0]


@pytest.mark.parametrize("ones", ["a", "ab"])
def test_masks_of_0_and_1_among_masks_of_0_and_255_are_refused(ones: str, tmp_path: Path):
    data = tmp_path / "data"
    write_folder(data, names=ones, save=levels(0, 1, 0))
    write_folder(data, names="bc"[len(ones) - 1 :], save=levels(0, 255, 0))
    message = refused_folder(data, tmp_path)
    first = "b" if ones == "a" else "c"
    for part in ("masks/a.png: 0 and 1", f"masks/{first}.png: 0 and 255", "--description"):
        assert part in message


def test_void_in_some_masks_is_ignored(tmp_path: Path):
    data = tmp_path / "data"
    write_folder(data, names="ab", save=levels(0, 1, 0))
    write_folder(data, names="c", save=levels(0, 1, 255))
    np.testing.assert_array_equal(
        masks(open_folder(data, tmp_path))["c"], np.array([0, 1, 255])[IDS["c"]]
    )


def jpeg(ids: np.ndarray, path: Path) -> None:
    Image.fromarray(ids * np.uint8(100)).save(path, format="jpeg")


def smooth(ids: np.ndarray, path: Path) -> None:
    """Black and white, drawn with antialiasing."""
    grey = Image.fromarray((ids > 0) * np.uint8(255))
    grey.resize((30, 20), Image.Resampling.BILINEAR).resize((NATIVE[1], NATIVE[0]), 2).save(path)


def photograph(ids: np.ndarray, path: Path) -> None:
    save_image(draw(int(ids.sum()))[0], path)


def many_colours(ids: np.ndarray, path: Path) -> None:
    """100 in each mask, others in each."""
    few = draw_classes(0, 100)
    save_image(np.stack([few, few, 100 + few * 0 + np.uint8(ids.sum() % 100)], -1), path)


def many_indices(ids: np.ndarray, path: Path) -> None:
    save_image(draw_classes(int(ids.sum()), 65), path)


def spread_indices(ids: np.ndarray, path: Path) -> None:
    """64 levels in each mask, others in each: too few to be smooth, if there were no other mask."""
    levels = 4 * np.arange(64) + ord(path.stem) - ord("a")
    save_image(levels.astype(np.uint8)[draw_classes(0, 64)], path)


@pytest.mark.parametrize(
    ("save", "reason"),
    [
        pytest.param(jpeg, "masks/a.png: is a JPEG", id="JPEG"),
        pytest.param(smooth, r"masks hold \d+ grey levels, too many to be classes", id="smoothed"),
        pytest.param(smooth, r"  masks/a.png: \d+ grey levels", id="smoothed, which"),
        pytest.param(photograph, "masks/a.png: holds more than 256 colours", id="photograph"),
        pytest.param(many_colours, "masks hold 200 colours, too many", id="many colours"),
        pytest.param(many_colours, "  masks/a.png: 100 colours", id="many colours, which"),
        pytest.param(many_indices, "masks hold 65 grey levels, too many", id="many indices"),
        pytest.param(spread_indices, "masks hold 192 grey levels, too many", id="spread"),
        pytest.param(levels(7, 7, 7), r"grey level 7 and nothing else(.|\n)*masks/a.png", id="7"),
        pytest.param(painted(RED, RED, RED), "the colour #ff0000 and nothing else", id="red"),
        pytest.param(
            levels(-1, 0, 1, dtype="i4"), r"from 0 to 65535:\n  masks/a.tif: -1 to 1", id="negative"
        ),
        pytest.param(
            levels(0, 9, 70000, dtype="i4"), "masks/a.tif: 0 to 70000", id="above 16 bits"
        ),
        pytest.param(levels(0, 1, 2, dtype="f4"), "masks/a.tif: has pixels of .* F", id="floats"),
    ],
)
def test_masks_that_cannot_be_understood(save: Save, reason: str, tmp_path: Path):
    suffix = "tif" if "tif" in reason else "png"  # PNG has no negative values and no fractions.
    data = write_folder(tmp_path / "data", masks=f"masks/{{}}.{suffix}", save=save)
    with pytest.raises(ValueError, match=reason):
        open_folder(data, tmp_path)


def test_grey_masks_all_of_one_class_are_background(tmp_path: Path):
    builder = open_folder(write_folder(tmp_path / "data", save=levels(0, 0, 0)), tmp_path)
    assert builder.facts.classes == TWO[0]
    assert not any(mask.any() for mask in masks(builder).values())


def test_the_number_of_classes_is_known_once_the_set_is_prepared(tmp_path: Path):
    data = write_folder(tmp_path / "data")
    config = DataConfig(dataset="folder", data_dir=data, prepared_dir=tmp_path / "p", size=(8, 8))
    assert list(class_ids(config)) == [0, 1, 2]


@pytest.mark.parametrize(
    ("name", "count", "share"), [("isbi2012", 30, (0.7, 0.85)), ("nuclei", 48, (0.05, 0.4))]
)
def test_published_binary_sets(name: str, count: int, share: tuple[float, float], tmp_path: Path):
    builder = open_set("folder", real(name), tmp_path, (64, 64))
    assert builder.facts.classes == TWO[0]
    assert len(builder.records()) == count
    stored = np.stack([record["mask"] for record in builder.records()])
    assert set(np.unique(stored)) == {0, 1}
    # Membranes are a fifth of an EM section, the cells the rest; nuclei are seldom crowded.
    assert share[0] < stored.mean() < share[1]

"""Prediction from Python: images as they come, masks at their size."""

import dataclasses
import json
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import jax
import numpy as np
import pytest
from jax import lax
from PIL import Image
from predicting import COLOURS, MODEL, NAMES, SIZE, make_predictor, make_trained, photo
from scipy import ndimage

import unet_jax
from parity.torch_predictor import TorchPredictor
from unet_jax.checkpoint import Checkpoints
from unet_jax.config import Config, DataConfig, ModelConfig, TrainConfig, dump
from unet_jax.metrics import predict_classes
from unet_jax.models import build_model
from unet_jax.prediction.predictor import Predictor
from unet_jax.recipe import build_recipe
from unet_jax.weights import Trained, save_weights

NATIVE = (20, 30)
JPEG_NOISE = 5
"""Grey levels by which these JPEGs are off on the mean, at most; turned the wrong way it is 80."""


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return make_predictor()


def logits(trained: Trained, image: np.ndarray) -> Any:
    """The network's, of an image as it is."""
    normal = (image[None].astype(np.float32) / 255 - 0.5) / 0.25
    return build_model(MODEL, trained.num_logits).apply(trained.variables, normal)


def test_at_the_trained_size_the_network_alone_decides(predictor: Predictor):
    image = photo(0, SIZE)
    expected = predict_classes(logits(predictor.trained, image))[0]
    found = predictor.predict(image)
    assert found.mask.dtype == np.uint8
    assert 0.1 < found.mask.mean() < 0.9
    np.testing.assert_array_equal(found.mask, expected)
    assert (found.classes, found.palette) == (NAMES[:2], COLOURS[:2])


def test_the_network_is_traced_for_the_default_device_alone(monkeypatch: pytest.MonkeyPatch):
    predictor = make_predictor()  # Whose weights are made without tracing.
    choices = Mock(side_effect=lax.platform_dependent)
    monkeypatch.setattr(lax, "platform_dependent", choices)
    predictor.network(np.zeros((1, *SIZE, 3), np.uint8))
    choices.assert_not_called()


def test_of_several_classes_the_most_probable_is_taken():
    predictor, image = make_predictor(3), photo(0, SIZE)
    expected = np.asarray(logits(predictor.trained, image)[0])
    found = predictor.predict(image)
    np.testing.assert_array_equal(found.mask, expected.argmax(-1))
    assert len(np.unique(found.mask)) == 3
    assert found.probabilities is not None
    np.testing.assert_allclose(found.probabilities, jax.nn.softmax(expected), atol=1e-6)


def test_probabilities_go_back_to_the_native_size_before_anything_is_decided(predictor: Predictor):
    image = photo(0, (37, 51))
    small = np.asarray(Image.fromarray(image).resize((24, 16), Image.Resampling.BILINEAR))
    chance = predictor.predict(small).probabilities
    assert chance is not None
    # Pillow enlarges bilinearly as PyTorch does, with 32 bits.
    large = Image.fromarray(chance[..., 1]).resize((51, 37), Image.Resampling.BILINEAR)
    found = predictor.predict(image)
    assert found.probabilities is not None
    np.testing.assert_allclose(found.probabilities[..., 1], np.asarray(large), atol=1e-6)
    np.testing.assert_array_equal(found.mask, found.probabilities[..., 1] > 0.5)
    np.testing.assert_allclose(found.probabilities.sum(-1), 1, atol=1e-6)


def test_at_another_size_the_network_sees_that(predictor: Predictor):
    image = photo(0, NATIVE)
    native = predictor.predict(image, size="native")
    np.testing.assert_array_equal(native.mask, predict_classes(logits(predictor.trained, image))[0])
    half = np.asarray(Image.fromarray(image).resize((15, 10), Image.Resampling.BILINEAR))
    small = predictor.predict(half, size="native").probabilities
    resized = predictor.predict(image, size=(10, 15)).probabilities
    assert small is not None
    assert resized is not None
    assert resized.shape == (*NATIVE, 2)
    # Pillow enlarges bilinearly as PyTorch does, with 32 bits.
    large = Image.fromarray(small[..., 1]).resize((30, 20), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(resized[..., 1], np.asarray(large), atol=1e-6)
    assert np.abs(resized - predictor.predict(image).probabilities).max() > 0.01


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (64, 3)])
@pytest.mark.parametrize("how", [{}, {"size": "native"}, {"tile": (8, 8)}], ids=str)
def test_any_size_has_a_mask_of_that_size(
    predictor: Predictor, size: tuple[int, int], how: dict[str, Any]
):
    assert predictor.predict(photo(0, size), **how).mask.shape == size


# One network, one image, and every way that it may come.


def same(predictor: Predictor, image: Any, expected: np.ndarray, **how: Any) -> None:
    """Predicts of an image, native size, what is predicted of its RGB pixels."""
    found = predictor.predict(image, size="native", **how)
    wanted = predictor.predict(expected, size="native")
    assert found.probabilities is not None
    assert wanted.probabilities is not None
    np.testing.assert_array_equal(found.probabilities, wanted.probabilities)


def test_arrays_of_every_form(predictor: Predictor):
    colour = photo(0, NATIVE)
    grey = colour[..., 0]
    of_grey = np.stack([grey] * 3, -1)
    same(predictor, grey, of_grey)
    same(predictor, grey[..., None], of_grey)
    same(predictor, np.concatenate([colour, 255 - grey[..., None]], -1), colour)
    same(predictor, colour.astype(np.uint16) * 257, colour)  # 255 * 257 = 65535.
    same(predictor, grey.astype(np.uint16) * 257, of_grey)
    same(predictor, grey.astype(np.uint16) * 16, of_grey, white=255 * 16)
    same(predictor, colour[::-1, :, ::-1][::-1, :, ::-1], colour)  # Not contiguous.


@pytest.mark.parametrize("kind", ["RGB", "RGBA", "L", "P", "1", "I;16"])
def test_files_and_pillow_images_of_every_mode(predictor: Predictor, kind: str, tmp_path: Path):
    if kind == "I;16":
        image = Image.fromarray(photo(0, NATIVE)[..., 0].astype(np.uint16) * 257)
        expected = np.stack([photo(0, NATIVE)[..., 0]] * 3, -1)
    else:
        image = Image.fromarray(photo(0, NATIVE)).convert(kind)
        if kind == "RGBA":
            image.putalpha(Image.fromarray(photo(1, NATIVE)[..., 0]))
        expected = np.asarray(image.convert("RGB"))
    image.save(tmp_path / "image.png")
    for given in (image, tmp_path / "image.png", str(tmp_path / "image.png")):
        same(predictor, given, expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_masks_are_upright_whatever_the_camera_wrote(
    predictor: Predictor, orientation: int, tmp_path: Path
):
    """EXIF's orientation n says how the stored picture is to be turned; the mask is of that."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = photo(0, NATIVE)
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    turned = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.swapaxes(0, 1),
        6: stored.swapaxes(0, 1)[:, ::-1],
        7: stored.swapaxes(0, 1)[::-1, ::-1],
        8: stored.swapaxes(0, 1)[::-1],
    }[orientation]
    same(predictor, tmp_path / "a.png", turned)
    same(predictor, Image.open(tmp_path / "a.png"), turned)


def test_a_jpeg_on_its_side_has_an_upright_mask_and_overlay(predictor: Predictor, tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(photo(0, (200, 300))).save(
        tmp_path / "a.jpg", exif=exif, quality=95, subsampling=0
    )
    found = predictor.predict(tmp_path / "a.jpg")
    assert found.mask.shape == (300, 200)
    assert found.overlay(alpha=0).size == (200, 300)
    upright = photo(0, (200, 300)).swapaxes(0, 1)[:, ::-1]
    assert np.abs(found.picture.read(None).astype(int) - upright).mean() < JPEG_NOISE


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4), np.float32),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros(4, np.uint8),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_other_arrays_are_refused(predictor: Predictor, array: np.ndarray):
    with pytest.raises(ValueError, match=r"image: an array .* uint8 or uint16 \[H, W\]"):
        predictor.predict(array)


# Averages.


def test_flips_average_over_mirror_images(predictor: Predictor):
    image = photo(0, SIZE)

    def chance(image: np.ndarray, **how: Any) -> np.ndarray:
        found = predictor.predict(image, **how).probabilities
        assert found is not None
        return found

    one = chance(image)
    across, down = chance(image[:, ::-1])[:, ::-1], chance(image[::-1])[::-1]
    both = chance(image[::-1, ::-1])[::-1, ::-1]
    close = {"rtol": 0, "atol": 1e-6}  # A mean of float32.
    np.testing.assert_allclose(chance(image, flips="h"), (one + across) / 2, **close)
    np.testing.assert_allclose(chance(image, flips="v"), (one + down) / 2, **close)
    averaged = chance(image, flips="hv")
    np.testing.assert_allclose(averaged, (one + across + down + both) / 4, **close)
    assert np.abs(averaged - one).max() > 0.01
    # The average does not know which of the mirror images it was shown.
    np.testing.assert_allclose(chance(image[:, ::-1], flips="hv")[:, ::-1], averaged, **close)
    np.testing.assert_allclose(chance(image[::-1], flips="v")[::-1], chance(image, flips="v"))


def test_one_tile_is_the_whole(predictor: Predictor):
    image = photo(0, NATIVE)
    whole, tiled = predictor.predict(image, size="native"), predictor.predict(image, tile=NATIVE)
    np.testing.assert_array_equal(whole.probabilities, tiled.probabilities)  # type: ignore[arg-type]


def test_tiles_give_what_the_whole_image_gives(predictor: Predictor):
    """This network sees at most 10 pixels far: two 3×3 convolutions at full size (2), two at half
    (4) and a pooling (1), two more at full size (2), and the position within a pooling. Tiles start
    at even pixels, as poolings do. So in the middle of each tile, and there in no other's edge, the
    probabilities are those of the whole."""
    image = photo(0, (48, 160))
    whole = predictor.predict(image, size="native").probabilities
    tiled = predictor.predict(image, tile=(48, 64), overlap=0.25).probabilities
    assert whole is not None
    assert tiled is not None
    exact = np.ones(160, bool)
    for edge in (48, 64, 96, 112):  # Tiles start at 0, 48 and 96.
        exact[edge - 10 : edge + 10] = False
    assert exact.sum() == 160 - 2 * 36
    np.testing.assert_allclose(tiled[:, exact], whole[:, exact], rtol=0, atol=1e-5)
    assert np.abs(tiled - whole).max() > 1e-4  # Not elsewhere.


def test_tiles_of_a_given_size_of_the_image(predictor: Predictor):
    image = photo(0, (40, 60))
    small = np.asarray(Image.fromarray(image).resize((30, 20), Image.Resampling.BILINEAR))
    expected = predictor.predict(small, tile=(8, 8)).probabilities
    found = predictor.predict(image, size=(20, 30), tile=(8, 8)).probabilities
    assert expected is not None
    assert found is not None
    enlarged = Image.fromarray(expected[..., 1]).resize((60, 40), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(found[..., 1], np.asarray(enlarged), atol=1e-6)


# What is made of probabilities.


def test_the_threshold_is_what_foreground_is_above(predictor: Predictor):
    image = photo(0)
    chance = predictor.predict(image).probabilities
    assert chance is not None
    for threshold in (0.0, 0.2, 0.9, 1.0):
        mask = predictor.predict(image, threshold=threshold).mask
        np.testing.assert_array_equal(mask, chance[..., 1] > threshold)


def test_nothing_is_kept_that_is_not_asked_for(predictor: Predictor):
    found = predictor.predict(photo(0), probabilities=False)
    assert found.probabilities is None
    np.testing.assert_array_equal(found.mask, predictor.predict(photo(0)).mask)


def test_memory_holds_bands_of_probabilities_not_all_of_them():
    """Of 16 classes all take 77 MB; a row of tiles takes 2.5 MB, and is there a few times; image
    and mask take 4.8 MB. NumPy tells `tracemalloc` of its arrays."""
    names, colours = tuple(map(str, range(16))), tuple((n, n, n) for n in range(16))
    network = build_model(MODEL, 16)
    variables = network.init(jax.random.key(0), np.zeros((1, *SIZE, 3), np.float32))
    many = {"variables": variables, "num_logits": 16, "classes": names, "palette": colours}
    predictor = Predictor(dataclasses.replace(make_trained(), **many))  # type: ignore[arg-type]
    image = np.zeros((2000, 600, 3), np.uint8)
    for how in ({"tile": (64, 600), "overlap": 0.0}, {}):
        predictor.predict(image, probabilities=False, **how)  # Compiled.
        tracemalloc.start()
        found = predictor.predict(image, probabilities=False, **how)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert found.mask.shape == (2000, 600)
        assert peak < 77e6 / 2


def test_small_regions_go(predictor: Predictor):
    image = photo(0, SIZE)
    before, after = predictor.predict(image).mask, predictor.predict(image, min_area=40).mask
    small = np.zeros(SIZE, bool)
    for each in (0, 1):
        found: Any = ndimage.label(before == each)
        labels = found[0]
        small |= (before == each) & (np.bincount(labels.ravel())[labels] < 40)
    assert {*before[small]} == {0, 1}
    np.testing.assert_array_equal(after[~small], before[~small])
    large = np.argwhere(~small)
    for row, column in np.argwhere(small):
        far = np.hypot(*(large - (row, column)).T)
        nearest = large[far == far.min()]  # Of equally near ones any will do.
        assert after[row, column] in before[tuple(nearest.T)]


def test_an_overlay_is_tinted_in_bands_as_in_one(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
):
    found = predictor.predict(photo(0))
    whole = np.asarray(found.overlay())
    monkeypatch.setattr("unet_jax.prediction.prediction.OVERLAID", 3)
    np.testing.assert_array_equal(np.asarray(found.overlay()), whole)
    assert (whole != photo(0)).any()


def test_a_notebook_shows_the_overlay(predictor: Predictor):
    shown = predictor.predict(photo(0))._repr_png_()
    assert shown.startswith(b"\x89PNG")


def test_a_console_shows_a_line_each(predictor: Predictor):
    assert repr(predictor) == "Predictor(plain, 16×24, 2 classes)"
    found = predictor.predict(photo(0))
    mask = np.zeros((2, 5), np.uint8)
    mask[0, :4] = 1
    assert (
        repr(dataclasses.replace(found, mask=mask))
        == "Prediction(2×5: background 60.0%, car 40.0%)"
    )
    names, colours = tuple("abcdefgh"), ((0, 0, 0),) * 8
    mask = np.repeat(np.arange(8), (1, 2, 3, 4, 5, 6, 7, 72)).astype(np.uint8).reshape(10, 10)
    many = dataclasses.replace(found, mask=mask, classes=names, palette=colours)
    assert repr(many) == "Prediction(10×10: h 72.0%, g 7.0%, f 6.0%, e 5.0%, d 4.0%, 3 more)"


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"tile": (1, 8)}, "tile: 1×8 is too small; this network needs 2×2"),
        ({"overlap": 0.3}, r"overlap: 0\.3 needs a tile"),
        ({"tile": (8, 8), "overlap": 1.0}, "overlap: .* less than 1"),
        ({"threshold": 1.5}, "threshold: .* less than or equal to 1"),
        ({"flips": "x"}, "flips: .*'none', 'h', 'v' or 'hv'"),
        ({"size": "12"}, "'12' is not a height and a width in pixels, as in 320x480"),
        ({"size": (0, 8)}, "size"),
        ({"min_area": -1}, "min_area"),
    ],
)
def test_settings_out_of_range_are_named(predictor: Predictor, how: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        predictor.predict(photo(0), **how)


@pytest.mark.parametrize("norm", ["none", "group"])
@pytest.mark.parametrize("framework", [Predictor, TorchPredictor])
def test_weights_in_float16_predict_as_their_float32_copies(framework: Any, norm: Any):
    """Of 90,000 pixels, a share is 1 / 90,000, which float16 has no normal number for."""
    options: Any = {"groups": 2} if norm == "group" else {}
    model = ModelConfig(architecture="plain", channels=(4,), norm=norm, **options)  # type: ignore[arg-type]
    image = photo(0, (300, 300))
    given = build_model(model, 1).init(jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32))
    half = jax.tree.map(lambda leaf: np.asarray(leaf, np.float16), dict(given))
    whole = jax.tree.map(lambda leaf: leaf.astype(np.float32), half)
    found = [
        framework(make_trained(model=model, variables=variables)).predict(image, size="native")
        for variables in (half, whole)
    ]
    np.testing.assert_array_equal(found[0].probabilities, found[1].probabilities)
    assert found[0].probabilities.dtype == np.float32
    assert found[0].probabilities.std() > 1e-3


def test_a_threshold_needs_two_classes():
    with pytest.raises(ValueError, match=r"threshold: 0\.4 needs two classes, and there are 3"):
        make_predictor(3).predict(photo(0), threshold=0.4)


# Where networks come from.

CONFIG = Config(
    data=DataConfig(size=SIZE, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
    model=MODEL,
    train=TrainConfig(ema_decay=0.5),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose first state is the best, and whose weights are the step's number."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "config.yaml").write_text(dump(CONFIG))
    classes = {"classes": NAMES[:2], "palette": COLOURS[:2]}
    (folder / "classes.json").write_text(json.dumps(classes))
    recipe = build_recipe(CONFIG, num_classes=1, classes=2, class_weights=None, steps_per_epoch=1)
    state = recipe.init(jax.random.key(0), SIZE)
    checkpoints = Checkpoints(folder / "checkpoints", "dice", keep=2)
    for step, dice in ((1, 0.9), (2, 0.5)):
        params = jax.tree.map(lambda leaf, step=step: 0 * leaf + step, state.params)
        ema = jax.tree.map(lambda leaf, step=step: 0 * leaf + 10 * step, state.params)
        saved = state.replace(step=state.step + step, params=params, ema=ema)
        checkpoints.save(saved, {}, {"dice": dice})
    checkpoints.close()
    return folder


@pytest.mark.parametrize(
    ("how", "value"),
    [({}, 10), ({"ema": False}, 1), ({"last": True}, 20), ({"last": True, "ema": False}, 2)],
    ids=str,
)
def test_a_run_gives_its_best_averaged_weights(run: Path, how: dict[str, Any], value: float):
    trained = unet_jax.load(run, **how).trained
    leaves = jax.tree.leaves(trained.variables)
    assert len(leaves) > 5
    assert all((leaf == value).all() for leaf in leaves)
    assert (trained.classes, trained.palette) == (NAMES[:2], COLOURS[:2])
    assert (trained.size, trained.mean, trained.std) == (SIZE, (0.5,) * 3, (0.25,) * 3)
    assert trained.facts["run"] == run.name  # No path of this machine.
    assert trained.facts["ema"] is how.get("ema", True)
    assert trained.facts["step"] == (2 if how.get("last") else 1)


def test_a_file_gives_what_was_written(tmp_path: Path):
    trained = make_trained()
    save_weights(trained, tmp_path / "model.safetensors")
    found = unet_jax.load(str(tmp_path / "model.safetensors")).predict(photo(0)).mask
    np.testing.assert_array_equal(found, Predictor(trained).predict(photo(0)).mask)
    with pytest.raises(ValueError, match="one set of weights; last and ema are for runs"):
        unet_jax.load(tmp_path / "model.safetensors", last=True)


def empty(folder: Path, **files: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)
    return folder


def test_what_is_no_trained_network_is_refused_by_name(tmp_path: Path):
    def refused(place: Path, message: str, **how: Any) -> None:
        with pytest.raises(ValueError, match=message) as caught:
            unet_jax.load(place, **how)
        assert str(place) in str(caught.value)
        assert "\n" not in str(caught.value)

    refused(tmp_path / "nowhere", "there is no such run or file")
    refused(tmp_path, r"not a run \(no config.yaml\)")
    (tmp_path / "model.pth").write_bytes(b"PK")
    refused(tmp_path / "model.pth", r"scripts/convert_weights.py turns it into a file")
    (tmp_path / "model.safetensors").write_bytes(b"PK")
    refused(tmp_path / "model.safetensors", "not a safetensors file, or damaged")
    run = empty(tmp_path / "run", config_yaml=dump(CONFIG))
    refused(run, r"no classes\.json.*run again with --resume --workdir")
    empty(run, classes_json="{}")
    refused(run, r"classes\.json: damaged")
    empty(run, classes_json=json.dumps({"classes": NAMES[:2], "palette": COLOURS[:2]}))
    refused(run, r"no state has been validated yet; the last one can be had \(--last\)")
    refused(run, "nothing has been saved yet", last=True)
    empty(run / "checkpoints", **{"00000001_pt": ""})
    refused(run, r"a run of PyTorch .* scripts/convert_weights.py")


def test_the_package_itself_loads_nothing():
    code = "import sys, unet_jax; print(*sys.modules); unet_jax.load; print('jax' in sys.modules)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    before, after = done.stdout.splitlines()
    assert "unet_jax" in before.split()
    assert not {"jax", "numpy", "unet_jax.config"} & set(before.split())
    assert after == "True"

"""Augmentation: what is drawn, and that both frameworks make the same pixels of it."""

import cmath
import colorsys
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
import pytest
import torch
from drawing import identity
from PIL import Image

import unet_jax.augment
import unet_torch_ref.augment
from parity.components.augmentation import (
    ALL,
    COLOURING,
    LIMITS,
    MEAN_STD,
    MOVING,
    OFF,
    OPTIONS,
    draw_many,
    random_batch,
)
from parity.trajectory import train_both
from unet_jax import draws
from unet_jax.batch import IGNORED, Batch
from unet_jax.config import AugmentConfig, Config, ModelConfig, OptimConfig
from unet_jax.draws import ONE_PIXEL, affine, draw, geometric, photometric
from unet_torch_ref.batch import to_tensors

MANY = 2000
"""Draws: what comes once in 20 is missing with odds of 1e-45."""

FRAMEWORKS = pytest.mark.parametrize("framework", ["jax", "torch"])
PRECISIONS = pytest.mark.parametrize("precision", ["float32", "float64"])


jitted_inputs = jax.jit(unet_jax.augment.inputs_and_targets, static_argnums=(1, 2, 3, 4))
jitted_colour = jax.jit(unet_jax.augment.colour)
jitted_warp = jax.jit(unet_jax.augment.warp, static_argnums=2)
jitted_mask = jax.jit(unet_jax.augment.warp_mask, static_argnums=(2, 3))


def run(
    framework: str,
    batch: Batch,
    precision: str,
    fill: int = IGNORED,
    size: tuple[int, int] | None = None,
) -> list[np.ndarray]:
    """Image [B, H, W, C] and mask [B, H, W]."""
    if framework == "jax":
        with jax.enable_x64(precision == "float64"):
            return [np.asarray(a) for a in jitted_inputs(batch, MEAN_STD, precision, fill, size)]
    image, mask = unet_torch_ref.augment.inputs_and_targets(
        to_tensors(batch), MEAN_STD, getattr(torch, precision), fill, size
    )
    assert image.is_contiguous(memory_format=torch.channels_last)
    return [image.permute(0, 2, 3, 1).numpy(), mask.numpy()]


def warp(
    framework: str,
    image: np.ndarray,
    geometry: np.ndarray,
    size: tuple[int, int] | None = None,
) -> np.ndarray:
    """[H, W, C], warped alone."""
    if framework == "jax":
        with jax.enable_x64(image.dtype == np.float64):
            return np.asarray(jitted_warp(image[None], geometry[None], size))[0]
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None]
    warped = unet_torch_ref.augment.warp(tensor, torch.from_numpy(geometry[None]), size)
    return warped[0].permute(1, 2, 0).numpy()


def warp_mask(
    framework: str,
    mask: np.ndarray,
    geometry: np.ndarray,
    fill: int,
    size: tuple[int, int] | None = None,
) -> np.ndarray:
    """[H, W], warped alone."""
    if framework == "jax":
        return np.asarray(jitted_mask(mask[None], geometry[None], fill, size))[0]
    tensors = torch.from_numpy(mask[None]), torch.from_numpy(geometry[None])
    return unet_torch_ref.augment.warp_mask(*tensors, fill, size)[0].numpy()


def recolour(framework: str, image: np.ndarray, factors: np.ndarray) -> np.ndarray:
    if framework == "jax":
        with jax.enable_x64(image.dtype == np.float64):
            return np.asarray(jitted_colour(image, factors))
    tensors = torch.from_numpy(image), torch.from_numpy(factors)
    return unet_torch_ref.augment.colour(*tensors).numpy()


def source(geometry: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """x and y that each output pixel is taken from, [2, H, W], in exact arithmetic."""
    y, x = np.mgrid[: size[0], : size[1]]
    return np.tensordot(geometry.astype(np.int64), np.stack([x, y, np.ones_like(x)]), 1) / ONE_PIXEL


# Both frameworks.


@pytest.mark.parametrize("size", [(13, 19), (24, 17)], ids=str)
@PRECISIONS
@pytest.mark.parametrize("option", OPTIONS)
def test_both_frameworks_make_the_same_pixels(option: str, precision: str, size: tuple[int, int]):
    batch = random_batch(OPTIONS[option], size)
    ours, theirs = (run(framework, batch, precision) for framework in ("jax", "torch"))
    assert ours[0].dtype == theirs[0].dtype == precision
    np.testing.assert_allclose(ours[0], theirs[0], rtol=0, atol=LIMITS[precision])
    assert ours[1].dtype == theirs[1].dtype == np.uint8
    assert np.array_equal(ours[1], theirs[1])
    plain = run("jax", batch._replace(geometry=None, colour=None), precision)
    assert not np.array_equal(ours[0], plain[0]), "nothing was changed"
    assert np.array_equal(ours[1], plain[1]) == (option in COLOURING)


OFF_TO_ALL = {"whole": AugmentConfig(**OFF), **OPTIONS}


@pytest.mark.parametrize(
    ("stored", "size"), [((25, 37), (13, 19)), ((24, 34), (24, 17))], ids=["odd", "one side"]
)
@PRECISIONS
@pytest.mark.parametrize("option", ["whole", "crop", "all"])
def test_both_frameworks_make_the_same_pixels_of_larger_ones(option, precision, stored, size):
    batch = random_batch(OFF_TO_ALL[option], stored, output=size)
    ours, theirs = (run(framework, batch, precision, 7, size) for framework in ("jax", "torch"))
    assert ours[0].shape == theirs[0].shape == (16, *size, 3)
    np.testing.assert_allclose(ours[0], theirs[0], rtol=0, atol=LIMITS[precision])
    assert ours[1].dtype == theirs[1].dtype == np.uint8
    assert ours[1].shape == (16, *size)
    assert np.array_equal(ours[1], theirs[1])
    assert (7 in ours[1]) == (option == "all"), "the whole picture and crops show nothing outside"


@FRAMEWORKS
def test_a_size_that_is_the_stored_one_changes_no_bit(framework: str):
    batch = random_batch(OPTIONS["all"], (13, 19), output=(13, 19))
    drawn = draw_many(OPTIONS["all"], 16, size=(13, 19), native=(300, 200))
    assert np.array_equal(batch.geometry, [geometry for geometry, _ in drawn])  # type: ignore[arg-type]
    said, unsaid = (run(framework, batch, "float32", 7, size) for size in ((13, 19), None))
    for ours, expected in zip(said, unsaid, strict=True):
        assert np.array_equal(ours, expected)


@pytest.mark.parametrize("size", [(12, 17), (1, 1)], ids=str)
@PRECISIONS
@FRAMEWORKS
def test_half_of_the_stored_size_is_the_mean_of_every_four_pixels(framework, precision, size):
    height, width = size
    rng = np.random.default_rng(0)
    # Whole numbers below 256 have exact means of four.
    image = rng.integers(0, 256, (2 * height, 2 * width, 3)).astype(precision)
    mask = rng.integers(0, 5, (2 * height, 2 * width), np.uint8)
    for native in ((1280, 1918), size, (7, 3)):
        geometry = affine(size, native, stored=mask.shape)
        assert geometry.tolist() == [[131072, 0, 32768], [0, 131072, 32768]]  # 2 x + 1/2.
        blocks = image.reshape(height, 2, width, 2, 3)
        assert np.array_equal(warp(framework, image, geometry, size), blocks.mean((1, 3)))
        nearest = Image.fromarray(mask).resize(size[::-1], Image.Resampling.NEAREST)
        assert np.array_equal(warp_mask(framework, mask, geometry, 7, size), np.asarray(nearest))


# No even sides: where a point is half-way between pixels, Pillow's rounding decides.
@pytest.mark.parametrize("stored", [(13, 19), (17, 37), (25, 21)], ids=str)
@FRAMEWORKS
def test_the_whole_picture_is_sampled_as_by_pillow(framework: str, stored: tuple[int, int]):
    size, extent = (13, 19), (0, 0, *stored[::-1])
    levels = np.random.default_rng(0).integers(0, 256, stored)
    geometry = affine(size, (30, 20), stored=stored)
    # Without antialiasing, as opposed to `resize`.
    way = {"size": size[::-1], "method": Image.Transform.EXTENT, "data": extent}
    image, mask = Image.fromarray(levels.astype("f4")), Image.fromarray(levels.astype(np.uint8))
    expected = image.transform(**way, resample=Image.Resampling.BILINEAR)
    shrunk = warp(framework, levels[..., None].astype(float), geometry, size)[..., 0]
    # A step's rounding, half of 1/65536 pixel, 9 times from the middle, for 255 levels a pixel and
    # on both axes; and float32.
    np.testing.assert_allclose(shrunk, np.asarray(expected), rtol=0, atol=0.05)
    nearest = np.asarray(mask.transform(**way, resample=Image.Resampling.NEAREST))
    taken = warp_mask(framework, levels.astype(np.uint8), geometry, 7, size)
    assert np.array_equal(taken, nearest)


def test_whole_steps_on_augmented_batches_agree(x64):
    config = Config(
        augment=OPTIONS["all"],
        model=ModelConfig(architecture="plain", channels=(4,), norm="none"),
        optim=OptimConfig(warmup=0, learning_rate=0.01),
    )
    batch = random_batch(config.augment, (13, 19), 4)
    losses = train_both(config, [batch] * 3, ("ground", "car", "tree"), torch.float64)
    assert losses.difference < 1e-12  # Three steps of sums of some thousand roundings of 1e-16.
    assert len(set(losses.jax.losses)) == 3


@PRECISIONS
@FRAMEWORKS
def test_without_draws_images_are_only_normalised(framework: str, precision: str):
    batch = random_batch(OPTIONS["all"], (13, 19))._replace(geometry=None, colour=None)
    image, mask = run(framework, batch, precision)
    mean, std = (np.array(values, precision) for values in MEAN_STD)
    expected = (batch.image.astype(precision) / 255 - mean) / std
    # Compiled, a division by a constant may become a product: a rounding or two.
    np.testing.assert_allclose(image, expected, rtol=0, atol=20 * float(np.finfo(precision).eps))
    assert np.array_equal(mask, batch.mask)


@PRECISIONS
@FRAMEWORKS
@pytest.mark.parametrize("size", [(13, 19), (1, 1)], ids=str)
def test_the_identity_changes_no_bit(framework: str, precision: str, size: tuple[int, int]):
    batch = random_batch(AugmentConfig(**OFF), size, 4)
    geometry, factors = identity()
    assert np.array_equal(batch.geometry, [geometry] * 4)  # type: ignore[arg-type]
    assert np.array_equal(batch.colour, [factors] * 4)  # type: ignore[arg-type]
    image = (batch.image / 255).astype(precision)
    assert np.array_equal(recolour(framework, image, np.stack([factors] * 4)), image)
    normalised = (image[0] - 0.45) / 0.22
    assert np.array_equal(warp(framework, normalised, geometry), normalised)
    assert np.array_equal(warp_mask(framework, batch.mask[0], geometry, 7), batch.mask[0])


# Where pixels come from.


def test_fixed_point_of_the_plainest_maps():
    unit = 65536
    assert identity().geometry.tolist() == [[unit, 0, 0], [0, unit, 0]]
    assert identity().geometry.dtype == affine((3, 5), (3, 5)).dtype == np.int32
    # 7 x 10 pixels of a native 1280 x 1918, whose sides are no powers of 2.
    maps = partial(affine, (7, 10), (1280, 1918))
    assert maps().tolist() == [[unit, 0, 0], [0, unit, 0]]
    assert maps(mirrored=True).tolist() == [[-unit, 0, 9 * unit], [0, unit, 0]]
    assert maps(upside_down=True).tolist() == [[unit, 0, 0], [0, -unit, 6 * unit]]
    assert maps(angle=180).tolist() == [[-unit, 0, 9 * unit], [0, -unit, 6 * unit]]
    assert maps(shift=(0.2, 0)).tolist() == [[unit, 0, -2 * unit], [0, unit, 0]]


def shifted(array: np.ndarray, right: int, down: int, outside: float) -> np.ndarray:
    height, width = array.shape[:2]
    moved = np.full_like(array, outside)
    moved[max(down, 0) : height + down, max(right, 0) : width + right] = array[
        max(-down, 0) : height - down, max(-right, 0) : width - right
    ]
    return moved


EXACT: dict[str, tuple[dict[str, Any], Callable[[np.ndarray, float], np.ndarray]]] = {
    "mirrored": ({"mirrored": True}, lambda a, _: a[:, ::-1]),
    "upside down": ({"upside_down": True}, lambda a, _: a[::-1]),
    "half a turn": ({"angle": 180}, lambda a, _: a[::-1, ::-1]),
    "right and up": ({"shift": (3 / 12, -2 / 12)}, lambda a, out: shifted(a, 3, -2, out)),
    "left and down": ({"shift": (-1 / 12, 5 / 12)}, lambda a, out: shifted(a, -1, 5, out)),
    "a quarter": ({"angle": 90}, lambda a, _: np.rot90(a)),
    "a quarter back": ({"angle": -90}, lambda a, _: np.rot90(a, -1)),
    "mirrored, then a quarter": (
        {"angle": 90, "mirrored": True},
        lambda a, _: np.rot90(a[:, ::-1]),
    ),
    "a quarter, then right": (
        {"angle": 90, "shift": (3 / 12, 0)},
        lambda a, out: shifted(np.rot90(a), 3, 0, out),
    ),
}


@pytest.mark.parametrize(("options", "expected"), EXACT.values(), ids=EXACT.keys())
@pytest.mark.parametrize("fill", [0, IGNORED])
@FRAMEWORKS
def test_whole_pixels_move_exactly(framework: str, options, expected, fill: int):
    rng = np.random.default_rng(0)
    image, mask = rng.normal(size=(12, 12, 3)), rng.integers(0, 5, (12, 12), np.uint8)
    geometry = affine((12, 12), (12, 12), **options)
    assert np.array_equal(warp(framework, image, geometry), expected(image, 0))
    assert np.array_equal(warp_mask(framework, mask, geometry, fill), expected(mask, fill))


@pytest.mark.parametrize(
    ("size", "stored"), [((8, 30), None), ((31, 9), None), ((8, 30), (15, 32))], ids=str
)
def test_a_map_undoes_what_its_settings_say(size, stored):
    """The picture's points, as complex numbers around its middle, are where they should be."""
    rng = np.random.default_rng(0)
    native = (60, 100)
    for _ in range(50):
        angle, zoom, right, down = rng.uniform((-180, 0.5, -0.3, -0.3), (180, 2, 0.3, 0.3))
        mirrored, upside_down = rng.random(2) < 0.5
        side = rng.uniform(20, 60)
        left, top = rng.uniform(0, (100 - side, 60 - side))
        geometry = affine(
            size,
            native,
            stored=stored,
            mirrored=mirrored,
            upside_down=upside_down,
            angle=angle,
            zoom=zoom,
            shift=(right, down),
            crop=(left, top, side),
        )
        x, y = rng.uniform(0, size[::-1])  # Of the output, from its top left corner, in pixels.
        place = geometry @ (x - 0.5, y - 0.5, 1) / ONE_PIXEL + 0.5
        point = complex(
            place[0] * native[1] / (stored or size)[1] - left - side / 2,
            top + side / 2 - place[1] * native[0] / (stored or size)[0],  # Up.
        )
        point = complex(-point.real if mirrored else point.real, point.imag)
        point = point.conjugate() if upside_down else point
        point *= zoom * cmath.exp(1j * math.radians(angle))
        # Steps are rounded to half of 1/65536 pixel, so that 15 of them are off by 1.2e-4 at most,
        # and twice in size and three times in native pixels of the crop, as a share of its side.
        assert 0.5 + right + point.real / side == pytest.approx(x / size[1], abs=1e-4)
        assert 0.5 + down - point.imag / side == pytest.approx(y / size[0], abs=1e-4)


@pytest.mark.parametrize("size", [(13, 19), (9, 11)], ids=str)
@FRAMEWORKS
def test_a_ramp_shows_where_pixels_come_from(framework: str, size: tuple[int, int]):
    height, width = stored = (13, 19)
    ramp = np.stack(np.meshgrid(np.arange(19.0), np.arange(13.0)), axis=-1)
    for drawn in draw_many(OPTIONS["all"], 20, size=size, stored=stored):
        x, y = source(drawn.geometry, size)
        inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
        outside = (x <= -1) | (x >= width) | (y <= -1) | (y >= height)
        warped = warp(framework, ramp, drawn.geometry, size)
        # Coordinates of up to 19, after a handful of roundings of 1e-16 each.
        np.testing.assert_allclose(warped[inside], np.stack([x, y], -1)[inside], rtol=0, atol=1e-13)
        assert np.all(warped[outside] == 0)


@pytest.mark.parametrize(("options", "expected"), EXACT.values(), ids=EXACT.keys())
def test_whole_pixels_move_exactly_in_float32_too(options, expected):
    """As the benchmark has PyTorch move them."""
    rng = np.random.default_rng(0)
    image, mask = rng.normal(size=(12, 12, 3)), rng.integers(0, 5, (12, 12), np.uint8)
    geometry = torch.from_numpy(affine((12, 12), (12, 12), **options))[None]
    moved = unet_torch_ref.augment.warp(
        torch.from_numpy(image).permute(2, 0, 1)[None], geometry, coordinates=torch.float32
    )
    assert np.array_equal(moved[0].permute(1, 2, 0), expected(image.astype(np.float32), 0))
    ids = unet_torch_ref.augment.warp_mask(
        torch.from_numpy(mask)[None], geometry, 7, coordinates=torch.float32
    )
    assert np.array_equal(ids[0], expected(mask, 7))


def test_in_float32_places_are_off_by_a_millionth():
    height, width = 300, 500
    ramp = torch.arange(width, dtype=torch.float64).expand(1, 1, height, width)
    off = []
    for drawn in draw_many(OPTIONS["all"], 20, size=(height, width), stored=(height, width)):
        geometry = torch.from_numpy(drawn.geometry)[None]
        (x, y), side = source(drawn.geometry, (height, width)), width - 1
        inside = torch.from_numpy((x >= 0) & (x <= side) & (y >= 0) & (y <= height - 1))
        exact, single = (
            unet_torch_ref.augment.warp(ramp, geometry, coordinates=dtype)[0, 0][inside]
            for dtype in (torch.float64, torch.float32)
        )
        off.append((exact - single).abs().max().item() / width)
    assert 1e-8 < max(off) < 1e-6


@FRAMEWORKS
def test_half_way_between_two_pixels_the_later_one_is_nearest(framework: str):
    mask = np.arange(1, 31, dtype=np.uint8).reshape(5, 6)
    for past_half, moved in ((-1, 0), (0, 1), (1, 1)):
        offset = ONE_PIXEL // 2 + past_half
        geometry = np.array([[ONE_PIXEL, 0, offset], [0, ONE_PIXEL, offset]], np.int32)
        expected = shifted(mask, -moved, -moved, 0)
        assert np.array_equal(warp_mask(framework, mask, geometry, 0), expected)


@FRAMEWORKS
def test_long_pictures_stay_in_fixed_point(framework: str):
    mask = np.random.default_rng(0).integers(0, 256, (1, 30000), np.uint8)
    geometry = affine(mask.shape, mask.shape, mirrored=True)
    assert np.array_equal(warp_mask(framework, mask, geometry, 0), mask[:, ::-1])


@pytest.mark.parametrize("size", [(40, 56), (23, 31)], ids=str)
@FRAMEWORKS
def test_image_and_mask_never_part(framework: str, size: tuple[int, int]):
    """The image's channel c is 1 where the mask is c, so that warped it is the share of class c.

    The nearest of the four pixels has a quarter of the weight or more. A class with more than
    three quarters is therefore the nearest one's; with less than a quarter inside, none is.
    """
    rng = np.random.default_rng(0)
    mask = np.kron(rng.integers(0, 3, (5, 7)), np.ones((8, 8), int)).astype(np.uint8)
    image = np.eye(3)[mask]
    checked = set()
    for drawn in draw_many(OPTIONS["all"], 100, size=size, stored=mask.shape):
        shares = warp(framework, image, drawn.geometry, size)
        labels = warp_mask(framework, mask, drawn.geometry, IGNORED, size)
        for label in range(3):
            sure = shares[..., label] > 0.75
            assert np.all(labels[sure] == label)
            checked.add(label) if sure.any() else None
        outside = shares.sum(-1) < 0.25
        assert np.all(labels[outside] == IGNORED)
        checked.add(IGNORED) if outside.any() else None
        assert np.mean(shares.max(-1) > 0.75) + np.mean(outside) > 0.5
    assert checked == {0, 1, 2, IGNORED}


@pytest.mark.parametrize(
    ("outside", "classes", "fill"),
    [
        ("auto", 2, 0),
        ("auto", 3, IGNORED),
        ("ignore", 2, IGNORED),
        ("background", 3, 0),
    ],
)
@FRAMEWORKS
def test_what_lies_outside_has_the_mean_colour(framework, outside, classes, fill):
    config = AugmentConfig(**ALL, outside=outside)
    assert config.fill(classes) == fill
    batch = random_batch(config, (13, 19))
    batch = batch._replace(mask=np.ones_like(batch.mask))
    image, mask = run(framework, batch, "float32", config.fill(classes))
    assert set(np.unique(mask)) == {1, fill}
    assert batch.geometry is not None
    for sample, labels, geometry in zip(image, mask, batch.geometry, strict=True):
        x, y = source(geometry, (13, 19))
        far = (x <= -1) | (x >= 19) | (y <= -1) | (y >= 13)
        assert np.all(sample[far] == 0)
        assert np.all(labels[far] == fill)


# Draws.


def settings_of(
    monkeypatch: pytest.MonkeyPatch, config: AugmentConfig, **changes: Any
) -> list[dict[str, Any]]:
    """What each draw's map is made of, and its colour factors."""
    monkeypatch.setattr(draws, "affine", lambda size, native, **settings: settings)
    drawn = draw_many(config, **{"count": MANY, **changes})
    monkeypatch.undo()
    return [
        {**settings, "right": settings["shift"][0], "down": settings["shift"][1]}  # type: ignore
        | dict(zip(COLOURING, colour.tolist(), strict=True))
        for settings, colour in drawn
    ]


def test_a_draw_follows_from_seed_epoch_and_index_alone():
    one = partial(draw, OPTIONS["all"], size=(24, 40), native=(90, 100))
    numbers = [(s, e, i) for s in range(4) for e in range(4) for i in range(4)]
    seen = set()
    for seed, epoch, index in numbers:
        first, again = (one(seed=seed, epoch=epoch, index=index) for _ in range(2))
        assert first.geometry.dtype == np.int32
        assert first.colour.dtype == np.float32
        for a, b in zip(first, again, strict=True):
            assert np.array_equal(a, b)
        seen.add(first.geometry.tobytes() + first.colour.tobytes())
    assert len(seen) == len(numbers)


def test_draws_fill_their_ranges(monkeypatch):
    settings = settings_of(monkeypatch, AugmentConfig(**ALL))
    crops = np.array([s["crop"] for s in settings if s["crop"] is not None])
    values = {
        name: np.array([s[name] for s in settings])
        for name in ("angle", "zoom", "right", "down", *COLOURING)
    }
    values["gamma"] = np.log(values["gamma"])
    left, top, side = crops.T
    values |= {"side": side / 90, "left": left / (100 - side), "top": top / (90 - side)}
    ranges = {
        "angle": (-40, 40),
        "zoom": (0.7, 1.6),
        "right": (-0.2, 0.2),
        "down": (-0.2, 0.2),
        "side": (0.3, 0.9),
        "left": (0, 1),
        "top": (0, 1),
        "brightness": (0.6, 1.4),
        "contrast": (0.5, 1.5),
        "saturation": (0.1, 1.9),
        "hue": (-0.3, 0.3),
        "gamma": (-0.7, 0.7),
    }
    assert values.keys() == ranges.keys()
    for name, (low, high) in ranges.items():
        shares = (values[name] - low) / (high - low)
        rounding = 1e-6  # Colour factors are float32.
        assert -rounding <= shares.min() < 0.02, name
        assert 0.98 < shares.max() <= 1 + rounding, name
        # A uniform mean strays by 1 / √(12 n): five times that comes once in 1.7 million.
        assert abs(shares.mean() - 0.5) < 5 / math.sqrt(12 * len(shares)), name


def test_flips_and_crops_are_as_frequent_as_asked(monkeypatch):
    settings = settings_of(monkeypatch, AugmentConfig(**ALL))
    for name, chance in (("mirrored", 0.5), ("upside_down", 0.25), ("crop", 0.5)):
        share = np.mean([bool(s[name]) for s in settings])
        assert abs(share - chance) < 5 * math.sqrt(chance * (1 - chance) / MANY), name
    for chance in (0.0, 1.0):
        never_or_always = AugmentConfig(horizontal_flip=chance, vertical_flip=chance, crop=chance)
        for s in settings_of(monkeypatch, never_or_always):
            assert s["mirrored"] == s["upside_down"] == bool(s["crop"]) == bool(chance)


def test_no_two_options_share_a_number(monkeypatch):
    settings = settings_of(monkeypatch, AugmentConfig(**{**ALL, "crop": 1.0}))
    names = ("mirrored", "upside_down", "angle", "zoom", "right", "down", *COLOURING)
    columns = [[float(s[name]) for s in settings] for name in names]
    left, top, side = np.array([s["crop"] for s in settings]).T
    columns += [side, left / (100 - side), top / (90 - side)]
    correlation = np.corrcoef(columns) - np.eye(len(columns))
    # Of independent ones it strays by 1 / √n.
    assert np.abs(correlation).max() < 5 / math.sqrt(MANY)


@pytest.mark.parametrize("option", MOVING + COLOURING)
def test_an_option_leaves_the_draws_of_others_as_they_are(option: str, monkeypatch):
    every = settings_of(monkeypatch, AugmentConfig(**ALL), count=50)
    off = {option: getattr(AugmentConfig(**OFF), option)}
    if option == "crop":
        off["crop_ratio"] = AugmentConfig().crop_ratio  # Refused where nothing is cropped.
    without = settings_of(monkeypatch, AugmentConfig(**{**ALL, **off}), count=50)
    own = {
        "horizontal_flip": {"mirrored"},
        "vertical_flip": {"upside_down"},
        "rotation": {"angle"},
        "scale": {"zoom"},
        "translation": {"shift", "right", "down"},
    }.get(option, {option})
    changed = {
        name for a, b in zip(every, without, strict=True) for name in a if a[name] != b[name]
    }
    assert changed == own


def test_a_crop_is_square_in_native_pixels_and_inside():
    config = AugmentConfig(horizontal_flip=0, crop=1, crop_ratio=(0.2, 1.0))
    for native in ((90, 250), (300, 200), (64, 64)):
        sides = []
        for geometry, _ in draw_many(config, 200, size=(24, 40), native=native):
            edges = np.array([[-0.5, 39.5], [-0.5, 23.5], [1, 1]])  # Top left and bottom right.
            stored = geometry @ edges / ONE_PIXEL + 0.5
            (left, right), (top, bottom) = stored * [[native[1] / 40], [native[0] / 24]]
            # Half of 1/65536 stored pixel for each of 20 steps from the middle, in native pixels.
            rounding = 21 / 2 / ONE_PIXEL * max(native) / 24
            assert right - left == pytest.approx(bottom - top, abs=4 * rounding)
            assert -rounding < left < right < native[1] + rounding
            assert -rounding < top < bottom < native[0] + rounding
            sides.append((right - left) / min(native))
        assert min(sides) < 0.25
        assert max(sides) > 0.95


def test_ratio_1_is_the_whole_short_side():
    config = AugmentConfig(horizontal_flip=0, crop=1, crop_ratio=(1, 1))
    for geometry, _ in draw_many(config, 20, size=(24, 40), native=(90, 250)):
        assert geometry[1].tolist() == [0, ONE_PIXEL, 0]
        assert geometry[0, 0] == round(ONE_PIXEL * 90 / 250)


@pytest.mark.parametrize("option", OPTIONS)
def test_what_is_on(option: str):
    config = OPTIONS[option]
    assert geometric(config) == (option in (*MOVING, "all"))
    assert photometric(config) == (option in (*COLOURING, "all"))


def test_nothing_is_on_when_all_is_off():
    config = AugmentConfig(**OFF)
    assert not geometric(config)
    assert not photometric(config)
    for drawn in draw_many(config, 20):
        for ours, expected in zip(drawn, identity(), strict=True):
            assert np.array_equal(ours, expected)


def test_a_zoom_beyond_fixed_point_is_refused():
    config = AugmentConfig(scale=(0.0001, 1))
    with pytest.raises(ValueError, match=r"scale: \(0.0001, 1.0\) shows .* at most 32767 are"):
        draws.check_reach(config, (320, 480), (1280, 1918))
    for native in ((320, 480), (1280, 1918)):  # The largest in use, at hard settings.
        hard = AugmentConfig(rotation=180, scale=(0.5, 2), translation=0.5)
        draws.check_reach(hard, (1280, 1918), native)
        reach = [
            abs(source(g, (1280, 1918))).max()
            for g, _ in draw_many(hard, 3, size=(1280, 1918), native=native)
        ]
        assert max(reach) < draws.MAX_REACH


# Colours.


def reference_pixels(image: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """What torchvision's adjust_gamma, _brightness, _contrast, _saturation and _hue do, in turn."""
    brightness, contrast, saturation, hue, gamma = factors.tolist()
    grey = np.array([0.2989, 0.587, 0.114])
    image = np.clip(image**gamma, 0, 1)
    image = np.clip(brightness * image, 0, 1)
    image = np.clip(contrast * image + (1 - contrast) * np.mean(image @ grey), 0, 1)
    image = np.clip(saturation * image + (1 - saturation) * (image @ grey)[..., None], 0, 1)
    turned = np.empty_like(image)
    for place in np.ndindex(image.shape[:2]):
        h, s, v = colorsys.rgb_to_hsv(*image[place])
        turned[place] = colorsys.hsv_to_rgb((h + hue) % 1, s, v)
    return turned


@pytest.mark.parametrize("option", [*COLOURING, "all"])
@FRAMEWORKS
def test_colours_change_as_in_torchvision(framework: str, option: str):
    batch = random_batch(OPTIONS[option], (6, 7))
    assert batch.colour is not None
    image, factors = batch.image / 255, batch.colour.astype(np.float64)
    expected = np.stack([reference_pixels(*pair) for pair in zip(image, factors, strict=True)])
    assert np.abs(expected - image).max() > 0.1
    # A dozen roundings of 1e-16.
    np.testing.assert_allclose(recolour(framework, image, factors), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("factors", "expected"),
    [
        pytest.param([2, 1, 1, 0, 1], (0.4, 0.8, 1), id="twice as bright"),
        pytest.param([1, 1, 1, 1 / 3, 1], (0.6, 0.2, 0.4), id="a third of the circle"),
        pytest.param([1, 1, 1, -0.5, 1], (0.6, 0.4, 0.2), id="the opposite hue"),
        pytest.param([1, 1, 1, 0, 2], (0.04, 0.16, 0.36), id="squared"),
        pytest.param([1, 1, 0, 0, 1], (0.36298,) * 3, id="grey"),  # Its luminance.
        pytest.param([1, 0, 1, 0, 1], (0.36298,) * 3, id="flat"),  # The mean luminance.
    ],
)
@FRAMEWORKS
def test_a_colour_by_hand(framework: str, factors, expected):
    image = np.full((1, 2, 3, 3), (0.2, 0.4, 0.6))
    changed = recolour(framework, image, np.array([factors], float))
    np.testing.assert_allclose(changed, np.full_like(image, expected), rtol=0, atol=1e-13)

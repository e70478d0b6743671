"""Tiles: what is blended of them is what the whole image gives, and nobody sees where they met."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from unet_jax.prediction.bands import resize_bands
from unet_jax.prediction.tiles import Run, pad_to, place_tiles, tiled_bands

FILL = np.full(3, 7, np.uint8)
RADIUS = 2


def random_image(seed: int, size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def local(dtype: type) -> Run:
    """A network that sees `RADIUS` pixels far, and zeros beyond the edge of what it is given."""
    kernel = np.random.default_rng(0).normal(size=(2 * RADIUS + 1, 2 * RADIUS + 1, 1))

    def run(images: np.ndarray) -> np.ndarray:
        seen = [ndimage.correlate(i.astype(dtype) / 255, kernel, mode="constant") for i in images]
        return np.stack(seen)[..., :2].astype(dtype)

    return run


def blend(
    image: np.ndarray, tile: tuple[int, int], overlap: float, run: Run, batch_size: int = 3
) -> np.ndarray:
    return np.concatenate([*tiled_bands(image, tile, overlap, run, batch_size, FILL)])


def spoiled(length: int, tile: int, overlap: float) -> np.ndarray:
    """Which pixels lie within `RADIUS` of an edge of a tile, where that is none of the image."""
    near = np.zeros(length, bool)
    for start in place_tiles(length, tile, overlap).starts:
        if start > 0:
            near[start : start + RADIUS] = True
        if start + tile < length:
            near[start + tile - RADIUS : start + tile] = True
    return near


# Weights of one pixel add up to 1 within a few roundings of the dtype; values are below 10.
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-13), (np.float32, 1e-5)])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.8])
@pytest.mark.parametrize(("size", "tile"), [((40, 61), (16, 20)), ((16, 50), (16, 16))])
def test_where_tiles_see_as_far_as_the_whole_the_result_is_the_same(
    size: tuple[int, int], tile: tuple[int, int], overlap: float, dtype: type, tolerance: float
):
    """A tile knows of a pixel what the whole image does, if all within the network's sight lies in
    the tile, or none of it in the image either. If that holds in every tile that a pixel lies in,
    the blend is a mean of equal numbers."""
    image, run = random_image(0, size), local(dtype)
    whole, tiled = run(image[None])[0], blend(image, tile, overlap, run)
    assert tiled.shape == whole.shape
    assert tiled.dtype == dtype
    rows, columns = (spoiled(n, t, overlap) for n, t in zip(size, tile, strict=True))
    exact = ~rows[:, None] & ~columns
    assert exact.sum() > 100
    np.testing.assert_allclose(tiled[exact], whole[exact], rtol=0, atol=tolerance)
    # And the test can tell: next to a tile's edge, zeros are seen where the image goes on.
    assert np.abs(tiled - whole)[~exact].max() > 0.01


def test_what_a_tile_sees_badly_hardly_counts():
    """At half overlap, a pixel at a tile's edge lies in the middle of another: by the Gaussian, the
    first one's share is below 1 / 1000 on each side, and errors shrink by as much."""
    image, run = random_image(1, (64, 64)), local(np.float64)
    whole = run(image[None])[0]
    error = np.abs(blend(image, (32, 32), 0.5, run) - whole)
    alone = np.abs(run(image[None, :32, :32])[0] - whole[:32, :32])
    share = np.exp(-0.5 * (15.5 / 4) ** 2) + np.exp(-0.5 * (14.5 / 4) ** 2)  # Of an edge's pixels.
    assert error.max() <= 2.5 * share * alone.max()
    assert alone.max() > 0.5


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_constant_shows_no_seams(dtype: type):
    def run(images: np.ndarray) -> np.ndarray:
        return np.full((*images.shape[:3], 1), 0.7, dtype)

    tiled = blend(random_image(0, (50, 70)), (16, 24), 0.4, run)
    # At most four weights are rounded, multiplied and added up.
    np.testing.assert_allclose(tiled, 0.7, rtol=8 * np.finfo(dtype).eps)


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(0, 200), st.floats(0, 0.95))
def test_tiles_cover_every_pixel_and_overlap_enough(tile: int, more: int, overlap: float):
    length = tile + more
    starts, weights = place_tiles(length, tile, overlap)
    assert starts[0] == 0
    assert starts[-1] == length - tile
    assert (np.diff(starts) > 0).all()
    assert (tile - np.diff(starts) >= min(tile - 1, overlap * tile - 1e-6)).all()
    total = np.zeros(length)
    for start, weight in zip(starts, weights, strict=True):
        total[start : start + tile] += weight
    np.testing.assert_allclose(total, 1, rtol=1e-12)
    assert (weights > 0).all()


def test_a_tile_weighs_most_in_its_middle_and_as_a_gaussian():
    _, weights = place_tiles(128, 64, 0.5)
    window = weights[1] / weights[1].max()
    first, last = weights[0], weights[-1]
    np.testing.assert_allclose(first[:32], 1)  # No other tile is there.
    np.testing.assert_allclose(last[32:], 1)
    # Of two tiles 32 apart, the shares of one pixel are as exp(-x² / 2σ²), σ = 64 / 8.
    x = np.arange(32) - 31.5
    ratio = np.exp(-0.5 * (x / 8) ** 2) / np.exp(-0.5 * ((x + 32) / 8) ** 2)
    np.testing.assert_allclose(weights[1][:32] / weights[0][32:], ratio)
    assert window.argmax() in (31, 32)


@pytest.mark.parametrize("size", [(5, 9), (5, 40), (33, 9)])
def test_an_image_smaller_than_a_tile_is_surrounded_by_the_mean_colour(size: tuple[int, int]):
    shown = []

    def run(images: np.ndarray) -> np.ndarray:
        shown.append(images)
        return images[..., :1].astype(np.float64)

    image = random_image(2, size)
    tiled = blend(image, (16, 16), 0.5, run)
    np.testing.assert_allclose(tiled[..., 0], image[..., 0], rtol=1e-12)
    tile = shown[0][0]
    assert tile.shape == (16, 16, 3)
    assert (tile[size[0] :] == 7).all()
    assert (tile[:, size[1] :] == 7).all()


def test_padding_leaves_what_is_large_enough_as_it_is():
    image = random_image(0, (8, 8))
    assert pad_to(image, (8, 4), FILL) is image


@pytest.mark.parametrize(("batch_size", "shapes"), [(1, [1] * 9), (4, [3] * 3), (8, [5, 5])])
def test_batches_are_of_one_size_and_nearly_full(batch_size: int, shapes: list[int]):
    given = []

    def run(images: np.ndarray) -> np.ndarray:
        given.append(len(images))
        return images[..., :1] / 255

    image = random_image(0, (32, 32))  # Nine tiles at half overlap.
    tiled = blend(image, (16, 16), 0.5, run, batch_size)
    assert given == shapes
    np.testing.assert_allclose(tiled[..., 0], image[..., 0] / 255, rtol=1e-12)


def test_no_more_rows_are_held_than_tiles_have():
    image = random_image(0, (400, 16))
    bands = tiled_bands(image, (16, 16), 0.5, lambda x: x[..., :1] / 255, 2, FILL)
    assert max(len(band) for band in bands) <= 16


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_resizing_in_bands_is_resizing(data: st.DataObject):
    side = st.integers(1, 20)
    size, target = data.draw(st.tuples(side, side)), data.draw(st.tuples(side, side))
    cuts = data.draw(st.lists(st.integers(1, size[0]), max_size=4))
    image = np.random.default_rng(0).normal(size=(*size, 2))
    bands = [band for band in np.split(image, sorted({*cuts} - {size[0]})) if len(band)]
    found = np.concatenate([*resize_bands(bands, size, target)])
    whole = np.concatenate([*resize_bands([image], size, target)])
    assert found.tobytes() == whole.tobytes()  # Whatever the bands.
    given = torch.from_numpy(image.transpose(2, 0, 1)[None].copy())
    theirs = torch.nn.functional.interpolate(given, target, mode="bilinear")[0]
    # Of numbers below 5: a few roundings of float64.
    np.testing.assert_allclose(found, theirs.numpy().transpose(1, 2, 0), atol=1e-13)


def test_bands_that_are_made_are_small(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("unet_jax.prediction.bands.LARGEST", 1000)
    image = np.random.default_rng(0).normal(size=(7, 9, 2))
    bands = [*resize_bands([image], (7, 9), (90, 50))]
    assert {len(band) for band in bands} <= {10, 90 % 10 or 10}
    monkeypatch.undo()
    whole = np.concatenate([*resize_bands([image], (7, 9), (90, 50))])
    assert np.concatenate(bands).tobytes() == whole.tobytes()

"""Sets that are stored larger than they are trained on, from files to what the network is given."""

import hashlib
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds
import torch
from drawing import contents, files, open_set, save_image
from PIL import Image

import unet_jax.augment
import unet_torch_ref.augment
from unet_jax.batch import IGNORED, Batch
from unet_jax.config import AugmentConfig, DataConfig
from unet_jax.datasets import PairBuilder
from unet_jax.draws import ONE_PIXEL, draw
from unet_jax.pipeline import Pipeline
from unet_torch_ref.batch import to_tensors

# Height and width. A native picture is 16:9, and squeezed when stored.
NATIVE, STORED, SIZE = (90, 160), (112, 128), (64, 64)
RADIUS, MIDDLE = 18, (44, 75)
COUNT, BATCH = 8, 3
OFF = AugmentConfig(horizontal_flip=0)
FRAMEWORKS = pytest.mark.parametrize("framework", ["jax", "torch"])
NOT_NORMALISED = ((0.0,) * 3, (1.0,) * 3)

inputs_and_targets = jax.jit(unet_jax.augment.inputs_and_targets, static_argnums=(1, 2, 3, 4))


def given(framework: str, batch: Batch, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """What the network is given: images [B, H, W, C] in 0..1, and masks [B, H, W]."""
    if framework == "jax":
        image, mask = inputs_and_targets(batch, NOT_NORMALISED, "float32", IGNORED, size)
        return np.asarray(image), np.asarray(mask)
    image, mask = unet_torch_ref.augment.inputs_and_targets(
        to_tensors(batch), NOT_NORMALISED, torch.float32, IGNORED, size
    )
    return image.permute(0, 2, 3, 1).numpy(), mask.numpy()


def native_pair() -> tuple[np.ndarray, np.ndarray]:
    """A disc, in red over waves of green and blue, and its mask."""
    y, x = np.indices(NATIVE)
    disc = np.hypot(y - MIDDLE[0], x - MIDDLE[1]) <= RADIUS
    waves = (127 + 100 * np.sin(x / 9 + y / 15), 127 + 100 * np.cos(x / 20 - y / 8))
    return np.stack([255 * disc, *waves], -1).astype(np.uint8), disc.astype(np.uint8)


@pytest.fixture(scope="session")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("discs")
    image, mask = native_pair()
    for n in range(COUNT):
        save_image(image, folder / "images" / f"{n}.png")
        save_image(mask, folder / "masks" / f"{n}.png")
    return folder


@pytest.fixture(scope="session")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("prepared")


def serve(
    discs: Path,
    copies: Path,
    augment: AugmentConfig = OFF,
    size: tuple[int, int] = SIZE,
    stored: tuple[int, int] | None = STORED,
    batch_size: int = BATCH,
    **settings: Any,
) -> Pipeline:
    settings |= {"size": size, "stored_size": stored}
    builder = open_set("folder", discs, copies, **settings)
    return Pipeline(builder, DataConfig(**settings), augment, batch_size, seed=0)


# The prepared copy.


def test_what_is_stored_is_what_a_network_of_that_size_would_have(discs: Path, tmp_path: Path):
    large = open_set("folder", discs, tmp_path, (24, 40))
    written = files(tmp_path)
    for size in ((24, 40), (12, 20), (23, 21)):
        same = open_set("folder", discs, tmp_path, size, stored_size=(24, 40))
        assert same.data_path == large.data_path
        assert contents(same) == contents(large)
    assert files(tmp_path) == written
    assert open_set("folder", discs, tmp_path, (12, 20)).data_path != large.data_path


class Plain(PairBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def fingerprint(self) -> Iterable[str]:
        return ["one", "two"]


def test_copies_that_are_there_stay_valid(tmp_path: Path):
    """A copy without a stored size lies where it has always lain."""
    digest = hashlib.sha256(b"3\none\ntwo").hexdigest()[:12]
    builder = Plain(DataConfig(prepared_dir=tmp_path, size=(12, 20)))
    assert Path(builder.data_path).parents[1] == tmp_path / f"12x20-{digest}"


def test_scenes_are_rendered_at_the_stored_size(tmp_path: Path):
    stored = open_set("shapes", None, tmp_path, (16, 16), stored_size=(24, 32), scenes=2)
    assert [record["image"].shape for record in stored.records()] == [(24, 32, 3)] * 2
    assert stored.facts.native == [[24, 32]] * 2


# Batches.


@pytest.mark.parametrize("place", ["files", "host", "device"])
@pytest.mark.parametrize("size", [(64, 64), (90, 127)], ids=str)
def test_every_batch_says_where_its_pixels_come_from(size, place, discs, copies):
    pipeline = serve(discs, copies, size=size)
    assert pipeline.bytes == 4 * math.prod(STORED) * COUNT
    if place != "files":
        held = pipeline.hold()
        assert held.image.nbytes + held.mask.nbytes == pipeline.bytes
        if place == "device":
            pipeline.fetch_by(lambda index: (held.image[index], held.mask[index]))
    whole = draw(OFF, seed=0, epoch=0, index=0, size=size, native=NATIVE, stored=STORED).geometry
    batches = [*pipeline.train(0), *pipeline.validation()]
    for batch in batches:
        assert batch.image.shape == (BATCH, *STORED, 3)
        assert batch.mask.shape == (BATCH, *STORED)
        assert batch.geometry is not None
        assert batch.geometry.dtype == np.int32
        assert np.array_equal(batch.geometry, [whole] * BATCH)
        assert batch.colour is None
    assert not batches[-1].valid.all(), "padding has a map, too"


@pytest.mark.parametrize("stored", [None, SIZE], ids=["unsaid", "said"])
def test_without_a_larger_copy_nothing_is_moved(stored, discs, copies):
    pipeline = serve(discs, copies, stored=stored)
    for batch in [*pipeline.train(0), *pipeline.validation(), *pipeline.pictures(2)]:
        assert batch.geometry is None
        assert batch.image.shape == (BATCH, *SIZE, 3)


def test_the_draws_are_those_of_the_stored_size(discs, copies):
    augment = AugmentConfig(rotation=20, crop=0.5, gamma=0.2)
    for batch in serve(discs, copies, augment, batch_size=1).train(epoch=3):
        assert batch.geometry is not None
        # All pictures are the same: any training sample's draw.
        drawn = [
            draw(augment, seed=0, epoch=3, index=index, size=SIZE, native=NATIVE, stored=STORED)
            for index in range(COUNT)
        ]
        assert batch.geometry[0].tolist() in [each.geometry.tolist() for each in drawn]


@pytest.mark.parametrize("size", [(64, 64), (90, 127)], ids=str)
@FRAMEWORKS
def test_pictures_show_what_is_validated_on(framework: str, size, discs, copies):
    pipeline = serve(discs, copies, size=size, batch_size=1)
    [validated, *_] = pipeline.validation()
    [shown] = pipeline.pictures(1)
    assert shown.geometry is None
    image, mask = given(framework, validated, size)
    assert shown.mask.dtype == shown.image.dtype == np.uint8
    assert np.array_equal(shown.mask, mask)
    assert shown.image.shape == image.shape
    # Pillow rounds to whole levels, and its shares of a pixel to some 1/256 before that.
    np.testing.assert_allclose(shown.image, 255 * image, rtol=0, atol=2)


def test_a_zoom_is_measured_on_the_stored_picture(discs, copies):
    # 128 + max(112 / 90, 128 / 160) · hypot(90, 160) · 0.5 / 0.0035 = 32,763.
    serve(discs, copies, AugmentConfig(scale=(0.0035, 1)))
    too_far = AugmentConfig(scale=(0.0034, 1))
    with pytest.raises(ValueError, match=r"around a picture of \(112, 128\); at most 32767"):
        serve(discs, copies, too_far)
    serve(discs, copies, too_far, stored=None)


# Crops, at native proportions.


def moments(image: np.ndarray) -> tuple[float, float, float]:
    """Area of what is light in [H, W], in pixels, and its variance along x and along y."""
    y, x = np.indices(image.shape)
    area = image.sum()
    mean_x, mean_y = (np.sum(image * v) / area for v in (x, y))
    return area, np.sum(image * (x - mean_x) ** 2) / area, np.sum(image * (y - mean_y) ** 2) / area


def shows_the_disc(mask: np.ndarray) -> bool:
    """Whether all of it is in the picture."""
    border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    return bool(mask.any() and not border.any())


def native_sides(geometry: np.ndarray) -> tuple[float, float]:
    """Height and width of what a map shows, in native pixels."""
    steps = geometry[1, 1] / ONE_PIXEL, geometry[0, 0] / ONE_PIXEL
    height, width = (
        float(step) * side * native / stored
        for step, side, native, stored in zip(steps, SIZE, NATIVE, STORED, strict=True)
    )
    return height, width


@FRAMEWORKS
def test_a_whole_picture_is_squeezed_as_by_pillow(framework: str, discs, copies):
    [batch, *_] = serve(discs, copies).train(0)
    image, mask = (array[0] for array in given(framework, batch, SIZE))
    native_image, native_mask = (Image.fromarray(array) for array in native_pair())
    height, width = SIZE
    resized = native_image.resize((width, height), Image.Resampling.BILINEAR)
    nearest = native_mask.resize((width, height), Image.Resampling.NEAREST)
    # Pillow's filter is wider than two pixels in a row: over waves of 2 π · 8 native pixels or
    # more, 2.5 of which are one here, by little. At the border it is cut; so is the disc, sharp.
    waves = np.abs(image - np.asarray(resized) / 255)[1:-1, 1:-1, 1:]
    assert waves.max() < 0.02
    assert np.mean(mask != np.asarray(nearest)) < 0.01  # The nearest one's nearest one.
    _, along_x, along_y = moments(image[..., 0])
    assert along_x / along_y == pytest.approx((90 / 160) ** 2, rel=0.03)


@FRAMEWORKS
def test_half_are_whole_and_half_are_square_crops(framework: str, discs, copies):
    """The published recipe of the residual network: crops of 0.5 to 1 times the short side."""
    pipeline = serve(discs, copies, AugmentConfig(crop=0.5, crop_ratio=(0.5, 1.0)))
    wholes, shown = 0, []
    for batch in (batch for epoch in range(20) for batch in pipeline.train(epoch)):
        assert batch.geometry is not None
        images, masks = given(framework, batch, SIZE)
        for image, mask, geometry in zip(images, masks, batch.geometry, strict=True):
            height, width = native_sides(abs(geometry))
            if (height, width) == NATIVE:
                wholes += 1
                continue
            assert width == pytest.approx(height, rel=1e-4)
            assert 45 <= height <= 90
            if shows_the_disc(mask):
                shown.append(height)
                area, along_x, along_y = moments(image[..., 0])
                # Of a disc of 13 to 25 pixels' radius; what is stored is wider than high.
                assert along_x / along_y == pytest.approx(1, rel=0.03)
                assert area == pytest.approx(np.pi * (RADIUS * SIZE[0] / height) ** 2, rel=0.03)
                assert area == pytest.approx(mask.sum(), rel=0.03)
    count = 20 * pipeline.steps * BATCH
    assert abs(wholes - count / 2) < 5 * math.sqrt(count / 4)
    assert min(shown) < 60 < 80 < max(shown)

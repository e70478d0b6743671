"""The boundary F-score: against its definition pixel by pixel, and the two frameworks together."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import unet_torch_ref.metrics
from unet_jax.batch import IGNORED
from unet_jax.metrics import boundary_counts, boundary_scores, boundary_tolerance

ONE = np.array([True])
compiled = jax.jit(boundary_counts, static_argnums=(3, 4))


def both(
    predicted: np.ndarray, mask: np.ndarray, valid: np.ndarray, classes: int, tolerance: int
) -> tuple[np.ndarray, np.ndarray]:
    arrays = (predicted.astype(np.int32), mask.astype(np.uint8), valid)
    ours = compiled(*map(jnp.asarray, arrays), classes, tolerance)
    assert ours.dtype == jnp.int32
    guess, truth, count = map(torch.from_numpy, arrays)
    theirs = unet_torch_ref.metrics.boundary_counts(guess, truth, count, classes, tolerance)
    return np.asarray(ours), theirs.numpy()


def witness(
    predicted: np.ndarray, mask: np.ndarray, valid: np.ndarray, classes: int, tolerance: int
) -> np.ndarray:
    """The definition, word for word: sets of pixels, and every distance between two of them."""
    counts = np.zeros((classes, 4), int)
    for guess, truth, counts_too in zip(predicted, mask, valid, strict=True):
        known = {p for p in np.ndindex(*truth.shape) if counts_too and truth[p] != IGNORED}
        edges = []
        for ids in (guess, truth):
            edge: list[set[tuple[int, ...]]] = [set() for _ in range(classes)]
            for y, x in known:
                around = {(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)} & known
                if any(ids[p] != ids[y, x] for p in around):
                    edge[ids[y, x]].add((y, x))
            edges.append(edge)
        for c, (a, b) in enumerate(zip(*edges, strict=True)):
            near = [
                sum(any(math.dist(p, q) <= tolerance for q in others) for p in some)
                for some, others in ((a, b), (b, a))
            ]
            counts[c] += (len(a), near[0], len(b), near[1])
    return counts


def blobs(rng: np.random.Generator, classes: int, shape: tuple[int, ...]) -> np.ndarray:
    """Masks of patches, as objects make them: each pixel has the class of the nearest seed."""
    count, height, width = shape
    places = rng.uniform(0, 1, (count, 1, 1, 6, 2)) * (height, width)
    ids = rng.integers(0, classes, (count, 6))
    grid = np.stack(list(np.mgrid[:height, :width]), axis=-1)[None, :, :, None]
    nearest = ((grid - places) ** 2).sum(-1).argmin(-1)
    return np.take_along_axis(ids, nearest.reshape(count, -1), 1).reshape(shape).astype(np.uint8)


def noise(rng: np.random.Generator, classes: int, shape: tuple[int, ...]) -> np.ndarray:
    return rng.integers(0, classes, shape, np.uint8)


# Counts.


@pytest.mark.parametrize("tolerance", [0, 1, 2])
@pytest.mark.parametrize("classes", [2, 150])
@pytest.mark.parametrize("draw", [noise, blobs])
def test_both_frameworks_count_what_the_definition_says(draw, classes, tolerance):
    rng = np.random.default_rng([classes, tolerance])
    shape = (3, 11, 14)
    mask = draw(rng, classes, shape)
    moved = np.roll(mask, (2, 1), (1, 2))  # By √5.
    predicted = np.where(rng.random(shape) < 0.1, draw(rng, classes, shape), moved)
    mask = np.where(rng.random(shape) < 0.1, IGNORED, mask)
    mask[:, 4:6, 8:] = IGNORED
    valid = np.array([True, False, True])
    expected = witness(predicted, mask, valid, classes, tolerance)
    assert 0 < expected[:, 3].sum() < expected[:, 2].sum() or classes == 2
    for counts in both(predicted, mask, valid, classes, tolerance):
        assert np.array_equal(counts, expected)


def test_a_tolerance_wider_than_the_picture_finds_every_pixel_of_the_class():
    rng = np.random.default_rng(0)
    predicted, mask = noise(rng, 3, (2, 1, 5, 7))
    for counts in both(predicted, mask, ONE, 3, 9):
        assert np.array_equal(counts[:, 0], counts[:, 1])
        assert np.array_equal(counts, witness(predicted, mask, ONE, 3, 9))


def test_counts_of_images_add_up_whatever_batch_or_device_they_are_in():
    rng = np.random.default_rng(1)
    predicted, mask = blobs(rng, 4, (6, 16, 20)).reshape(2, 3, 16, 20)
    valid = np.array([True, True, True])
    alone = [both(p[None], m[None], ONE, 4, 2)[0] for p, m in zip(predicted, mask, strict=True)]
    for counts in both(predicted, mask, valid, 4, 2):
        assert np.array_equal(counts, sum(alone))


@pytest.mark.parametrize(
    ("off", "tolerance", "found"),
    [(0, 0, True), (1, 0, False), (2, 2, True), (3, 2, False), (5, 5, True), (6, 5, False)],
)
def test_a_straight_edge_may_be_off_by_the_tolerance(off, tolerance, found):
    mask, predicted = np.zeros((2, 1, 6, 20), np.uint8)
    mask[..., 8:], predicted[..., 8 + off :] = 1, 1
    # Six rows, and a pixel on either side of the edge in each.
    expected = [[6, 6 * found, 6, 6 * found]] * 2
    for counts in both(predicted, mask, ONE, 2, tolerance):
        assert counts.tolist() == expected


@pytest.mark.parametrize(
    ("rows", "columns", "near"),
    [(3, 4, True), (4, 3, True), (5, 0, True), (4, 4, False), (5, 1, False), (-3, -4, True)],
)
def test_distance_is_euclidean(rows, columns, near):
    mask, predicted = np.zeros((2, 1, 21, 21), np.uint8)
    mask[0, 10, 10] = predicted[0, 10 + rows, 10 + columns] = 1
    for counts in both(predicted, mask, ONE, 2, 5):
        assert counts[1].tolist() == [1, near, 1, near]


def test_the_edge_of_the_picture_is_no_boundary():
    for counts in both(np.ones((1, 5, 6)), np.ones((1, 5, 6)), ONE, 2, 3):
        assert not counts.any()


def test_boundaries_of_other_classes_do_not_match():
    mask, predicted = np.zeros((2, 1, 6, 20), np.uint8)
    mask[..., 10:], predicted[..., 10:] = 1, 2
    for counts in both(predicted, mask, ONE, 3, 4):
        assert counts.tolist() == [[6, 6, 6, 6], [0, 0, 6, 0], [6, 0, 0, 0]]


def test_ignored_pixels_make_no_boundary_and_have_none():
    mask = np.array([[[0, 0, 255, 1, 1, 1, 2]]])  # Of the true edges, one is left: 1 beside 2.
    predicted = np.array([[[0, 1, 2, 0, 0, 1, 1]]])  # 1 | 2 and 2 | 0 are half ignored.
    expected = [[2, 0, 0, 0], [2, 1, 1, 1], [0, 0, 1, 0]]
    for counts in both(predicted, mask, ONE, 3, 0):
        assert counts.tolist() == expected


def test_padding_images_leave_counts_unchanged():
    rng = np.random.default_rng(2)
    predicted, mask = blobs(rng, 3, (4, 12, 15)).reshape(2, 2, 12, 15)
    alone = both(predicted[:1], mask[:1], ONE, 3, 2)[0]
    for counts in both(predicted, mask, np.array([True, False]), 3, 2):
        assert np.array_equal(counts, alone)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        # Diagonals of 400, 1200 and 500 pixels, of which 0.75 % are 3, 9 and 3.75.
        pytest.param((240, 320), 3, id="a-whole-number"),
        pytest.param((720, 960), 9, id="camvid"),
        pytest.param((300, 400), 4, id="rounded-up"),
        pytest.param((1280, 1918), 18, id="carvana"),  # 17.3
        pytest.param((8, 8), 1, id="tiny"),
    ],
)
def test_the_tolerance_is_a_share_of_the_diagonal(size, expected):
    assert boundary_tolerance(size) == boundary_tolerance(size[::-1]) == expected


# Scores. A few roundings of 1e-16 each.


def close(value: float) -> object:
    return pytest.approx(value, rel=1e-15)


COUNTS = np.array([[10, 8, 20, 5], [4, 4, 8, 4], [0, 0, 0, 0], [6, 0, 3, 0]])
NAMES = ("ground", "tree", "ghost", "car")


def test_boundary_scores_of_several_classes_by_hand():
    result = boundary_scores(COUNTS, NAMES)
    precision = {"ground": 8 / 10, "tree": 1.0, "ghost": None, "car": 0.0}
    recall = {"ground": 5 / 20, "tree": 4 / 8, "ghost": None, "car": 0.0}
    ground, tree = 2 * 0.8 * 0.25 / (0.8 + 0.25), 2 * 1 * 0.5 / (1 + 0.5)
    assert result == {
        "boundary_f": close((ground + tree + 0) / 3),
        "boundary_f_per_class": {"ground": close(ground), "tree": close(tree), "ghost": None}
        | {"car": 0.0},
        "boundary_precision_per_class": precision,
        "boundary_recall_per_class": recall,
    }


def test_boundary_score_of_two_classes_is_the_foregrounds():
    result = boundary_scores(COUNTS[:2], ("background", "car"))
    assert result["boundary_f"] == result["boundary_f_per_class"]["car"] == close(2 / 3)
    assert result["boundary_f_per_class"]["background"] == close(0.4 / 1.05)


@pytest.mark.parametrize("counts", [[7, 0, 0, 0], [0, 0, 7, 0]], ids=["predicted", "true"])
def test_a_boundary_on_one_side_alone_scores_0_and_counts(counts):
    result = boundary_scores(np.array([COUNTS[1], counts, COUNTS[1]]), ("ground", "tree", "car"))
    assert result["boundary_f_per_class"]["tree"] == 0
    assert result["boundary_f"] == close((2 / 3 + 0 + 2 / 3) / 3)
    precision, recall = (result[f"boundary_{x}_per_class"]["tree"] for x in ("precision", "recall"))
    assert {precision, recall} == {0, None}


@pytest.mark.parametrize("classes", [2, 4])
def test_without_any_boundary_nothing_is_wrong(classes):
    result = boundary_scores(np.zeros((classes, 4), np.int64), NAMES[:classes])
    assert result["boundary_f"] == 1
    assert set(result["boundary_f_per_class"].values()) == {None}


def test_counts_beyond_int32_are_divided_exactly():
    counts = COUNTS[:2] * 2**40
    names = NAMES[:2]
    assert boundary_scores(counts, names) == boundary_scores(COUNTS[:2], names)

"""3×3 convolutions by Winograd's F(4×4, 3×3) against XLA's in float64."""

from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unet_jax import onednn
from unet_jax.models import convolution, winograd
from unet_jax.models.convolution import convolve, xla_alone
from unet_jax.onednn import cores
from unet_jax.parallel import Jit, Shard

needs_onednn = pytest.mark.skipif(
    not onednn.available(), reason='no oneDNN here: pip install -e ".[onednn]" on x86-64 Linux'
)
EPSILON = np.finfo(np.float32).eps
SIDES = range(1, 10)


def drawn(*shapes, seed=0):
    generator = np.random.default_rng(seed)
    return [generator.standard_normal(shape) for shape in shapes]


layer = partial(winograd.forward, bias=None, added=None, stride=1)


def passes(by, x, kernel, g):
    """What it makes of x and kernel, and the gradients of both, g being that of the result."""
    by_kernel, _ = by.backward_weights(x, g, kernel.shape, 1, False)
    made = by.forward(x, kernel, None, None, 1), by.backward_data(g, kernel, x.shape, 1), by_kernel
    return [np.asarray(each) for each in made]


def by_definition(x, kernel, g):
    with jax.enable_x64(True), xla_alone():
        given = (jnp.asarray(each, jnp.float64) for each in (x, kernel))
        y, back = jax.vjp(partial(convolution._plain, stride=1), *given)
        return [np.asarray(each) for each in (y, *back(jnp.asarray(g, jnp.float64)))]


@pytest.mark.parametrize("width", SIDES)
@pytest.mark.parametrize("height", SIDES)
def test_every_pass_is_the_convolutions(height: int, width: int):
    given = drawn((2, height, width, 3), (3, 3, 3, 4), (2, height, width, 4))
    with jax.enable_x64(True):
        ours = passes(winograd, *map(jnp.asarray, given))
    for a, b in zip(ours, by_definition(*given), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)  # Of values up to 50.


def test_transposes_are_those():
    with jax.enable_x64(True):
        for transform, transposed, shape in (
            (
                partial(winograd._inverse, shape=(2, 6, 9)),
                winograd._inverse_transposed,
                (36, 12, 3),
            ),
            (winograd._filter, winograd._filter_transposed, (3, 3, 4, 2)),
        ):
            given = jax.ShapeDtypeStruct(shape, jnp.float64)
            [g] = drawn(jax.eval_shape(transform, given).shape)
            (expected,) = jax.linear_transpose(transform, given)(jnp.asarray(g))
            # Of sums up to 200.
            np.testing.assert_allclose(transposed(jnp.asarray(g)), expected, rtol=0, atol=1e-12)


@pytest.fixture
def of_absolute_values(monkeypatch):
    """All three passes in float64, with the absolute values of all matrices."""

    def run(*given):
        for name in ("DATA", "FILTER", "INVERSE"):
            monkeypatch.setattr(winograd, name, np.abs(getattr(winograd, name)))
        jax.clear_caches()
        with jax.enable_x64(True):
            return passes(winograd, *(jnp.asarray(np.abs(each), jnp.float64) for each in given))

    yield run
    monkeypatch.undo()
    jax.clear_caches()


@pytest.mark.parametrize("size", [(8, 12), (9, 13), (6, 5), (4, 4)], ids=str)
def test_no_pass_is_further_off_than_sums_can_be(size: tuple[int, int], of_absolute_values):
    shapes = (2, *size, 32), (3, 3, 32, 16), (2, *size, 16)
    given = [each.astype(np.float32) for each in drawn(*shapes)]
    ours, right = passes(winograd, *given), by_definition(*given)
    tiles = 2 * -(-size[0] // winograd.SIDE) * -(-size[1] // winograd.SIDE)
    for a, b, largest, n in zip(
        ours, right, of_absolute_values(*given), (32, 16, tiles), strict=True
    ):
        # A sum of products that are rounded n times each, in any order: Higham, Accuracy and
        # Stability, 2002, section 3.1. Of the other stages, one adds six terms along columns and
        # six along rows, two at most 36, and the matrices themselves are rounded.
        bound = (n + 2 * winograd.TERMS + 2 * 36 + 3) * EPSILON * largest
        assert np.all(np.abs(a - b) <= bound)


def test_errors_are_near_those_of_xlas():
    shapes = (1, 32, 32, 64), (3, 3, 64, 64), (1, 32, 32, 64)
    given = [each.astype(np.float32) for each in drawn(*shapes)]
    right = by_definition(*given)
    y, back = jax.vjp(partial(convolution._plain, stride=1), *given[:2])
    alone = [np.asarray(each) for each in (y, *back(jnp.asarray(given[2])))]
    for ours, direct, exact in zip(passes(winograd, *given), alone, right, strict=True):
        # Measured, on larger layers, as 3 to 8 (docs/speed_cpu.md).
        assert np.std(ours - exact) <= 10 * np.std(direct - exact)


def test_bias_and_what_is_added():
    shapes = (1, 8, 12, 4), (3, 3, 4, 6), (6,), (1, 8, 12, 6)
    x, kernel, bias, added = (each.astype(np.float32) for each in drawn(*shapes))
    y = np.asarray(winograd.forward(x, kernel, None, None, 1))
    for further in (None, added):
        expected = y + bias if further is None else y + bias + further
        np.testing.assert_array_equal(winograd.forward(x, kernel, bias, further, 1), expected)
    by_bias = winograd.backward_weights(x, added, kernel.shape, 1, True)[1]
    bound = 8 * 12 * EPSILON * np.abs(added).sum((0, 1, 2))
    assert np.all(np.abs(np.asarray(by_bias) - added.sum((0, 1, 2), np.float64)) <= bound)
    assert winograd.backward_weights(x, added, kernel.shape, 1, False)[1] is None


def test_wide_layers_are_its():
    def pays(batch=1, height=32, width=32, inputs=64, outputs=64, side=3, stride=1, beside=False):
        shapes = (batch, height, width, inputs), (side, side, inputs, outputs)
        return winograd.pays(*shapes, stride, beside_onednn=beside)

    assert pays()
    assert pays(batch=4, height=5, width=5)
    assert not pays(batch=3, height=5, width=5)
    # 2²⁷ / 36 / 64 tiles are 58,254 and a bit.
    assert pays(height=4, width=4 * 58254)
    assert not pays(height=4, width=4 * 58254 + 1)
    assert not pays(height=4, width=4 * 58254, outputs=65)
    assert not pays(inputs=63)
    assert not pays(outputs=63)
    assert not pays(stride=2)
    assert not pays(side=1)
    assert not pays(side=5)
    # 10⁸ / 128² pixels are 6,103 and a bit.
    large = partial(pays, inputs=128, outputs=128, beside=True)
    assert large(batch=8, height=7, width=109)
    assert not large(height=17, width=359)
    assert not large(batch=8, height=64, width=109, inputs=127)
    assert not large(batch=8, height=64, width=109, outputs=127)


LAYER = (1, 16, 20, 64), (3, 3, 64, 64), (64,), (1, 16, 20, 64)
NARROW = (1, 16, 20, 8), (3, 3, 8, 8), (8,), (1, 16, 20, 8)
OURS = "tensor<36x"


def anywhere(monkeypatch):
    """Wide layers are its beside oneDNN, too."""
    monkeypatch.setattr(winograd, "FEWEST_PRODUCTS", 0)
    monkeypatch.setattr(winograd, "FEWEST_CHANNELS_BESIDE_ONEDNN", 64)


def gradients(*given):
    return jax.grad(lambda given: jnp.sum(jnp.sin(convolve(*given[:3], added=given[3]))))(given)


def lowered(*given) -> str:
    return jax.jit(lambda *given: gradients(*given)).lower(*given).as_text()  # Traced anew.


def test_a_layer_has_the_gradients_of_xlas(monkeypatch):
    anywhere(monkeypatch)
    given = [each.astype(np.float32) for each in drawn(*LAYER)]
    given[1] /= 24  # So that results are around 1.
    assert OURS in lowered(*given)
    ours = jax.jit(gradients)(*given)
    with xla_alone():
        alone = gradients(*given)
        with jax.enable_x64(True):
            right = gradients(*(np.asarray(each, np.float64) for each in given))
    right = map(np.asarray, right)
    for a, direct, exact in zip(ours, alone, right, strict=True):
        # Beside those of a layer's gradients, errors of its results, which the cosines have.
        assert np.std(np.asarray(a) - exact) <= 2 * 10 * np.std(np.asarray(direct) - exact)


@pytest.mark.parametrize(
    "available",
    [pytest.param(True, marks=needs_onednn, id="oneDNN"), pytest.param(False, id="XLA")],
)
def test_small_layers_are_onednns_where_it_is(available: bool, monkeypatch):
    monkeypatch.setattr(onednn, "available", lambda: available)
    monkeypatch.delenv(cores.THREADS, raising=False)
    text = lowered(*(each.astype(np.float32) for each in drawn(*LAYER)))
    assert (OURS in text) is not available
    assert ("onednn_forward" in text) is available
    narrow = lowered(*(each.astype(np.float32) for each in drawn(*NARROW)))
    assert OURS not in narrow
    assert ("onednn_forward" in narrow) is available


@needs_onednn
def test_all_layers_are_onednns_where_xla_has_one_thread(monkeypatch):
    anywhere(monkeypatch)
    monkeypatch.setenv(cores.THREADS, "1")
    text = lowered(*(each.astype(np.float32) for each in drawn(*LAYER)))
    assert OURS not in text
    assert "onednn_forward" in text


@pytest.mark.parametrize("platform", ["cuda", "rocm", "tpu"])
def test_other_devices_have_their_own(platform: str, monkeypatch):
    anywhere(monkeypatch)
    given = [each.astype(np.float32) for each in drawn(*LAYER)]
    trace = jax.jit(lambda *given: gradients(*given)).trace(*given)
    assert OURS in trace.lower(lowering_platforms=("cpu",)).as_text()
    assert OURS not in trace.lower(lowering_platforms=(platform,)).as_text()


def test_a_program_that_xla_divides_has_none(monkeypatch):
    anywhere(monkeypatch)
    x, kernel = (each.astype(np.float32) for each in drawn((8, 16, 20, 64), LAYER[1]))

    def divided(parallel: Jit | Shard) -> str:
        step: Any = parallel.train(lambda kernel, x: (kernel, convolve(x, kernel)))
        return step.lower(kernel, x).as_text()

    assert OURS not in divided(Shard())
    assert OURS in divided(Jit())


def test_other_numbers_are_xlas(monkeypatch):
    anywhere(monkeypatch)
    given = drawn(*LAYER)
    for dtype in (jnp.bfloat16, jnp.float16):
        assert OURS not in lowered(*(jnp.asarray(each, dtype) for each in given))
    with jax.enable_x64(True):
        assert OURS not in lowered(*map(jnp.asarray, given))
    with xla_alone():
        assert OURS not in lowered(*(jnp.asarray(each, jnp.float32) for each in given))


def test_layers_of_a_shape_are_traced_once(monkeypatch):
    traced, combined = [], winograd._combined

    def counted(*given) -> list[jax.Array]:
        traced.append(given)
        return combined(*given)

    monkeypatch.setattr(winograd, "_combined", counted)

    def layers(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return reduce(layer, [kernel] * 2, x)

    jax.clear_caches()  # Of what other tests traced of the same shapes.
    jax.make_jaxpr(layers)(*(jnp.ones(shape) for shape in LAYER[:2]))
    assert len(traced) == 2  # Columns and rows.


def test_kernels_wait_for_their_turn(monkeypatch):
    def memory():
        def run(x, *kernels):
            return reduce(layer, kernels, x)

        given = jnp.ones((1, 4, 8, 64)), *[jnp.ones((3, 3, 64, 64))] * 4
        analysis = jax.jit(run).lower(*given).compile().memory_analysis()
        assert analysis is not None
        return analysis.temp_size_in_bytes

    waiting = memory()
    monkeypatch.setattr(winograd, "_after", lambda x, kernel: kernel)
    assert memory() - waiting >= 2 * 36 * 64 * 64 * 4  # Of four.


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_what_is_not_finite_stays_in_its_tiles(value: float):
    x, kernel = (each.astype(np.float32) for each in drawn((2, 8, 8, 3), (3, 3, 3, 4)))
    right = np.array(winograd.forward(x, kernel, None, None, 1))
    x[0, 0, 0, 0] = value
    y = np.array(winograd.forward(jnp.asarray(x), kernel, None, None, 1))
    assert not np.isfinite(y[0, :2, :2]).any()
    right[0, :4, :4] = y[0, :4, :4] = 0
    np.testing.assert_array_equal(y, right)

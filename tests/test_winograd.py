"""3×3 convolutions by Winograd's F(4, 3) against XLA's in float64."""

import re
from functools import partial, reduce

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from unet_jax import onednn
from unet_jax.models import convolution
from unet_jax.models.convolution import convolve, xla_alone
from unet_jax.onednn import DIRECT, WINOGRAD, winograd
from unet_jax.onednn.stored import stored

needs_onednn = pytest.mark.skipif(
    not onednn.available(), reason='no oneDNN here: pip install -e ".[onednn]" on x86-64 Linux'
)
EPSILON = np.finfo(np.float32).eps


def drawn(*shapes, seed=0):
    generator = np.random.default_rng(seed)
    return [generator.standard_normal(shape) for shape in shapes]


def convolved_by_terms(sums, kernels):
    """[B, T, W, 6, C], [6, 1, 3, C, O] -> [B, T, W, 6, O], which is oneDNN's part."""
    across = partial(
        lax.conv_general_dilated,
        window_strides=(1, 1),
        padding=[(0, 0), (1, 1)],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return jnp.stack([across(sums[:, :, :, n], kernels[n]) for n in range(winograd.TERMS)], 3)


def by_definition(x, kernel):
    with jax.enable_x64(True), xla_alone():
        return np.asarray(convolution._plain(jnp.asarray(x), jnp.asarray(kernel), 1))


@pytest.mark.parametrize("height", range(1, 10))
def test_the_products_are_the_convolution(height: int):
    x, kernel = drawn((2, height, 5, 3), (3, 3, 3, 4))
    with jax.enable_x64(True):
        products = convolved_by_terms(winograd._data(x), winograd._filter(jnp.asarray(kernel)))
        y = winograd._inverse(products, height)
    np.testing.assert_allclose(y, by_definition(x, kernel), atol=1e-13)  # Of values around 5.


@needs_onednn
def test_layers_of_a_shape_are_traced_once(monkeypatch):
    traced, combined = [], winograd._combined

    def counted(*given, axis: int) -> jax.Array:
        traced.append(axis)
        return combined(*given, axis=axis)

    monkeypatch.setattr(winograd, "_combined", counted)

    def layers(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return convolve(convolve(x, kernel), kernel)

    shapes = (1, 52, 20, 64), (3, 3, 64, 64)
    jax.clear_caches()  # Of what other tests traced of the same shapes.
    jax.make_jaxpr(layers)(*(jnp.ones(shape) for shape in shapes))
    assert len(traced) == 3  # Of an image, a kernel, and what they make.


@pytest.mark.parametrize("height", range(1, 10))
@pytest.mark.parametrize(
    ("transform", "transposed", "shape"),
    [
        (winograd._data, winograd._data_transposed, lambda height: (2, height, 5, 3)),
        (winograd._inverse_transposed, winograd._inverse, lambda height: (2, height, 5, 3)),
        (
            winograd._filter,
            lambda sums, _: winograd._filter_transposed(sums),
            lambda height: (3, 3, height, 2),
        ),
    ],
    ids=["data", "inverse", "filter"],
)
def test_gradients_are_by_the_transposes(transform, transposed, shape, height: int):
    with jax.enable_x64(True):
        x = jax.ShapeDtypeStruct(shape(height), jnp.float64)
        [given] = drawn(jax.eval_shape(transform, x).shape)
        (expected,) = jax.linear_transpose(transform, x)(jnp.asarray(given))
        np.testing.assert_allclose(transposed(jnp.asarray(given), height), expected, atol=1e-13)


def with_gradients(run, x, kernel, g):
    """What it makes of x and kernel, and the gradients of both, g being that of the result."""
    with jax.enable_x64(True), xla_alone():
        y, back = jax.vjp(run, *(jnp.asarray(each, jnp.float64) for each in (x, kernel)))
        return [np.asarray(each) for each in (y, *back(jnp.asarray(g, jnp.float64)))]


def in_three_stages(x, kernel):
    products = convolved_by_terms(winograd._data(x), winograd._filter(kernel))
    return winograd._inverse(products, x.shape[1])


@needs_onednn
@pytest.mark.parametrize("inputs", [8, 256])  # Of 256, oneDNN copies kernels in pieces.
@pytest.mark.parametrize("size", [(8, 12), (9, 13), (6, 5), (3, 4)], ids=str)
def test_every_pass_is_xlas(size: tuple[int, int], inputs: int, monkeypatch):
    shapes = (2, *size, inputs), (3, 3, inputs, 16), (2, *size, 16)
    x, kernel, g = given = [each.astype(np.float32) for each in drawn(*shapes)]
    by_kernel, by_bias = winograd.backward_weights(x, g, kernel.shape, 1, True)
    ours = [
        winograd.forward(x, kernel, None, None),
        winograd.backward_data(g, kernel, x.shape),
        by_kernel,
    ]
    right = with_gradients(partial(convolution._plain, stride=1), *given)
    for name in ("DATA", "FILTER", "INVERSE"):
        monkeypatch.setattr(winograd, name, np.abs(getattr(winograd, name)))
    absolute = with_gradients(in_three_stages, *map(np.abs, given))
    products = 3 * inputs, 3 * 16, 2 * -(-size[0] // 4) * size[1]
    for a, b, largest, n in zip(ours, right, absolute, products, strict=True):
        # A sum of products that are rounded n times each, in any order and in three stages: Higham,
        # Accuracy and Stability, 2002, section 3.1. Each transform has at most six terms.
        bound = (n + 3 * winograd.TERMS) * EPSILON * largest
        assert np.all(np.abs(np.asarray(a) - b) <= bound)
    bound = g[0, ..., 0].size * 2 * EPSILON * np.abs(g).sum((0, 1, 2))
    assert np.all(np.abs(np.asarray(by_bias) - g.sum((0, 1, 2), np.float64)) <= bound)


@needs_onednn
def test_bias_and_what_is_added():
    shapes = (1, 8, 12, 64), (3, 3, 64, 64), (64,), (1, 8, 12, 64)
    x, kernel, bias, added = (each.astype(np.float32) for each in drawn(*shapes))
    y = np.asarray(winograd.forward(x, kernel, None, None))
    # The same numbers, so that only the sums are rounded, of values below 100.
    for further in (None, added):
        expected = y + bias if further is None else y + bias + further
        result = np.asarray(winograd.forward(x, kernel, bias, further))
        assert np.all(np.abs(result - expected) <= 100 * EPSILON)
    assert winograd.backward_weights(x, added, kernel.shape, 1, False)[1] is None


def test_large_layers_are_its():
    def chosen(batch=1, height=32, width=32, inputs=64, outputs=64, side=3, stride=1):
        found = onednn.passes((batch, height, width, inputs), (side, side, inputs, outputs), stride)
        assert found in (DIRECT, WINOGRAD)
        return found is WINOGRAD

    assert chosen()
    assert chosen(batch=4, height=16, width=16)
    assert not chosen(batch=1024, height=1, width=1)
    for small in ({"width": 31}, {"inputs": 63}, {"outputs": 63}):
        assert not chosen(**small)
    assert not chosen(height=64, width=64, stride=2)
    assert not chosen(side=1)
    assert not chosen(side=5)


LARGE = (1, 32, 32, 64), (3, 3, 64, 64), (64,), (1, 32, 32, 64)


@needs_onednn
def test_a_layer_has_the_gradients_of_xlas():
    given = [each.astype(np.float32) for each in drawn(*LARGE)]
    given[1] /= 24  # So that results are around 1.

    def gradients(*given):
        return jax.grad(lambda given: jnp.sum(jnp.sin(convolve(*given[:3], added=given[3]))))(given)

    text = jax.jit(gradients).lower(*given).as_text()
    assert len(set(re.findall(r"@unet_jax_onednn_(\w+?)_1x8x32x6x64", text))) == 3, "not asked"
    ours = jax.jit(gradients)(*given)
    with jax.enable_x64(True), xla_alone():
        right = gradients(*(np.asarray(each, np.float64) for each in given))
    for a, b in zip(ours, right, strict=True):
        # Results, up to 7, are off by less than ten ulps of that, and so are their cosines, which
        # all gradients are made of.
        largest = np.abs(np.asarray(b)).max()
        np.testing.assert_allclose(a, b, atol=10 * 7 * EPSILON * largest)


@needs_onednn
def test_errors_are_near_those_of_onednn():
    x, kernel, g = given = [each.astype(np.float32) for each in drawn(*LARGE[:2], LARGE[3])]
    right = with_gradients(partial(convolution._plain, stride=1), *given)

    def errors(by):
        results = (
            by.forward(x, kernel, None, None, 1),
            by.backward_data(g, kernel, x.shape, 1),
            by.backward_weights(x, g, kernel.shape, 1, False)[0],
        )
        return np.array([np.std(np.asarray(a) - b) for a, b in zip(results, right, strict=True)])

    # Measured, on larger layers, as 1.3 to 1.9 (docs/speed_cpu.md).
    assert np.all(errors(WINOGRAD) <= 3 * errors(DIRECT))


@needs_onednn
def test_an_axis_can_be_mapped():
    x, kernel, *_ = (each.astype(np.float32) for each in drawn((2, *LARGE[0]), *LARGE[1:]))
    mapped = jax.vmap(lambda x: convolve(x, kernel))(x)
    np.testing.assert_array_equal(mapped, jnp.stack([convolve(each, kernel) for each in x]))


def gradients(x, kernel):
    return jax.grad(lambda *given: jnp.sum(jnp.sin(convolve(*given))), (0, 1))(x, kernel)


@needs_onednn
def test_every_device_has_its_own():
    """They call the library at the same time."""
    devices = jax.local_device_count()
    assert devices > 1
    x, kernel = (each.astype(np.float32) for each in drawn((devices, *LARGE[0]), LARGE[1]))
    mapped = jax.pmap(gradients, in_axes=(0, None))(x, kernel)
    alone = [jax.jit(gradients)(each, kernel) for each in x]
    for ours, right in zip(mapped, zip(*alone, strict=True), strict=True):
        # How many threads take part decides in which order a kernel's gradient is summed.
        largest = np.abs(right).max()
        np.testing.assert_allclose(ours, np.stack(right), atol=10 * EPSILON * largest)


@needs_onednn
def test_a_layer_computed_anew_has_the_same_gradients():
    """As `--remat` has it."""
    x, kernel = (each.astype(np.float32) for each in drawn(*LARGE[:2]))

    def layers(x, kernel):
        return convolve(jnp.sin(convolve(x, kernel)), kernel)

    def lowered(layers):
        gradients = jax.grad(lambda *given: jnp.sum(layers(*given) ** 2), (0, 1))
        return jax.jit(gradients).lower(x, kernel)

    kept, anew = lowered(layers), lowered(jax.checkpoint(layers))
    counts = [each.as_text().count("@unet_jax_onednn_forward") for each in (kept, anew)]
    assert counts[0] < counts[1], "nothing is computed anew"
    for ours, right in zip(anew.compile()(x, kernel), kept.compile()(x, kernel), strict=True):
        np.testing.assert_array_equal(ours, right)


@needs_onednn
def test_what_is_stored_is_computed_once():
    def fusions(store):
        def run(x):
            return winograd._data(store(winograd._inverse(winograd._data(x), x.shape[1])))

        text = str(jax.jit(run).lower(jnp.ones(LARGE[0])).compile().as_text())
        return text[text.index("ENTRY") :].count("fusion(")

    assert fusions(stored) == fusions(lambda x: x) + 1


@needs_onednn
def test_kernels_wait_for_their_turn(monkeypatch):
    def memory():
        def run(x, *kernels):
            return reduce(partial(winograd.forward, bias=None, added=None), kernels, x)

        given = jnp.ones((1, 4, 8, 64)), *[jnp.ones((3, 3, 64, 64))] * 4
        analysis = jax.jit(run).lower(*given).compile().memory_analysis()
        assert analysis is not None
        return analysis.temp_size_in_bytes

    waiting = memory()
    monkeypatch.setattr(winograd, "one_after", lambda x: 1)
    # Two of four, of which oneDNN's own copy is one, instead of all four.
    assert memory() - waiting >= 2 * 6 * 3 * 64 * 64 * 4


def test_what_is_stored_stays_as_it_is():
    x = jnp.arange(4.0)

    def run(x):
        more = x + 1
        return stored(x), stored(more), more * 2

    one, two, three = jax.jit(run)(x)
    for values in (x, one, two - 1, three / 2 - 1):
        np.testing.assert_array_equal(values, np.arange(4.0))

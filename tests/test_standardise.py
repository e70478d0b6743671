"""Group and batch norm's arithmetic, against its definition."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unet_jax.models import passes
from unet_jax.models import standardise as norms
from unet_jax.models.standardise import FAR, Alike, standardise

ALIKE = pytest.mark.parametrize("alike", [Alike(), Alike(groups=3)], ids=["batch", "group"])
SHAPE = (2, 40, 30, 6)


@pytest.fixture(params=["a CPU's code", "a GPU's", "a TPU's"])
def code(request, monkeypatch):
    """All of them, run on a CPU."""
    if request.param != "a CPU's code":
        monkeypatch.setattr(norms, "_by_squares", norms._shifted)
    if request.param == "a GPU's":
        monkeypatch.setattr(passes, "_at_once", passes._by_pieces)


def defined(x, scale, bias, alike: Alike):
    """Result, mean and variance, of which the last two are of each group or channel."""
    grouped = x.reshape(*x.shape[:3], alike.groups or x.shape[-1], -1)
    axes = (1, 2, 4) if alike.groups else (0, 1, 2, 4)
    mean, variance = grouped.mean(axes, keepdims=True), grouped.var(axes, keepdims=True)
    normal = ((grouped - mean) / jnp.sqrt(variance + 1e-5)).reshape(x.shape)
    return normal * scale.reshape(1, 1, 1, -1) + bias.reshape(1, 1, 1, -1), mean, variance


def drawn(shape=SHAPE):
    rng = np.random.default_rng(0)
    return rng.normal(size=shape), rng.normal(size=shape[-1]), rng.normal(size=shape[-1])


@pytest.mark.usefixtures("code")
@ALIKE
def test_values_and_gradients_are_those_of_the_definition(alike: Alike):
    with jax.enable_x64(True):
        given = [jnp.asarray(each) for each in drawn()]

        def total(function, *given):
            return jnp.sum(jnp.sin(function(*given)[0]))

        of_definition = partial(total, partial(defined, alike=alike))
        ours = partial(total, lambda *given: standardise(*given, alike=alike, epsilon=1e-5))
        for run in (lambda f: f, partial(jax.grad, argnums=(0, 1, 2))):
            right, found = (jax.tree.leaves(jax.jit(run(f))(*given)) for f in (of_definition, ours))
            for a, b in zip(right, found, strict=True):
                np.testing.assert_allclose(b, a, rtol=0, atol=1e-12 * np.abs(a).max())


@pytest.mark.usefixtures("code")
@ALIKE
@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16"])
def test_a_relu_within_is_one_that_follows(dtype: str, alike: Alike):
    """In float16 two thirds of the values that are above 0 are rounded to it."""
    with jax.enable_x64(True):
        x, scale, bias = drawn()
        tiny = 3e-8 if dtype == "float16" else 1.0
        kind = np.float64 if dtype == "float64" else np.float32
        given = (
            jnp.asarray(x, dtype),
            jnp.asarray(tiny * scale, kind),
            jnp.asarray(tiny * bias, kind),
        )

        @partial(jax.jit, static_argnums=0)
        def run(function):
            y, pull = jax.vjp(function, *given)
            g = jnp.asarray(np.random.default_rng(1).normal(size=y.shape), y.dtype)
            return y, *pull(g)

        def apart(x, scale, bias):
            return nn.relu(standardise(x, scale, bias, alike, 1e-5)[0])

        def within(x, scale, bias):
            return standardise(x, scale, bias, alike, 1e-5, rectified=True)[0]

        for a, b in zip(run(apart), run(within), strict=True):
            np.testing.assert_array_equal(b.astype(kind), a.astype(kind))


@pytest.mark.usefixtures("code")
@ALIKE
@pytest.mark.parametrize("distance", [0, 0.98 * FAR**0.5, 1.05 * FAR**0.5, 1000])
@pytest.mark.parametrize("shape", [SHAPE, (1, 320, 480, 6)], ids=str)
def test_far_from_0_a_variance_keeps_its_digits(shape, distance: float, alike: Alike):
    x, scale, bias = (np.asarray(each, np.float32) for each in drawn(shape))
    x += np.float32(distance)
    y, mean, variance = jax.jit(lambda *given: standardise(*given, alike=alike, epsilon=1e-5))(
        x, scale, bias
    )
    with jax.enable_x64(True):
        right = defined(*(np.asarray(each, np.float64) for each in (x, scale, bias)), alike=alike)
    kept = mean.shape[0], alike.groups or 6, -1
    for found, exact in ((mean, right[1]), (variance, right[2])):
        found, exact = (np.asarray(each).reshape(kept)[..., :1] for each in (found, exact))
        # What FAR allows; 1,000 deviations from 0, E[x²] - E[x]² would be off by a tenth.
        np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-6)
    # x itself is known to half a unit of its last place.
    np.testing.assert_allclose(y, right[0], rtol=0, atol=1e-4 + 1e-6 * distance)


@pytest.mark.usefixtures("code")
def test_devices_may_differ_in_how_far_they_are():
    with jax.enable_x64(True):
        x, scale, bias = drawn((2, *SHAPE))
        x = x * np.reshape([20, 0.1], (2, 1, 1, 1, 1)) + np.reshape([10, 10.5], (2, 1, 1, 1, 1))
        alike = Alike(axis_name="devices")
        run = jax.pmap(
            lambda x: standardise(x, scale, bias, alike, 1e-5), "devices", devices=jax.devices()[:2]
        )
        y, _, variance = run(x)
        flat = jnp.asarray(x.reshape(-1, *SHAPE[1:]))
        right = defined(flat, scale, bias, alike)
        by_x = jax.grad(lambda x: jnp.sum(jnp.sin(defined(x, scale, bias, alike)[0])))(flat)
        ours = jax.pmap(
            jax.grad(lambda x: jnp.sum(jnp.sin(standardise(x, scale, bias, alike, 1e-5)[0]))),
            "devices",
            devices=jax.devices()[:2],
        )(x)
    np.testing.assert_allclose(ours.reshape(by_x.shape), by_x, rtol=0, atol=1e-12)
    np.testing.assert_allclose(y.reshape(right[0].shape), right[0], rtol=0, atol=1e-12)
    np.testing.assert_allclose(variance.reshape(2, -1), np.tile(right[2].ravel(), (2, 1)), 1e-12)


@pytest.mark.usefixtures("code")
@ALIKE
@pytest.mark.parametrize("mean", [3e19, 1e18], ids=["each", "their sum"])
def test_squares_may_overflow(mean: float, alike: Alike):
    x, scale, bias = (np.asarray(each, np.float32) for each in drawn())
    x = mean + np.float32(mean / 300) * x
    y = jax.jit(lambda *given: standardise(*given, alike=alike, epsilon=1e-5)[0])(x, scale, bias)
    with jax.enable_x64(True):
        right = defined(*(np.asarray(each, np.float64) for each in (x, scale, bias)), alike=alike)
    # A mean is known to some 3e-8 of it, or 1e-5 deviations, times the roundings of its sum.
    np.testing.assert_allclose(y, right[0], rtol=0, atol=1e-3)


@pytest.mark.parametrize("far", [4, 99], ids=["a sixteenth is far off", "one pixel is"])
@pytest.mark.parametrize("shape", [(1, 1, 1, 2), (1, 3, 5, 2), (2, 40, 31, 6)], ids=str)
def test_a_mean_of_a_sixteenth_is_near_enough_whatever_the_pixels_are(shape, far: int):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    x[:, ::far, ::far] = 1000
    right = x.astype(np.float64).mean((0, 1, 2)), x.astype(np.float64).var((0, 1, 2))
    found = norms._shifted(jnp.asarray(x), Alike())
    for ours, exact in zip(found, right, strict=True):
        # Of y, of its square, of two sums and of a product, 6e-8 each; a sixteenth may be left.
        np.testing.assert_allclose(ours.reshape(-1), exact, rtol=16 * 5 * 6e-8)


@pytest.mark.usefixtures("code")
@pytest.mark.parametrize("alike", [Alike(), Alike(groups=60)], ids=["batch", "group"])
@pytest.mark.parametrize("value", [0, 1e3, 1e6])
def test_equal_values_have_no_variance_below_0(value: float, alike: Alike):
    levels = value * np.random.default_rng(0).uniform(0.9, 1.1, 60)
    x = jnp.asarray(np.broadcast_to(levels.astype(np.float32), (2, 37, 53, 60)))
    y, _, variance = standardise(x, jnp.ones(60), jnp.zeros(60), alike, 1e-5)
    assert np.all(np.asarray(variance) >= 0)
    assert np.all(np.isfinite(y))


def test_only_a_cpu_looks_how_far_it_is_and_not_in_half_precision():
    def comparisons(platform: str, dtype=jnp.float32) -> int:
        given = [jnp.asarray(each, dtype) for each in drawn()]
        run = jax.jit(lambda *given: standardise(*given, alike=Alike(3), epsilon=1e-5))
        lowered = run.trace(*given).lower(lowering_platforms=(platform,))
        return lowered.as_text().count("stablehlo.compare")

    assert comparisons("cpu") == 1
    assert comparisons("cuda") == comparisons("tpu") == comparisons("cpu", jnp.bfloat16) == 0


def test_no_gradient_comes_through_the_statistics():
    x, scale, bias = (jnp.asarray(each, jnp.float32) for each in drawn())
    gradient = jax.grad(lambda x: sum(map(jnp.sum, standardise(x, scale, bias, Alike(), 1e-5)[1:])))
    assert not np.any(gradient(x))

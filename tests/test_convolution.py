"""Our gradients of a convolution against XLA's."""

import contextlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parity.row import relative_error
from unet_jax.models import convolution, kernel_products, passes
from unet_jax.models.convolution import FEW, convolve, xla_alone


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("inputs", [FEW - 1, FEW])
@pytest.mark.parametrize("size", [(8, 12), (9, 13), (7, 10)], ids=str)
@pytest.mark.parametrize(
    ("side", "stride"), [(1, 1), (3, 1), (5, 1), (1, 2), (3, 2), (5, 2), (3, 3)]
)
@pytest.mark.parametrize("more", [(), ("bias",), ("added",), ("bias", "added")], ids="+".join)
def test_gradients_are_xlas(
    side: int, stride: int, size: tuple[int, int], inputs: int, more: tuple[str, ...]
):
    keys = jax.random.split(jax.random.key(0), 5)
    shapes = {"x": (2, *size, inputs), "kernel": (side, side, inputs, 3), "bias": (3,)}
    shapes["added"] = (2, *(-(-n // stride) for n in size), 3)
    given = {
        name: jax.random.normal(key, shape, jnp.float64)
        for key, (name, shape) in zip(keys, shapes.items(), strict=False)
        if name in ("x", "kernel", *more)
    }

    def gradients(run):
        y, pull = jax.vjp(lambda given: run(**given), given)
        return y, *pull(jax.random.normal(keys[4], y.shape, y.dtype))

    def plain(x, kernel, bias=0.0, added=0.0):
        return convolution._plain(x, kernel, stride) + jnp.reshape(bias, (1, 1, 1, -1)) + added

    ours, xlas = gradients(partial(convolve, stride=stride)), gradients(plain)
    # Sums of at most 300 products in another order.
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(xlas), strict=True):
        assert relative_error(np.asarray(a), np.asarray(b)) <= 1e-14


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("most", [1, 4, 100], ids=["a row", "some rows", "an image"])
@pytest.mark.parametrize("size", [(8, 12), (9, 13), (7, 10)], ids=str)
@pytest.mark.parametrize(("side", "stride"), [(1, 2), (3, 1), (3, 2), (3, 3), (5, 2)])
def test_a_kernels_gradient_is_the_sum_over_bands(
    side: int, stride: int, size: tuple[int, int], most: int, monkeypatch: pytest.MonkeyPatch
):
    divide = kernel_products._rows
    monkeypatch.setattr(kernel_products, "_rows", lambda height, _: divide(height, most))
    monkeypatch.setattr(kernel_products, "WHOLE", 0)
    keys = jax.random.split(jax.random.key(0), 2)
    x = jax.random.normal(keys[0], (2, *size, 8), jnp.float64)
    g = jax.random.normal(keys[1], (2, *(-(-n // stride) for n in size), 3), jnp.float64)
    by_products = partial(kernel_products.kernel_by_products, x, g, side=side, stride=stride)
    loops = str(jax.make_jaxpr(partial(by_products, banded=True))()).count("scan[")
    assert loops == 1
    xlas = convolution._kernel_by_convolution(x, g, side=side, stride=stride)
    assert relative_error(np.asarray(by_products(banded=True)), np.asarray(xlas)) <= 1e-14


@pytest.mark.parametrize(
    ("height", "most", "rows"), [(256, 10, 8), (9, 8, 3), (7, 6, 1), (7, 7, 7), (7, 0, 1)]
)
def test_a_bands_rows_divide_the_height(height: int, most: int, rows: int):
    assert kernel_products._rows(height, most) == rows


def test_only_large_images_of_what_is_not_divided_are_gone_through_in_a_loop():
    def loops(height: int, width: int = 256, channels: int = 64, *, alone: bool = False) -> int:
        by_kernel = jax.grad(lambda x, kernel: convolve(x, kernel).sum(), argnums=1)
        shapes = (2, height, width, channels), (3, 3, channels, channels)
        given = [jax.ShapeDtypeStruct(shape, jnp.float64) for shape in shapes]
        with xla_alone() if alone else contextlib.nullcontext():
            return str(jax.make_jaxpr(by_kernel)(*given)).count("scan[")

    with jax.enable_x64(True):  # Which no library computes.
        assert loops(16) == 1
        assert loops(8) == 0
        assert loops(16, alone=True) == 0
        assert loops(36, 56, 512) == 1
        assert loops(37, 56, 512) == 0  # All of the kernel would be written for each row.


def lowered(gradient, *shapes, platform: str, dtype=jnp.float32) -> str:
    """What XLA is given."""
    arrays = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]
    with xla_alone():
        trace = jax.jit(gradient).trace(*arrays)
    return trace.lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize(
    ("dtype", "products"), [(jnp.float32, True), (jnp.bfloat16, False)], ids=["float32", "bfloat16"]
)
def test_a_cpu_computes_a_kernels_gradient_by_products(dtype, products: bool):
    by_kernel = jax.grad(lambda x, kernel: convolve(x, kernel).sum(), argnums=1)
    code = partial(lowered, by_kernel, (1, 16, 16, FEW), (3, 3, FEW, 4), dtype=dtype)
    assert ("dot_general" in code(platform="cpu")) is products
    assert "dot_general" not in code(platform="cuda")


def test_a_cpu_puts_no_zeros_between_the_pixels_of_a_strided_gradient():
    by_x = jax.grad(lambda x, kernel: convolve(x, kernel, stride=2).sum())
    code = partial(lowered, by_x, (1, 16, 16, FEW), (3, 3, FEW, 4))
    zeros = "lhs_dilate = [2, 2]"
    assert zeros not in code(platform="cpu")
    assert zeros in code(platform="cuda")


def test_a_kernels_gradient_is_in_order_before_it_is_used_on_a_gpu_alone():
    by_kernel = jax.grad(lambda x, kernel: convolve(x, kernel).sum(), argnums=1)
    code = partial(lowered, by_kernel, (1, 16, 16, FEW), (3, 3, FEW, 4))
    assert "optimization_barrier" not in code(platform="cpu") + code(platform="tpu")
    assert code(platform="cuda").count("optimization_barrier") == 1


@pytest.mark.parametrize(
    ("kernel", "stride", "product"),
    [
        ((1, 1, 8, 1), 1, "multiply"),
        ((1, 1, 8, 1), 2, "convolution"),
        ((1, 1, 8, 2), 1, "dot_general"),
        ((3, 3, 8, 1), 1, "convolution"),
    ],
    ids=str,
)
def test_a_gpu_computes_a_pixels_kernel_to_one_channel_by_sums(
    kernel: tuple[int, ...], stride: int, product: str
):
    def convolved(kernel: jax.Array, x: jax.Array) -> jax.Array:
        return convolve(x, kernel, stride=stride)

    for run in convolved, jax.grad(lambda *given: convolved(*given).sum()):
        code = lowered(run, kernel, (2, 16, 16, 8), platform="cuda")
        products = [each for each in ("multiply", "convolution", "dot_general") if each in code]
        assert products == [product]


def test_a_cpu_computes_it_as_a_product():
    def convolved(kernel: jax.Array, x: jax.Array) -> jax.Array:
        with xla_alone():
            return convolve(x, kernel)

    for run in convolved, jax.grad(lambda *given: convolved(*given).sum()):
        assert "dot_general" in lowered(run, (1, 1, 8, 1), (2, 16, 16, 8), platform="cpu")


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("dtype", "limit"),
    [("float64", 1e-15), ("float32", 1e-6), ("float16", 1e-4), ("bfloat16", 0)],
)
def test_channels_sums_are_what_a_kernel_to_one_channel_makes(dtype, limit: float):
    """In half precision rounded once: summed in it, they are off by 3.4e-4 and 2.7e-3.

    Of the few sums beside a rounding's edge, float32's order may decide.
    """
    x = jax.random.normal(jax.random.key(0), (2, 12, 16, 64)).astype(dtype)
    kernel = jax.random.normal(jax.random.key(1), (1, 1, 64, 1)).astype(dtype)
    exact = convolution._plain(x.astype(jnp.float64), kernel.astype(jnp.float64), 1)
    found = convolution._channel_sums(x, kernel)
    assert found.dtype == dtype
    assert found.shape == exact.shape
    exact = np.asarray(exact.astype(dtype), np.float64)
    assert relative_error(np.asarray(found, np.float64), exact) <= limit


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("code", [passes._at_once, passes._by_pieces])
@pytest.mark.parametrize(
    ("dtype", "limit"),
    [("float64", 1e-14), ("float32", 1e-6), ("float16", 2**-11), ("bfloat16", 0)],
)
def test_sums_are_the_gradient_of_a_kernel_to_one_channel(dtype, limit: float, code, monkeypatch):
    """In another order; of half precision rounded once, and not for each product.

    float16's digits are near enough to float32's for the order to decide a rounding.
    """
    monkeypatch.setattr(passes, "_at_once", code)  # Which a CPU runs.
    x, g = (
        jax.random.normal(jax.random.key(n), (2, 12, 16, channels)).astype(dtype)
        for n, channels in enumerate((8, 1))
    )
    exact = jnp.einsum("bhwi,bhwo->io", x.astype(jnp.float64), g.astype(jnp.float64))
    found = convolution._kernel_by_sums(x, g)
    assert found.dtype == dtype
    exact = np.asarray(exact.astype(dtype), np.float64).reshape(1, 1, 8, 1)
    assert relative_error(np.asarray(found, np.float64), exact) <= limit

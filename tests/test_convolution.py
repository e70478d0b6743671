"""Our gradients of a convolution against XLA's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parity.row import relative_error
from unet_jax.models import convolution
from unet_jax.models.convolution import FEW, convolve, xla_alone


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("inputs", [FEW - 1, FEW])
@pytest.mark.parametrize("size", [(8, 12), (9, 13), (7, 10)], ids=str)
@pytest.mark.parametrize(
    ("side", "stride"), [(1, 1), (3, 1), (5, 1), (1, 2), (3, 2), (5, 2), (3, 3)]
)
def test_gradients_are_xlas(side: int, stride: int, size: tuple[int, int], inputs: int):
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (2, *size, inputs), jnp.float64)
    kernel = jax.random.normal(keys[1], (side, side, inputs, 3), jnp.float64)

    def gradients(run):
        y, pull = jax.vjp(run, x, kernel)
        return y, *pull(jax.random.normal(keys[2], y.shape, y.dtype))

    ours = gradients(lambda x, kernel: convolve(x, kernel, stride=stride))
    xlas = gradients(lambda x, kernel: convolution._plain(x, kernel, stride))
    # Sums of at most 300 products in another order.
    for a, b in zip(ours, xlas, strict=True):
        assert relative_error(np.asarray(a), np.asarray(b)) <= 1e-14


@pytest.mark.parametrize(
    ("dtype", "products"), [(jnp.float32, True), (jnp.bfloat16, False)], ids=["float32", "bfloat16"]
)
def test_a_cpu_computes_a_kernels_gradient_by_products(dtype, products: bool):
    shapes = (1, 16, 16, FEW), (3, 3, FEW, 4)
    x, kernel = (jax.ShapeDtypeStruct(shape, dtype) for shape in shapes)
    by_kernel = jax.grad(lambda x, kernel: convolve(x, kernel).sum(), argnums=1)
    with xla_alone():
        trace = jax.jit(by_kernel).trace(x, kernel)
    lowered = trace.lower(lowering_platforms=("cpu",)).as_text()
    assert ("dot_general" in lowered) is products
    elsewhere = trace.lower(lowering_platforms=("cuda",)).as_text()
    assert "dot_general" not in elsewhere

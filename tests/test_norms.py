"""Norm layers beside convolutions and ReLUs: as one, and one by one."""

import re
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unet_jax.models import layers
from unet_jax.models.layers import Affine, Conv, Dtype
from unet_jax.models.norms import Norm, NormKind


@pytest.fixture(params=["a CPU's code", "other devices'"])
def code(request, monkeypatch):
    """Both, run on a CPU."""
    if request.param != "a CPU's code":
        monkeypatch.setattr(layers, "_scaled", layers._folded)


KINDS = pytest.mark.parametrize("kind", ["batch", "group", "none"])


class Block(nn.Module):
    kind: NormKind
    use_bias: bool = False
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x, train=False):
        norm = Norm(self.kind, groups=3, axis_name=None)
        x = norm.rectified(self, x, train, "norm_1")
        conv = Conv(6, use_bias=self.use_bias, dtype=self.dtype, name="conv")
        return norm.after(conv, self, x, train, "norm_2")


def drawn(block: Block, dtype=jnp.float64) -> tuple[Any, jax.Array]:
    """Variables, the running variances of which are from a half to 2, and an image."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 5, 7, 3)), dtype)
    shapes: Any = jax.eval_shape(block.init, jax.random.key(0), x)

    def values(path: Any, leaf: Any) -> jax.Array:
        draw = partial(rng.uniform, 0.5, 2) if path[-1].key == "var" else rng.normal
        return jnp.asarray(draw(size=leaf.shape), leaf.dtype)

    return jax.tree_util.tree_map_with_path(values, shapes), x


def run(block: Block, *args: Any, captured: bool = False) -> Any:
    """The result, and what changed; with each layer's result, if that is asked for."""
    mutable = ["batch_stats", *(["intermediates"] if captured else [])]
    return block.apply(*args, mutable=mutable, capture_intermediates=captured)


@pytest.mark.usefixtures("code")
@KINDS
@pytest.mark.parametrize("use_bias", [False, True])
@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
def test_layers_are_one_unless_each_is_asked_for(train: bool, use_bias: bool, kind: NormKind):
    with jax.enable_x64(True):
        block = Block(kind, use_bias)
        variables, x = drawn(block)
        y, updates = run(block, variables, x, train)
        apart, found = run(block, variables, x, train, captured=True)
        each = found.pop("intermediates")
        np.testing.assert_allclose(y, apart, rtol=0, atol=1e-14 * apart.max())
        jax.tree.map(np.testing.assert_array_equal, updates, found)
        assert 0 == y.min() < y.max()
        names = {"conv", "norm_1", "norm_2"} if kind != "none" else {"conv"}
        assert each.keys() - {"__call__"} == names
        last: Any = each["norm_2" if kind != "none" else "conv"]["__call__"][0]
        np.testing.assert_array_equal(apart, jnp.maximum(last, 0))


def test_by_running_statistics_a_batch_norm_is_folded_but_on_a_cpu():
    block = Block("batch")
    variables, x = drawn(block, jnp.float32)

    def scaled(platform: str, train: bool) -> bool:
        step = jax.jit(lambda v, x: run(block, v, x, train))
        text = step.trace(variables, x).lower(lowering_platforms=(platform,)).as_text()
        return re.search("stablehlo.multiply .*tensor<2x5x7x6x", text) is not None

    assert scaled("cuda", train=True)
    assert scaled("cpu", train=False)
    assert not scaled("cuda", train=False)
    assert not scaled("tpu", train=False)


def test_a_convolution_does_not_both_add_and_scale():
    x, then = jnp.ones((1, 5, 7, 3)), Affine(jnp.ones(3), jnp.ones(3))
    with pytest.raises(ValueError, match="cannot be scaled and added to"):
        Conv(3).init(jax.random.key(0), x, added=x, then=then)


@pytest.mark.usefixtures("code")
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16], ids=["bfloat16", "float16"])
def test_folded_it_is_about_as_exact_in_half_precision(dtype):
    variables, x = drawn(Block("batch"), jnp.float32)
    exact, _ = run(Block("batch"), variables, x)
    block = Block("batch", dtype=dtype)
    folded, _ = run(block, variables, x.astype(dtype))
    apart, _ = run(block, variables, x.astype(dtype), captured=True)
    assert folded.dtype == apart.dtype == dtype
    one, other = (np.std(y.astype(np.float32) - exact) for y in (folded, apart))
    assert one < 1.5 * other  # Of 420 values. The shift and its sum are rounded, too.

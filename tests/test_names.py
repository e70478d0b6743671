"""Where entries of a module go in a JAX tree: by kind of layer, or by name; never guessed."""

from dataclasses import dataclass

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from torch import nn

from parity import Pair
from parity.convert import LAYERS, ConversionError
from parity.pairs.names import leaves, match

TREES = {
    "a dict": lambda w, b: {"w": w, "b": b},
    "a list": lambda w, b: [w, [b]],
    "a name with slashes": lambda w, b: {"mlp/~/linear": {"w": w, "b": b}},
    "a class": lambda w, b: Weights(w, b),
}


@jax.tree_util.register_dataclass
@dataclass
class Weights:
    w: jax.Array
    b: jax.Array


def nothing(variables, x):
    return x


@pytest.mark.parametrize("build", TREES.values(), ids=TREES.keys())
def test_any_tree_round_trips_to_the_byte(build) -> None:
    module = nn.Linear(2, 3)
    tree = build(jnp.zeros((2, 3)), jnp.zeros(3))
    by_shape = {np.ndim(leaf): path for path, leaf in leaves(tree).items()}
    names = {"weight": (by_shape[2], (1, 0)), "bias": by_shape[1]}
    pair = Pair(module, nothing, tree, names=names)
    variables = pair.to_jax()
    assert jax.tree.structure(variables) == jax.tree.structure(tree)
    np.testing.assert_array_equal(leaves(variables)[by_shape[2]], module.weight.detach().numpy().T)
    back = pair.to_torch(variables)
    assert {name: array.tobytes() for name, array in back.items()} == {
        name: value.numpy().tobytes() for name, value in module.state_dict().items()
    }


def test_float64_survives_the_round_trip_without_x64() -> None:
    module = nn.Linear(2, 3).double()
    pair = Pair(module, nothing, {"w": np.zeros((3, 2))}, names={"weight": ("w", ()), "bias": None})
    assert (
        pair.to_torch(pair.to_jax())["weight"].tobytes() == module.weight.detach().numpy().tobytes()
    )


def test_linen_needs_names_only_where_they_differ() -> None:
    class Model(linen.Module):
        @linen.compact
        def __call__(self, ids):
            x = linen.Embed(5, 4, name="table")(ids)
            x = linen.LayerNorm(name="norm")(linen.Conv(6, (3,), name="conv")(x))
            x = linen.BatchNorm(True, name="bn")(x)
            x = linen.relu(linen.Dense(3)(x))
            return linen.Dense(2)(x)

    module = nn.ModuleDict(
        {
            "table": nn.Embedding(5, 4),
            "conv": nn.Conv1d(4, 6, 3),
            "norm": nn.LayerNorm(6),
            "bn": nn.BatchNorm1d(6),
            "head": nn.Sequential(nn.Linear(6, 3), nn.ReLU(), nn.Linear(3, 2)),
        }
    )
    shapes = jax.eval_shape(Model().init, jax.random.key(0), jnp.zeros((1, 7), int))
    named = {"head.0": "Dense_0", "head.2": "Dense_1"}
    places = match(module, shapes, modules=named)
    # All but the counter, which Flax's batch norm has none of.
    assert len(places) == len(module.state_dict()) - 1


def test_a_bare_sequential_is_linens() -> None:
    model = linen.Sequential([linen.Dense(3), linen.relu, linen.Dense(2)])
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 4)))
    places = match(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), shapes)
    assert [place.path for place in places][::2] == [
        ("params", "layers_0", "kernel"),
        ("params", "layers_2", "kernel"),
    ]


def test_nnx_by_a_function_of_the_path() -> None:
    class Model(nnx.Module):
        def __init__(self, rngs):
            self.blocks = nnx.List([nnx.Linear(4, 4, rngs=rngs), nnx.Linear(4, 4, rngs=rngs)])

        def __call__(self, x):
            for block in self.blocks:
                x = block(x)
            return x

    class TorchModel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.blocks(x)

    graph, state = nnx.split(Model(nnx.Rngs(0)))
    pair = Pair(
        TorchModel(),
        lambda state, x: nnx.merge(graph, state)(x),
        state,
        modules=lambda name: name.replace(".", "/"),
        names=lambda path: path.split("/", 1)[1] + "/value",
    )
    with jax.numpy_rank_promotion("allow"):
        report = pair.compare(torch.randn(2, 4), precisions=["float64"])
    assert report.passed, report
    assert "gradients" in {row.stage for row in report.rows}


def test_everything_that_does_not_match_is_listed_at_once() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.PReLU(), nn.Linear(3, 4))
    variables = {"w1": np.zeros((3, 2)), "b1": np.zeros(3), "w2": np.zeros((3, 4)), "extra": 0.0}
    names = {
        "0.weight": ("w1", (1, 0)),
        "0.bias": "b1",
        "2.weight": ("w2", (0, 2)),
        "2.bias": "b1",
        "2.scale": "w2",
    }
    with pytest.raises(ConversionError) as error:
        match(module, variables, names=names)
    assert str(error.value).splitlines() == [
        "names: 2.scale is no entry of the module's state",
        "shape: w1 is (3, 2); from 0.weight it would be (2, 3)",
        "unknown: 1.weight of PReLU; say in `names` where it goes",
        "axes: 2.weight has 2, not (0, 2)",
        "twice: b1, from 0.bias and from 2.bias",
        "missing: extra (); nothing goes there",
        "missing: w2 (3, 4); nothing goes there",
    ]


def test_missing_bias_is_unexpected_in_the_tree() -> None:
    model = linen.Sequential([linen.Dense(3, use_bias=False)])
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 4)))
    with pytest.raises(ConversionError) as error:
        match(nn.Sequential(nn.Linear(4, 3)), shapes)
    assert str(error.value) == "unexpected: params/layers_0/bias (3,), from 0.bias"


def test_a_shared_tensor_comes_once() -> None:
    module = nn.ModuleDict({"table": nn.Embedding(5, 4), "head": nn.Linear(4, 5, bias=False)})
    module["head"].weight = module["table"].weight
    places = match(module, {"params": {"table": {"embedding": np.zeros((5, 4))}}})
    assert [place.torch_name for place in places] == ["table.weight"]


def test_buffers_outside_of_the_state_stay_in_pytorch() -> None:
    module = nn.Linear(4, 5, bias=False)
    module.register_buffer("table", torch.ones(3), persistent=False)
    places = match(module, {"params": {"kernel": np.zeros((4, 5))}})
    assert [place.torch_name for place in places] == ["weight"]


LINEN = {
    nn.Linear: (nn.Linear(4, 6), linen.Dense(6), (2, 4)),
    nn.Conv1d: (nn.Conv1d(4, 6, 3), linen.Conv(6, (3,), padding="VALID"), (2, 4, 7)),
    nn.Conv2d: (
        nn.Conv2d(4, 6, (3, 2), groups=2),
        linen.Conv(6, (3, 2), padding="VALID", feature_group_count=2),
        (2, 4, 7, 5),
    ),
    nn.Conv3d: (
        nn.Conv3d(4, 6, (3, 2, 1)),
        linen.Conv(6, (3, 2, 1), padding="VALID"),
        (1, 4, 4, 3, 2),
    ),
    nn.Embedding: (nn.Embedding(5, 4), linen.Embed(5, 4), None),
    nn.LayerNorm: (nn.LayerNorm(4), linen.LayerNorm(epsilon=1e-5), (2, 4)),
    nn.RMSNorm: (nn.RMSNorm(4, eps=1e-6), linen.RMSNorm(), (2, 4)),
    nn.GroupNorm: (nn.GroupNorm(2, 4), linen.GroupNorm(2, epsilon=1e-5), (2, 4, 3, 3)),
    nn.BatchNorm1d: (nn.BatchNorm1d(4), linen.BatchNorm(True), (3, 4)),
    nn.BatchNorm2d: (nn.BatchNorm2d(4), linen.BatchNorm(True), (3, 4, 2, 2)),
    nn.BatchNorm3d: (nn.BatchNorm3d(4), linen.BatchNorm(True), (3, 4, 2, 2, 1)),
}
FLIPPED = {
    nn.ConvTranspose1d: (nn.ConvTranspose1d(4, 6, 3), (2, 4, 5), (0,)),
    nn.ConvTranspose2d: (nn.ConvTranspose2d(4, 6, (3, 2)), (2, 4, 5, 4), (0, 1)),
    nn.ConvTranspose3d: (nn.ConvTranspose3d(4, 6, (3, 2, 1)), (1, 4, 3, 2, 2), (0, 1, 2)),
}


def test_every_known_kind_is_tried_below() -> None:
    assert LINEN.keys() | FLIPPED.keys() == LAYERS.keys()


@pytest.mark.parametrize("kind", LINEN, ids=lambda kind: kind.__name__)
def test_each_kind_of_layer_is_flaxs(kind: type) -> None:
    module, model, shape = LINEN[kind]
    x = torch.arange(5).reshape(1, 5) if shape is None else torch.randn(shape)
    layout = "N" + "DHW"[5 - len(shape) :] + "C" if shape and len(shape) > 2 else None
    with jax.numpy_rank_promotion("allow"):
        example = x if layout is None else np.moveaxis(x.numpy(), 1, -1)
        shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.asarray(example))
        # The layer is the whole module, so there is no name between collection and entry.
        report = Pair(module, model.apply, shapes, layout=layout).compare(x, precisions=["float64"])
    assert report.passed, report


@pytest.mark.parametrize("kind", FLIPPED, ids=lambda kind: kind.__name__)
def test_transposed_convolutions_are_flaxs_with_the_kernel_flipped(kind: type) -> None:
    module, shape, space = FLIPPED[kind]
    model = linen.ConvTranspose(6, module.kernel_size, padding="VALID")

    def flipped(variables, x):
        params = variables["params"]
        return model.apply({"params": {**params, "kernel": jnp.flip(params["kernel"], space)}}, x)

    layout = "N" + "DHW"[5 - len(shape) :] + "C"
    x = torch.randn(shape)
    with jax.numpy_rank_promotion("allow"):
        example = jnp.asarray(np.moveaxis(x.numpy(), 1, -1))
        shapes = jax.eval_shape(model.init, jax.random.key(0), example)
        same, other = (
            Pair(module, fn, shapes, layout=layout).compare(x, precisions=["float64"])
            for fn in (flipped, model.apply)
        )
    assert same.passed, same
    assert not other.passed

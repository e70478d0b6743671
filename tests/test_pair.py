"""A pair that is the same model passes; whatever is planted is named first, and explained."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from torch import nn

from parity import Pair, assert_parity
from parity.pairs.divergence import WIDTH, Report
from parity.row import Row
from unet_jax.config import ModelConfig
from unet_jax.models import build_model as build_flax
from unet_jax.models.norms import BatchNorm
from unet_torch_ref.models import build_model as build_torch

FLOAT64 = ("float64",)


@pytest.fixture(autouse=True)
def _as_users_have_it():
    """Users' functions promote ranks, as JAX does unless told otherwise."""
    with jax.numpy_rank_promotion("allow"):
        yield


class MLP(nn.Module):
    def __init__(self, features: int = 5) -> None:
        super().__init__()
        self.fc1 = nn.Linear(features, 5)
        self.norm = nn.LayerNorm(5)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(5, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.act(self.norm(self.fc1(x))))


def mlp(
    params: dict[str, Any],
    x: jax.Array,
    *,
    epsilon: float = 1e-5,
    approximate: bool = False,
    bias: bool = True,
    swapped: bool = False,
    change: Callable[[jax.Array], jax.Array] = lambda output: output,
) -> Any:
    """`MLP`, and faults."""

    def norm(x: jax.Array) -> jax.Array:
        normed = (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + epsilon)
        return normed * params["scale"] + params["shift"]

    seen = {"fc1": x @ params["w1"] + bias * params["b1"]}
    if swapped:
        seen["act"] = jax.nn.gelu(seen["fc1"], approximate=approximate)
        last = seen["norm"] = norm(seen["act"])
    else:
        seen["norm"] = norm(seen["fc1"])
        last = seen["act"] = jax.nn.gelu(seen["norm"], approximate=approximate)
    seen["fc2"] = last @ params["w2"] + params["b2"]
    return change(seen["fc2"]), {"intermediates": seen}


NAMES = {
    "fc1.weight": ("w1", (1, 0)),
    "fc1.bias": "b1",
    "norm.weight": "scale",
    "norm.bias": "shift",
    "fc2.weight": ("w2", (1, 0)),
    "fc2.bias": "b2",
}
SHAPES = {
    "w1": np.zeros((5, 5)),
    "b1": np.zeros(5),
    "scale": np.zeros(5),
    "shift": np.zeros(5),
    "w2": np.zeros((5, 5)),
    "b2": np.zeros(5),
}
ADAMW = partial(torch.optim.AdamW, lr=1e-3)


def inputs(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape or (4, 5))


def make(names: dict[str, Any] | None = None, **faults: Any) -> Pair:
    torch.manual_seed(0)
    return Pair(MLP(), partial(mlp, **faults), SHAPES, names=names or NAMES)


def stage_and_name(report: Report) -> tuple[str, str] | None:
    return report.first and (report.first.stage, report.first.name)


def test_a_plain_function_agrees_in_all_that_is_compared() -> None:
    optimizers = ADAMW, optax.adamw(1e-3, weight_decay=1e-2)
    report = make().compare(inputs(), optimizers=optimizers, steps=3)
    assert report.passed, report
    names = {(row.stage, row.name) for row in report.rows if row.precision == "float64"}
    assert {("eval", name) for name in ("fc1", "norm", "act", "fc2", "(output)")} <= names
    assert {("gradients", name) for name in (*SHAPES, "(input)/0")} <= names
    assert {("step 3", name) for name in (*SHAPES, "loss")} <= names
    assert {row.stage for row in report.rows if row.precision == "float32"} == {
        "eval",
        "loss",
        "gradients",
    }
    assert str(report).startswith("MLP: all ")


FAULTS = {
    "transposed weight": (
        {"names": {**NAMES, "fc1.weight": ("w1", ())}},
        "fc1",
        "kernel not transposed",
    ),
    "eps": ({"epsilon": 1e-6}, "norm", "eps (1e-5 in PyTorch, 1e-6 in Flax)"),
    "gelu approximated": ({"approximate": True}, "act", "exact or tanh"),
    "missing bias": ({"bias": False}, "fc1", "a bias left out"),
    "swapped layers": ({"swapped": True}, "norm", "agrees as far as fc1 (Linear)"),
    "scale and shift swapped": (
        {"names": {**NAMES, "norm.weight": "shift", "norm.bias": "scale"}},
        "norm",
        "scale",
    ),
}


@pytest.mark.parametrize(("fault", "name", "said"), FAULTS.values(), ids=FAULTS.keys())
def test_a_planted_fault_is_named_first(fault: dict[str, Any], name: str, said: str) -> None:
    report = make(**fault).compare(inputs(), precisions=FLOAT64)
    assert stage_and_name(report) == ("eval", name)
    lines = str(report).splitlines()
    assert lines[0].startswith(f"MLP: first divergence in float64 eval at {name} (")
    assert said in " ".join(line.strip() for line in lines)


OPTIMISERS = {
    "decay": (ADAMW, optax.adamw(1e-3), "weight decay (PyTorch 1e-2, Optax 1e-4)"),
    "eps": (partial(torch.optim.Adam, lr=1e-3), optax.adam(1e-3, eps=1e-6), "eps in or outside"),
    "eps inside of the root": (
        partial(torch.optim.RMSprop, lr=1e-3),
        optax.rmsprop(1e-3, decay=0.99),
        "eps_in_sqrt=False",
    ),
}


@pytest.mark.parametrize(("theirs", "ours", "said"), OPTIMISERS.values(), ids=OPTIMISERS.keys())
def test_an_optimisers_fault_is_named_at_the_first_step(theirs, ours, said) -> None:
    report = make().compare(inputs(), optimizers=(theirs, ours), steps=2, precisions=FLOAT64)
    assert stage_and_name(report) == ("step 1", "w1")
    assert said in str(report).replace("\n          ", " ")


def test_a_step_that_differs_is_named_by_its_number() -> None:
    """Nesterov's first step is as long; the rate is another from the second step on."""
    schedule = optax.piecewise_constant_schedule(0.1, {1: 0.99})
    optimizers = partial(torch.optim.SGD, lr=0.1), optax.sgd(schedule)
    report = make().compare(inputs(), optimizers=optimizers, steps=3, precisions=FLOAT64)
    assert stage_and_name(report) == ("step 2", "w1")


def _reversed_gradient(output: jax.Array) -> jax.Array:
    return 2 * jax.lax.stop_gradient(output) - output


BROKEN = {
    "NaN": (lambda y: y * jnp.nan, "(output)", "NaN or infinite in JAX"),
    "infinite": (lambda y: y / 0, "(output)", "NaN or infinite in JAX"),
    "shape": (lambda y: y[:, :2], "(output)", "shape (4, 2); PyTorch's, laid out"),
    "shape that broadcasts": (lambda y: y[:1], "(output)", "shape (1, 5); PyTorch's"),
    "empty": (lambda y: y[:0], "(output)", "shape (0, 5); PyTorch's"),
    "number of outputs": (lambda y: (y, y), "(output)", "JAX has no such output"),
    "float32": (lambda y: y.astype("float32"), "(output)", "float32 in JAX, float64 in PyTorch"),
}


@pytest.mark.parametrize(("change", "name", "said"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_output_is_red_and_no_crash(change, name: str, said: str) -> None:
    report = make(change=change).compare(inputs())
    assert stage_and_name(report) == ("eval", name)
    assert said in str(report)
    failed = {row.precision for row in report.rows if not row.passed}
    assert failed == ({"float64"} if change is BROKEN["float32"][0] else {"float64", "float32"})


def test_nothing_to_compare_is_red() -> None:
    report = make().compare(inputs(0, 5), precisions=FLOAT64)
    assert not report.passed
    assert "there is nothing to compare" in str(report)


def test_nan_on_both_sides_is_red() -> None:
    report = make().compare(np.full((4, 5), np.nan), precisions=FLOAT64)
    assert "NaN or infinite in PyTorch" in str(report)


def test_a_gradient_alone_can_differ() -> None:
    report = make(change=_reversed_gradient).compare(inputs(), precisions=FLOAT64)
    # The fault is at the output, so the last layer's is the first gradient to show it.
    assert stage_and_name(report) == ("gradients", "b2")
    assert "stop_gradient" in str(report)


def test_float32_is_judged_by_pytorchs_own_distance() -> None:
    def coarse(output: jax.Array) -> jax.Array:
        """Right in float64; in float32, about 30 times float32's rounding (2**-24 = 6e-8)."""
        return output * (1 + 2e-6) if output.dtype == jnp.float32 else output

    report = make(change=coarse).compare(inputs())
    assert report.first is not None
    assert report.first[1:4] == ("float32", "eval", "(output)")


def test_each_precision_has_jax_as_it_is_used_there() -> None:
    """New arrays are float64 in float64, and float32 in float32, as without x64."""
    seen = []

    def note(output: jax.Array) -> jax.Array:
        seen.append((str(output.dtype), str(jnp.zeros(1).dtype)))
        return output

    make(change=note).compare(inputs(), draws=1)
    assert set(seen) == {("float64", "float64"), ("float32", "float32")}


def test_a_loss_of_ones_own() -> None:
    def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    theirs, labels = nn.functional.cross_entropy, np.array([0, 1, 4, 2])
    options = {"target": labels, "precisions": FLOAT64}
    assert make().compare(inputs(), loss=(theirs, cross_entropy), **options).passed
    summed = partial(theirs, reduction="sum")
    report = make().compare(inputs(), loss=(summed, cross_entropy), **options)
    assert stage_and_name(report) == ("loss", "loss")
    assert "mean or sum" in str(report)


def test_what_was_set_before_is_set_after() -> None:
    pair = make()
    module, state = pair.module, copy.deepcopy(pair.module.state_dict())
    with jax.enable_x64(False):
        pair.compare(inputs(), draws=1)
        assert jnp.zeros(1, float).dtype == jnp.float32
        with pytest.raises(ZeroDivisionError):
            make(change=lambda y: 1 // 0).compare(inputs())
        assert jnp.zeros(1, float).dtype == jnp.float32
    with jax.enable_x64(True):
        pair.compare(inputs(), draws=1)
        assert jnp.zeros(1, float).dtype == jnp.float64
    assert module.training
    assert all(torch.equal(state[name], value) for name, value in module.state_dict().items())
    assert not any(child._forward_hooks for child in module.modules())


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, 2, 1)
        self.bn = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = nn.Conv2d(3, 4, 1, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.bn(self.conv(x))) + self.shortcut(x)  # In place, on the norm's.


class FlaxBlock(linen.Module):
    norm: Callable[..., Any] = BatchNorm
    padding: Any = 1

    @linen.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        y = linen.Conv(4, (3, 3), 2, padding=self.padding, name="conv")(x)
        y = self.norm(name="bn")(y, train)
        return linen.relu(y) + linen.Conv(4, (1, 1), 2, padding=0, name="shortcut")(x)


def flax_norm(name: str) -> Callable[..., Any]:
    norm = linen.BatchNorm(momentum=0.9, name=name)
    return lambda x, train: norm(x, use_running_average=not train)


def block(**faults: Any) -> Pair:
    torch.manual_seed(0)
    model = FlaxBlock(**faults)
    fn = partial(model.apply, capture_intermediates=True)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    train = partial(fn, train=True, mutable=["batch_stats", "intermediates"])
    return Pair(Block(), fn, shapes, train=train, layout="NHWC")


def test_a_block_agrees_in_train_mode_too() -> None:
    """Also: the bias in front of the norm, whose gradient is 0 on paper, is no divergence."""
    optimizers = partial(torch.optim.SGD, lr=0.1, momentum=0.9), optax.sgd(0.1, 0.9)
    report = block().compare(inputs(2, 3, 8, 6), optimizers=optimizers, steps=2, draws=2)
    assert report.passed, report
    names = {(row.stage, row.name) for row in report.rows}
    assert {("train", "bn"), ("statistics", "batch_stats/bn/var"), ("step 2", "loss")} <= names


MODES = {
    "momentum": (partial(BatchNorm, momentum=0.01), "statistics", "batch_stats/bn/mean"),
    "biased variance": (flax_norm, "statistics", "batch_stats/bn/var"),
    "eps": (partial(BatchNorm, epsilon=1e-3), "eval", "bn"),
}


@pytest.mark.parametrize(("norm", "stage", "name"), MODES.values(), ids=MODES.keys())
def test_a_batch_norms_fault_is_named_first(norm, stage: str, name: str) -> None:
    report = block(norm=norm).compare(inputs(2, 3, 8, 6), precisions=FLOAT64)
    assert stage_and_name(report) == (stage, name)
    expected = "momentum (PyTorch's 0.1" if stage == "statistics" else "eps (1e-5"
    assert expected in str(report)


def test_uneven_padding_is_named_first() -> None:
    report = block(padding="SAME").compare(inputs(2, 3, 8, 6), precisions=FLOAT64)
    assert stage_and_name(report) == ("eval", "conv")
    assert "Flax's SAME pads unevenly" in str(report)


def test_a_fresh_norms_statistics_cannot_hide_a_fault() -> None:
    """Fresh, mean is all 0 and scale all 1, so that it is all the same what is used as what."""

    def norm(params: dict[str, Any], x: jax.Array) -> jax.Array:
        return (x - params["bias"]) / jnp.sqrt(params["scale"] + 1e-5) * params["var"]

    module = nn.BatchNorm1d(5)
    shapes = {name: np.zeros(5) for name in ("scale", "bias", "mean", "var")}
    names = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}
    pair = Pair(module, norm, shapes, names={**names, "num_batches_tracked": None})
    fresh, changed = (
        next(row for row in report.rows if row.name == "(output)")
        for report in (
            pair.compare(inputs(), precisions=FLOAT64, perturb=perturb) for perturb in (False, True)
        )
    )
    assert fresh.passed
    assert not changed.passed


def test_layers_that_are_called_twice_and_several_outputs() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(5, 5)

        def forward(self, x: torch.Tensor, gate: dict[str, torch.Tensor]) -> tuple:
            y = self.fc(torch.relu(self.fc(x)))
            return y, {"gated": y * gate["g"]}

    class FlaxTwice(linen.Module):
        wrong: float = 1.0

        @linen.compact
        def __call__(self, x: jax.Array, gate: dict[str, jax.Array]) -> tuple:
            fc = linen.Dense(5, name="fc")
            y = fc(self.wrong * linen.relu(fc(x)))
            return y, {"gated": y * gate["g"]}

    def pair(wrong: float) -> Pair:
        model, x = FlaxTwice(wrong), jnp.zeros((1, 5))
        shapes = jax.eval_shape(model.init, jax.random.key(0), x, {"g": x})
        fn = partial(model.apply, capture_intermediates=True)
        return Pair(Twice(), fn, shapes)

    arguments = inputs(), {"g": inputs()[::-1].copy()}
    report = pair(1.0).compare(arguments, precisions=FLOAT64)
    assert report.passed, report
    names = {row.name for row in report.rows}
    assert {"fc", "fc#2", "(output)/0", "(output)/1/gated", "(input)/1/g"} <= names
    assert stage_and_name(pair(1.1).compare(arguments, precisions=FLOAT64)) == ("eval", "fc#2")


def test_a_function_without_weights() -> None:
    report = Pair(nn.GELU(), lambda _, x: jax.nn.gelu(x, approximate=False), {}).compare(inputs())
    assert report.passed, report
    report = Pair(nn.GELU(), lambda _, x: jax.nn.gelu(x), {}).compare(inputs())
    assert stage_and_name(report) == ("eval", "(output)")


def test_frozen_parameters_stay_on_both_sides() -> None:
    pair = make()
    pair.module.get_parameter("fc1.weight").requires_grad_(False)
    frozen = Pair(pair.module, pair.fn, SHAPES, names=NAMES)
    optimizers = ADAMW, optax.adamw(1e-3, weight_decay=1e-2)
    report = frozen.compare(inputs(), optimizers=optimizers, steps=1, precisions=FLOAT64)
    assert report.passed, report
    names = {(row.stage, row.name) for row in report.rows}
    assert ("gradients", "w1") not in names
    assert ("step 1", "w1") in names


def test_the_projects_own_network() -> None:
    config = ModelConfig(channels=(4, 8), groups=2)
    model = build_flax(config, 1)
    module = build_torch(config.architecture, num_classes=1, **config.arguments())
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 12, 3)))
    fn = partial(model.apply, capture_intermediates=True)
    report = assert_parity(
        module, fn, shapes, inputs(2, 3, 8, 12), layout="NHWC", precisions=FLOAT64
    )
    assert {"encoder_0/conv_1", "upsample_0", "conv_out"} <= {row.name for row in report.rows}


def test_the_assertion_says_where_in_lines_that_fit() -> None:
    with pytest.raises(AssertionError) as error:
        assert_parity(
            MLP(), partial(mlp, epsilon=1e-6), SHAPES, inputs(), names=NAMES, precisions=FLOAT64
        )
    lines = str(error.value).splitlines()
    assert lines[0] == "MLP: first divergence in float64 eval at norm (LayerNorm)"
    assert lines[1].startswith("  error: ")
    assert lines[2] == "  before it: agrees as far as fc1 (Linear)"
    assert max(map(len, lines)) <= WIDTH
    [marked] = [line for line in lines if "→" in line]
    assert marked.split()[:4] == ["eval", "→", "norm", "LayerNorm"]


def test_a_long_report_is_short() -> None:
    rows = tuple(
        Row("net", "float64", stage, f"{stage}/{'long' * 30}/{i}", float(i == 200), 1e-12)
        for stage in ("eval", "gradients", *(f"step {i}" for i in range(50)))
        for i in range(300)
    )
    report = Report("net", rows, {}, {}, None, [f"alone_{i}" for i in range(99)], [])
    lines = str(report).splitlines()
    assert len(lines) < 30
    assert max(map(len, lines)) <= WIDTH
    assert any("→" in line for line in lines)
    assert "and 87 more" in lines[-1]


def test_activations_that_one_side_lacks_are_listed() -> None:
    def fn(params: dict[str, Any], x: jax.Array) -> Any:
        output, captured = mlp(params, x)
        seen = captured["intermediates"]
        return output, {"intermediates": {"fc1": seen["fc1"], "gelu": seen["act"]}}

    report = Pair(MLP(), fn, SHAPES, names=NAMES).compare(inputs(), precisions=FLOAT64)
    lines = str(report).splitlines()
    assert "not compared, in JAX alone: gelu" in lines
    assert "not compared, in PyTorch alone: norm, act, fc2" in lines
    named = Pair(MLP(), fn, SHAPES, names=NAMES, modules={"act": "gelu"})
    assert "gelu" in {row.name for row in named.compare(inputs(), precisions=FLOAT64).rows}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precisions": ("float16",)}, "precisions: .*float16.*; there are float64, float32"),
        ({"precisions": ()}, "precisions: "),
        ({"draws": 0}, "draws: 0; at least 1"),
        ({"steps": 2}, "steps: 2, optimizers: None; give both or neither"),
        ({"optimizers": (ADAMW, optax.adamw(1e-3))}, "steps: 0"),
        (
            {"optimizers": (ADAMW, optax.sgd(1.0)), "steps": 1, "precisions": ("float32",)},
            "steps: they are compared in float64",
        ),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make().compare(inputs(), **options)


def test_an_update_of_what_is_no_variable_is_refused() -> None:
    pair = make()
    wrong = Pair(
        pair.module, pair.fn, SHAPES, names=NAMES, train=lambda p, x: (mlp(p, x)[0], {"fc1": x})
    )
    with pytest.raises(ValueError, match="returned fc1, which is not in `variables`"):
        wrong.compare(inputs(), precisions=FLOAT64)

"""The schedule's known points, AdamW's first step by hand, and the two frameworks together."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import unet_torch_ref.optim
from unet_jax.config import OptimConfig
from unet_jax.optim import build_optimizer, clip_grad_norm, warmup_cosine

ROUNDING = 1e-14
"""Relative, in float64: a dozen operations of 1e-16 each."""
STRICT = 1e-12
"""Relative, in float64, after 100 updates: their roundings add up, and no more."""


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def both_rates(step: int, warmup: float, total: int) -> tuple[float, float]:
    config = OptimConfig(learning_rate=0.5, warmup=warmup)
    ours = warmup_cosine(jnp.asarray(step, jnp.int32), config, total)
    return float(ours), 0.5 * unet_torch_ref.optim.warmup_cosine(step, warmup, total)


# Schedule, of 100 steps under a peak of 0.5.


@pytest.mark.parametrize(
    ("warmup", "step", "share"),
    [
        pytest.param(0.1, 0, 1 / 10, id="first"),
        pytest.param(0.1, 4, 5 / 10, id="half-way-up"),
        pytest.param(0.1, 9, 1, id="end-of-warm-up"),
        pytest.param(0.1, 10, 1, id="start-of-decay"),
        pytest.param(0.1, 40, 3 / 4, id="a-third-down"),  # (1 + cos 60°) / 2
        pytest.param(0.1, 55, 1 / 2, id="middle-of-decay"),
        pytest.param(0.1, 70, 1 / 4, id="two-thirds-down"),
        pytest.param(0.1, 99, math.sin(math.pi / 180) ** 2, id="last"),  # (1 + cos 178°) / 2
        pytest.param(0.1, 100, 0, id="past-the-last"),
        pytest.param(0.0, 0, 1, id="no-warm-up-first"),
        pytest.param(0.0, 50, 1 / 2, id="no-warm-up-middle"),
        pytest.param(0.0, 99, math.sin(math.pi / 200) ** 2, id="no-warm-up-last"),
        pytest.param(1.0, 0, 1 / 100, id="all-warm-up-first"),
        pytest.param(1.0, 49, 1 / 2, id="all-warm-up-middle"),
        pytest.param(1.0, 99, 1, id="all-warm-up-last"),
    ],
)
def test_known_points_of_the_schedule(warmup, step, share):
    for rate in both_rates(step, warmup, 100):
        # Absolute, in shares of the peak: 1 + cos cancels near the end.
        assert rate == pytest.approx(0.5 * share, rel=ROUNDING, abs=1e-15)


@pytest.mark.parametrize("total", [1, 2, 7, 100])
@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.5, 1.0])
def test_the_schedules_agree_at_every_step(warmup, total):
    rates = np.array([both_rates(step, warmup, total) for step in range(total)])
    # Absolute, in shares of the peak: 1 + cos cancels near the end.
    np.testing.assert_allclose(rates[:, 0], rates[:, 1], rtol=0, atol=ROUNDING)
    assert rates.max() <= 0.5
    assert rates.min() > 0


# Clipping.


@pytest.mark.parametrize(
    ("max_norm", "scale"),
    [
        pytest.param(1.0, 1 / (5 + 1e-6), id="above"),
        pytest.param(5.1, 1, id="below"),
        pytest.param(math.inf, 1, id="never"),
    ],
)
def test_gradients_are_clipped_by_their_global_norm(max_norm, scale):
    gradients = {"a": np.array([3.0]), "b": np.array([[0.0, -4.0]])}  # Of norm 5.
    transform = clip_grad_norm(max_norm)
    clipped: Any = transform.update(jax.tree.map(jnp.asarray, gradients), transform.init({}))[0]
    for name, gradient in gradients.items():
        np.testing.assert_allclose(clipped[name], gradient * scale, rtol=ROUNDING)
    if scale == 1:
        assert all(np.array_equal(clipped[name], gradients[name]) for name in gradients)


# Updates.

SHAPES = {"kernel": (3, 3, 4, 5), "bias": (5,), "scalar": ()}
STEPS = 100
Arrays = dict[str, np.ndarray]


def random_arrays(rng: np.random.Generator) -> Arrays:
    return {name: np.asarray(rng.normal(size=shape)) for name, shape in SHAPES.items()}


def flax_path(config: OptimConfig, params: Arrays, gradients: list[Arrays]) -> list[Arrays]:
    """The parameters after each update."""
    optimizer = build_optimizer(config, STEPS)
    tree: Any = jax.tree.map(jnp.asarray, params)
    state = optimizer.init(tree)

    @jax.jit
    def update(tree: Any, state: Any, gradient: Any) -> tuple[Any, Any]:
        updates, state = optimizer.update(gradient, state, tree)
        return optax.apply_updates(tree, updates), state

    path = []
    for gradient in gradients:
        tree, state = update(tree, state, jax.tree.map(jnp.asarray, gradient))
        path.append({name: np.asarray(leaf) for name, leaf in tree.items()})
    return path


def torch_path(config: OptimConfig, params: Arrays, gradients: list[Arrays]) -> list[Arrays]:
    settings = dataclasses.asdict(config)
    clip_norm = settings.pop("clip_norm")
    tensors = {name: torch.nn.Parameter(torch.tensor(p)) for name, p in params.items()}
    optimizer, schedule = unet_torch_ref.optim.build_optimizer(
        tensors.values(), total_steps=STEPS, **settings
    )
    path = []
    for gradient in gradients:
        for name, tensor in tensors.items():
            tensor.grad = torch.tensor(gradient[name])
        torch.nn.utils.clip_grad_norm_(tensors.values(), clip_norm)  # As the training step does.
        optimizer.step()
        schedule.step()
        path.append({name: tensor.detach().numpy().copy() for name, tensor in tensors.items()})
    return path


def norm(arrays: Arrays) -> float:
    return math.sqrt(sum(float(np.sum(np.square(array))) for array in arrays.values()))


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="default"),
        pytest.param({"weight_decay": 0.0}, id="no-decay"),
        pytest.param({"weight_decay": 0.3, "warmup": 0.0}, id="strong-decay-no-warm-up"),
        pytest.param({"clip_norm": math.inf, "warmup": 1.0}, id="no-clipping-all-warm-up"),
    ],
)
def test_a_hundred_updates_agree(options):
    config = OptimConfig(
        **{"learning_rate": 0.05, "weight_decay": 0.1, "clip_norm": 1.0, **options}
    )
    rng = np.random.default_rng(0)
    params = random_arrays(rng)
    # Norms from 0.01 to 100; Adam forgets a constant scale, so it must vary for clipping to show.
    scales = 10 ** rng.uniform(-3, 1, STEPS)
    gradients = [{n: s * g for n, g in random_arrays(rng).items()} for s in scales]
    clipped = sum(norm(gradient) > 1 for gradient in gradients)
    assert 0.2 * STEPS < clipped < 0.8 * STEPS

    ours, theirs = flax_path(config, params, gradients), torch_path(config, params, gradients)
    for step, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        for name in SHAPES:
            assert a[name].dtype == np.float64
            distance = np.linalg.norm(a[name] - b[name]) / np.linalg.norm(b[name])
            assert distance <= STRICT, f"step {step}, {name}: {distance:.1e}"
    # A test of parameters that do not move would pass, too.
    assert norm({n: theirs[-1][n] - params[n] for n in SHAPES}) > 0.1 * norm(params)


def test_the_first_step_by_hand():
    # Adam's first step is the rate times g / (|g| + eps), so of the gradient's sign alone; the
    # decay takes rate × decay off the weight.
    config = OptimConfig(learning_rate=0.1, weight_decay=0.01, warmup=0.1, clip_norm=math.inf)
    params = {"kernel": np.array([2.0, -1.0, 3.0])}
    gradient = {"kernel": np.array([5.0, -0.001, 0.0])}
    rate = 0.1 / 10  # The first of ten steps of warm-up.
    expected = params["kernel"] * (1 - rate * 0.01)
    expected -= rate * gradient["kernel"] / (np.abs(gradient["kernel"]) + 1e-8)
    for path in (flax_path, torch_path):
        [after] = path(config, params, [gradient])
        np.testing.assert_allclose(after["kernel"], expected, rtol=ROUNDING)

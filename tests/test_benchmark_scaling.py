"""A step on several devices: what is measured, and what is modelled."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from contestants import off_by_a_little

from parity.benchmark import scaling
from parity.benchmark.agreement import Refusal
from parity.benchmark.duel import duels
from parity.benchmark.plan import Plan
from parity.benchmark.result import Results, Row
from parity.benchmark.scaling import NETWORKS, efficiency, measure, modelled, reduction
from parity.benchmark.table import spread
from unet_jax.config import Config, DataConfig, ModelConfig, TrainConfig

TINY = Config(
    model=ModelConfig(architecture="plain", channels=(4,), norm="batch"),
    data=DataConfig(size=(16, 24), binary=True),
    train=TrainConfig(batch_size=8),
)
PLAN = Plan(subject="scaling", samples=2)


def say(text: str) -> None:
    pass


@pytest.fixture
def two_and_four(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    monkeypatch.setattr(scaling, "COUNTS", (1, 2, 4))
    # A session of many devices would hand them on.
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.delenv("JAX_NUM_CPU_DEVICES", raising=False)
    return monkeypatch.setattr


def test_each_count_of_devices_is_a_row(two_and_four):
    results = measure(TINY, replace(PLAN, precisions=("float32", "tf32")), say)
    rows = results.rows[:3]
    assert [row.contender for row in rows] == [
        "JAX, 1 device, virtual, float32",
        "JAX, 2 devices, virtual, float32",
        "JAX, 4 devices, virtual, float32",
    ]
    assert [row.failure for row in results.rows] == [None] * 3 + ["needs a GPU"] * 3
    assert all(len(row.samples) == 2 and row.images == 8 for row in rows)
    # Of float32, whose sums are in another order.
    assert [row.distance is None for row in rows] == [True, False, False]
    assert all(row.distance < 1e-5 for row in rows[1:] if row.distance is not None)
    assert not duels(rows)
    assert not modelled(results, rows)
    # 3×3 kernels and norms of 3 → 4 → 4, 4 → 8 → 8 and 8 → 4 → 4 channels; from 8 to 4 upwards;
    # the last layer.
    encoder, middle, decoder = 108 + 144 + 16, 288 + 576 + 32, 288 + 144 + 16
    assert results.facts["gradients"] == 4 * (encoder + middle + decoder + (128 + 4) + (4 + 1))
    one, two, _ = (row.rate for row in rows)
    assert spread(rows)[0] == f"2 devices: {two / (2 * one):.0%} of 2 times one's rate"


def test_devices_that_compute_something_else_are_refused(two_and_four):
    two_and_four(scaling, "on_devices", off_by_a_little)
    with pytest.raises(Refusal, match="JAX, 4 devices, virtual, float32 does not compute"):
        measure(TINY, PLAN, say)


def test_a_batch_has_to_divide():
    with pytest.raises(ValueError, match="24 does not divide among 8 devices × 2 micro-batches"):
        measure(replace(TINY, train=TrainConfig(batch_size=24, accumulate=2)), PLAN, say)
    with pytest.raises(ValueError, match="batch_size: 12 does not divide among 8 devices"):
        measure(TINY, replace(PLAN, batch_sizes=(12,)), say)


def test_a_ring_sends_all_but_one_part_twice():
    [network] = [each for each in NETWORKS if each.name.startswith("H100")]
    assert reduction(450e9, 1, network) == 0
    assert reduction(450e9, 2, network) == pytest.approx(1.0)
    assert reduction(450e9, 8, network) == pytest.approx(2 * 7 / 8)
    # Beyond one host, all of a host share what leads out.
    assert reduction(400e9, 16, network) == pytest.approx(2 * 15 / 16)


def test_the_model_goes_out_from_one_devices_step():
    def row(devices: str, **more: Any) -> Row:
        name = f"JAX, {devices}, bfloat16"
        return Row(case="", contender=name, precision="bfloat16", samples=(1.0,), **more)

    size = 450e9 / 2 / 7 * 8  # A second on 8 devices.
    results = Results(
        subject="scaling", title="", device="NVIDIA H200", facts={"gradients": size}, rows=[]
    )
    said = modelled(results, [row("1 device"), row("2 devices")])
    assert len(said) == 3
    assert said[0] == (
        "By the model, 8 of H100 or H200, NVLink and 8 × 400 Gb/s: 50% to 75% of 8 times one's "
        "rate in bfloat16"
    )
    assert not modelled(results, [row("1 device", failure="too slow")])
    assert not modelled(replace(results, device="NVIDIA T4"), [row("1 device")])


def test_each_precision_is_compared_with_its_own_single_device():
    def row(devices: str, precision: str, seconds: float) -> Row:
        name = f"JAX, {devices}, {precision}"
        return Row(case="", contender=name, precision=precision, images=8, samples=(seconds,))

    single = row("1 device", "float32", 1.0)
    halves = [row("1 device", "bfloat16", 0.5), row("2 devices", "bfloat16", 0.25)]
    rows = [single, row("2 devices", "float32", 1.0), *halves]
    assert spread(rows) == [
        "2 devices: 50% of 2 times one's rate in float32",
        "2 devices: 100% of 2 times one's rate in bfloat16",
    ]
    assert spread([replace(single, failure="out of memory"), *rows[1:]]) == [
        "2 devices: 100% of 2 times one's rate in bfloat16",
    ]


def test_efficiency_is_between_no_and_all_overlap():
    [network] = [each for each in NETWORKS if each.name.startswith("H100")]
    size = 450e9 / 2 / 7 * 8  # A second on 8 devices.
    assert efficiency(1.0, size, 8, network) == pytest.approx((1 / 2, 3 / 4))
    assert efficiency(3.0, size, 8, network) == pytest.approx((3 / 4, 1.0))
    assert efficiency(1.0, size, 1, network) == (1.0, 1.0)

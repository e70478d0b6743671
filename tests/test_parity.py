"""The two networks agree, tensor by tensor; and the comparison sees it when they do not."""

import json
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

import unet_jax.models.layers as flax_layers
import unet_torch_ref.models.residual as torch_residual
from parity.cases import CASES, Case
from parity.compare import (
    Row,
    compare,
    first_divergence,
    make_torch,
    relative_error,
    round_trip,
    scale_entry,
    torch_state,
)
from parity.convert import ConversionError, to_flax, to_torch
from parity.report import table, verdict, write_json
from unet_jax.config import ModelConfig
from unet_jax.models.layers import BatchNorm

pytestmark = pytest.mark.usefixtures("x64")

TINY = ModelConfig(channels=(4, 8), groups=2)
RESIDUAL = Case("residual", TINY, 1, (8, 12))
PLAIN = Case(
    "plain", ModelConfig(architecture="plain", channels=(4, 8), norm="batch"), 1, (8, 12), 3
)
BILINEAR = RESIDUAL._replace(model=ModelConfig(channels=(4, 8), groups=2, upsample="bilinear"))
ODD = RESIDUAL._replace(size=(9, 13))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_networks_agree_in_float64(case: Case) -> None:
    rows = compare(case, precisions=("float64",))
    assert first_divergence(rows) is None, verdict(first_divergence(rows))
    stages = {row.stage for row in rows}
    assert {"parameters", "eval", "train", "loss", "gradients"} <= stages
    assert ("statistics" in stages) == (case.model.norm == "batch")


@pytest.mark.parametrize("case", [CASES[0], CASES[9]], ids=lambda case: case.name)
def test_networks_agree_in_float32(case: Case) -> None:
    rows = compare(case)
    assert {row.precision for row in rows} == {"float64", "float32"}
    assert first_divergence(rows) is None, verdict(first_divergence(rows))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_round_trip_returns_the_same_bytes(case: Case) -> None:
    assert round_trip(case)


@pytest.mark.parametrize(
    "name", ["conv_in/kernel", "encoder_2/norm_1/scale", "upsample_0/conv/kernel", "conv_out/bias"]
)
def test_one_weight_changed_by_one_percent_is_named(name: str) -> None:
    rows = compare(RESIDUAL, partial(scale_entry, name=name, factor=1.01), ("float64",))
    failed = [row for row in rows if not row.passed]
    assert failed[0].stage == "parameters"
    assert failed[0].name == f"params/{name}"
    activations = [row.name for row in failed if row.stage == "eval"]
    assert activations[0] == name.rpartition("/")[0]


def _half_pixel(x, size, align_corners):
    return flax_layers.resize_bilinear(x, size, align_corners=False)


def _swapped(self, x, skip):
    return torch.cat([skip, x], dim=1)


def _flipped(state: dict, model: nn.Module):
    variables = to_flax(state, model)
    kernel = variables["params"]["upsample_0"]["conv"]["kernel"]
    variables["params"]["upsample_0"]["conv"]["kernel"] = kernel[::-1, ::-1].copy()
    return variables


def _bottom_right(x, size, policy):
    return nn.functional.pad(x, (0, size[1] - x.shape[3], 0, size[0] - x.shape[2]))


FAULTS = {
    "align_corners off": (
        BILINEAR,
        lambda patch: patch.setattr("unet_jax.models.residual.resize_bilinear", _half_pixel),
        "eval",
        "upsample_0/conv",
    ),
    "skip order swapped": (
        RESIDUAL,
        lambda patch: patch.setattr(torch_residual.ResidualUNet, "join", _swapped),
        "eval",
        "decoder_0/norm_1",
    ),
    "transposed kernel flipped": (
        RESIDUAL,
        lambda patch: patch.setattr("parity.compare.to_flax", _flipped),
        "eval",
        "upsample_0/conv",
    ),
    "padding on one side": (
        ODD,
        lambda patch: patch.setattr(torch_residual, "match_size", _bottom_right),
        "eval",
        "conv_in",
    ),
    "momentum 0.01": (
        PLAIN,
        lambda patch: patch.setattr(flax_layers, "BatchNorm", partial(BatchNorm, momentum=0.01)),
        "statistics",
        "encoder_0/norm_1/mean",
    ),
    "eps 1e-3": (
        PLAIN,
        lambda patch: patch.setattr(flax_layers, "BatchNorm", partial(BatchNorm, epsilon=1e-3)),
        "eval",
        "encoder_0/norm_1",
    ),
    "loss over the padding too": (
        PLAIN,
        lambda patch: patch.setattr(
            "unet_torch_ref.step.Batch.valid", property(lambda b: torch.ones(3, dtype=torch.bool))
        ),
        "loss",
        "mean loss",
    ),
}


@pytest.mark.parametrize(("case", "plant", "stage", "name"), FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_turns_the_comparison_red_and_is_named(
    case: Case,
    plant: Callable[[pytest.MonkeyPatch], None],
    stage: str,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plant(monkeypatch)
    rows = [row for row in compare(case, precisions=("float64",)) if row.stage != "parameters"]
    first = first_divergence(rows)
    assert first is not None
    assert (first.stage, first.name) == (stage, name)


def test_float32_limit_is_twice_pytorchs_own_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arithmetic in half precision on the JAX side is far outside."""
    conv = flax_layers.lax.conv_general_dilated

    def coarse(x, kernel, **options):
        return conv(x.astype("bfloat16"), kernel.astype("bfloat16"), **options).astype(x.dtype)

    monkeypatch.setattr(flax_layers.lax, "conv_general_dilated", coarse)
    rows = [row for row in compare(RESIDUAL) if row.precision == "float32"]
    first = first_divergence(rows)
    assert first is not None
    assert (first.stage, first.name) == ("eval", "conv_in")


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([3.0, 4.0], [3.0, 4.0], 0.0),
        ([3.0, 4.5], [3.0, 4.0], 0.1),
        ([1.0, -1.0], [0.0, 0.0], np.sqrt(2)),  # Signed differences would cancel.
        ([np.nan], [np.nan], np.inf),
        ([1.0], [1.0, 1.0], np.inf),
    ],
)
def test_relative_error(a: list[float], b: list[float], expected: float) -> None:
    assert relative_error(np.array(a), np.array(b)) == pytest.approx(expected)


def test_conversion_lists_every_entry_that_does_not_match() -> None:
    model = make_torch(RESIDUAL)
    state = torch_state(model)
    weight = state.pop("conv_in.weight")
    state["conv_first.weight"] = weight
    state["conv_out.weight"] = state["conv_out.weight"][:, :1]
    with pytest.raises(ConversionError) as error:
        to_flax(state, model)
    lines = str(error.value).splitlines()
    assert lines == [
        "missing: conv_in.weight (4, 3, 3, 3)",
        "unexpected: conv_first.weight (4, 3, 3, 3)",
        "shape: conv_out.weight is (1, 1, 3, 3), expected (1, 4, 3, 3)",
    ]


def test_conversion_back_lists_every_entry_that_does_not_match() -> None:
    model = make_torch(PLAIN)
    variables = to_flax(torch_state(model), model)
    del variables["batch_stats"]
    with pytest.raises(ConversionError, match="missing: batch_stats/encoder_0/norm_1/mean"):
        to_torch(variables, model)


def test_unknown_kind_of_layer_is_refused() -> None:
    model = nn.Sequential(nn.PReLU())
    with pytest.raises(ConversionError, match="0: PReLU is not a kind of layer known here"):
        to_flax(model.state_dict(), model)


def test_report_says_what_failed(tmp_path) -> None:
    rows = [
        Row("c", "float64", "eval", "conv_in", 1e-15, 1e-12),
        Row("c", "float64", "eval", "encoder_0", 2e-3, 1e-12),
    ]
    write_json(rows, {"passed": False}, tmp_path / "report.json")
    report = json.loads((tmp_path / "report.json").read_text())
    assert not report["passed"]
    assert report["first_divergence"]["name"] == "encoder_0"
    assert [row["passed"] for row in report["rows"]] == [True, False]
    console = Console(width=160, record=True, file=(tmp_path / "table").open("w"))
    console.print(table(rows))
    text = console.export_text()
    assert "✗ 2e-03" in text

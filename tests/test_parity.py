"""The two networks agree, tensor by tensor; and the comparison sees it when they do not."""

import json
from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
from rich.console import Console
from torch import nn

import unet_jax.models.layers as flax_layers
from parity.cases import CASES, Case
from parity.compare import compare
from parity.convert import ConversionError, to_flax, to_torch
from parity.mutations import MUTATIONS, Mutation, inject
from parity.mutations.networks import PLAIN, RESIDUAL
from parity.reference import Reference, mean_loss, normalised, third_opinion
from parity.report import component_table, mutation_table, table, verdict, write_json
from parity.row import Row, first_divergence, relative_error, ulps
from parity.sides import make_batch, make_torch, run_torch, scale_entry, torch_state
from parity.tolerances import FLOAT64

pytestmark = pytest.mark.usefixtures("x64")


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
    model = make_torch(case)
    state = torch_state(model)
    back = to_torch(to_flax(state, model), model)
    assert list(back) == list(state)
    for name in state:
        assert back[name].dtype == state[name].dtype
        assert back[name].tobytes() == state[name].tobytes()


@pytest.mark.parametrize(
    "name", ["conv_in/kernel", "encoder_0/norm_1/scale", "upsample_0/conv/kernel", "conv_out/bias"]
)
def test_one_weight_changed_by_one_percent_is_named(name: str) -> None:
    rows = compare(RESIDUAL, partial(scale_entry, name=name, factor=1.01), ("float64",))
    failed = [row for row in rows if not row.passed]
    assert failed[0].stage == "parameters"
    assert failed[0].name == f"params/{name}"
    activations = [row.name for row in failed if row.stage == "eval"]
    assert activations[0] == name.rpartition("/")[0]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_fault_turns_the_report_red_and_is_named(mutation: Mutation) -> None:
    outcome = inject(mutation)
    assert outcome.killed, f"named {outcome.named}, not {mutation.expected}"


def test_there_are_faults_enough_each_with_its_name() -> None:
    names = [mutation.name for mutation in MUTATIONS]
    assert len(names) == len(set(names)) >= 25


def test_a_fault_that_is_not_seen_survives() -> None:
    mutation = Mutation("none", "none", ("eval", "conv_in"), lambda: [], nullcontext)
    assert not inject(mutation).killed
    assert inject(mutation).as_json()["named"] == "nothing"


def test_a_fault_is_not_seen_by_a_comparison_that_is_red_without_it() -> None:
    red = [Row("case", "float64", "eval", "conv_in", 1.0, 0.0)]
    outcome = inject(Mutation("none", "none", ("eval", "conv_in"), lambda: red, nullcontext))
    assert not outcome.killed
    assert outcome.as_json()["named"] == "red without the fault"


def test_a_counter_that_differs_has_no_third_opinion() -> None:
    name = "encoder_0/norm_1/num_batches_tracked"
    said = third_opinion(PLAIN, Row("plain", "float64", "statistics", name, 1.0, 0.0))
    assert said == f"statistics at {name}: a counter, which the reference does not keep"


@pytest.mark.parametrize(
    ("name", "case", "wrong"),
    [
        ("eps outside of the root", RESIDUAL, "JAX"),
        ("odd sizes padded at the top and left", RESIDUAL._replace(size=(9, 13)), "PyTorch"),
        ("biased running variance", PLAIN, "PyTorch"),
        ("padding images counted", PLAIN, "PyTorch"),
        ("no gradient through the statistics", PLAIN, "JAX"),
    ],
)
def test_a_third_opinion_says_which_side_is_wrong(name: str, case: Case, wrong: str) -> None:
    [mutation] = [mutation for mutation in MUTATIONS if mutation.name == name]
    first = Row(case.name, "float64", *mutation.expected, 1.0, 0.0)
    with mutation.plant():
        said = third_opinion(case, first)
    assert said.endswith(f"so {wrong} is wrong")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_reference_is_pytorch_where_nothing_is_wrong(case: Case) -> None:
    model, batch = make_torch(case), make_batch(case)
    state, image = torch_state(model), normalised(case, batch)
    evaluated, trained = (Reference(case, state, image, train=train) for train in (False, True))
    found = run_torch(model, batch)
    for stage, reference in (("eval", evaluated), ("train", trained)):
        names = [name for own, name in found if own == stage]
        assert list(reference.outputs) == names
        for name in names:
            assert relative_error(found[stage, name], reference.outputs[name]) <= FLOAT64, name
    assert (len(trained.statistics) > 0) == (case.model.norm == "batch")
    assert not evaluated.statistics
    after = torch_state(model)
    for name, value in trained.statistics.items():
        assert relative_error(after[name], value) <= FLOAT64, name
    loss = mean_loss(trained.outputs["logits"], batch)
    assert loss == pytest.approx(float(found["loss", "mean loss"]), rel=FLOAT64)


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


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([1.0, 2.0], [1.0, 2.0], (0, 0)),
        ([1 + 3 * 2**-23], [1.0], (3, 3)),  # The last place of 1 in float32 is 2^-23.
        ([1 - 2**-24], [1.0], (0.5, 0.5)),
        ([*[1.0] * 999, 2.0], [1.0] * 1000, (0, 2**23)),
        ([1.0], [1.0, 1.0], (np.inf, np.inf)),
    ],
)
def test_ulps(a: list[float], b: list[float], expected: tuple[float, float]) -> None:
    assert ulps(np.array(a), np.array(b)) == pytest.approx(expected)


def test_a_row_fails_by_either_measure() -> None:
    row = Row("c", "float32", "eval", "conv_in", 1e-7, 2e-7, ulps=3.0, ulps_limit=2.0)
    assert not row.passed
    assert row._replace(ulps=2.0).passed
    assert not row._replace(ulps=2.0, error=3e-7).passed
    assert "3 ULPs, limit 2" in verdict(row)


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
        Row("c", "float64", "eval", "conv_out", float("inf"), 1e-12),
    ]
    write_json(rows, {"passed": False}, tmp_path / "report.json")
    text = (tmp_path / "report.json").read_text()
    assert "Infinity" not in text  # Which is no JSON.
    report = json.loads(text)
    assert report["rows"][-1]["error"] is None
    assert not report["passed"]
    assert report["first_divergence"]["name"] == "encoder_0"
    assert [row["passed"] for row in report["rows"]] == [True, False, False]
    component = [Row("losses", "float64", "loss: dice", "value", 1e-3, 1e-12)]
    survivor = {"name": "f", "component": "c", "killed": False, "named": "nothing", "expected": "x"}
    console = Console(width=80, record=True, file=(tmp_path / "table").open("w"))
    for each in (table(rows[:2]), component_table(component), mutation_table([survivor])):
        console.print(each)
    text = " ".join(console.export_text().split())  # Titles of narrow tables have two lines.
    assert "✗ 2e-03" in text
    assert "✗ 1e+09" in text
    assert "0 of 1 seen and named, 0%" in text

"""What is made of results: comparisons with earlier ones, and docs/benchmarks.md."""

import os
import runpy
import sys
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from PIL import Image, ImageColor
from rich.console import Console

from parity.benchmark import memory
from parity.benchmark.chart import COLOURS, draw
from parity.benchmark.contender import HELD, LOADED, chosen
from parity.benchmark.page import page
from parity.benchmark.regression import changes, other_settings, table
from parity.benchmark.result import Results, Row, load
from parity.benchmark.suite import CPU, GPU
from parity.benchmark.table import against_checkouts, tables

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "benchmark.py"
CONFIGURED = "train, infer, ops, scaling, data, encodings"
FACTS = {
    "date": "2026-01-02",
    "command": "python scripts/benchmark.py train",
    "versions": {"jax": "1.2"},
    "cpu": "a CPU",
    "load": 0.5,
    "gpus": [{"driver_version": "550", "clocks.sm": "1 MHz", "clocks.max.sm": "2 MHz"}],
    "peaks": {"source": "published", "flops": {"bfloat16": 1e15}, "bandwidth": 5e12},
}


def row(contender: str, *samples: float, failure: str | None = None) -> Row:
    return Row(
        case="256×256, batch 16",
        contender=contender,
        precision="bfloat16",
        failure=failure,
        images=16,
        samples=samples,
        steps=1,
        wanted=len(samples),
        first=10.0,
        memory=2_000_000_000,
        flops=10**13,
        bound=0.05,
        distance=1e-3,
    )


OURS = row("JAX jit, bfloat16", 0.08, 0.1, 0.1, 0.1, 0.12)
THEIRS = row("PyTorch compile, channels_last, bfloat16", 0.2, 0.2, 0.2)
OLD = Results(subject="train", title="a U-Net", device="Card 9", facts=FACTS, rows=[OURS, THEIRS])


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    def run(*args: str) -> int:
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *args])
        return runpy.run_path(str(SCRIPT))["main"]()

    return run


def scaled(row: Row, factor: float) -> Row:
    return replace(row, samples=tuple(factor * sample for sample in row.samples))


def test_results_are_read_as_they_were_written(tmp_path: Path):
    OLD.save(tmp_path / "old.json")
    assert load(tmp_path / "old.json") == OLD


@pytest.mark.parametrize(
    ("now", "slower"),
    [
        pytest.param(OURS, False, id="same"),
        pytest.param(scaled(OURS, 0.5), False, id="faster"),
        pytest.param(scaled(THEIRS, 0.75), True, id="slower than any spread"),
        pytest.param(replace(OURS, samples=(0.06, 0.11, 0.2)), False, id="within its own spread"),
        pytest.param(replace(OURS, failure="out of memory"), True, id="no more"),
    ],
)
def test_a_planted_regression_is_found(now, slower, tmp_path, run, capsys):
    new = replace(OLD, rows=[replace(now, contender=OURS.contender), THEIRS])
    assert [change.slower for change in changes(OLD, new)] == [slower, False]
    OLD.save(tmp_path / "old.json")
    new.save(tmp_path / "new.json")
    status = run("compare", str(tmp_path / "old.json"), str(tmp_path / "new.json"))
    assert status == (1 if slower else 0)
    printed = capsys.readouterr().out
    [line] = [line for line in printed.splitlines() if OURS.contender in line]
    assert ("slower" in line) == slower


def test_rows_of_one_side_alone_are_no_regression():
    new = replace(OLD, rows=[THEIRS, row("PyTorch eager, contiguous, bfloat16", 1.0)])
    assert [change.slower for change in changes(OLD, new)] == [False, False, False]
    failed = replace(OLD, rows=[replace(OURS, failure="out of memory")])
    assert not changes(failed, OLD)[0].slower


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("subject", "infer", "the subject of the old file is train, of the new one infer"),
        ("title", "a V-Net", "the title of the old file is a U-Net, of the new one a V-Net"),
    ],
)
def test_files_of_something_else_are_not_compared(name, value, message, tmp_path, run, capsys):
    OLD.save(tmp_path / "old.json")
    replace(OLD, **{name: value}).save(tmp_path / "new.json")
    with pytest.raises(SystemExit) as stop:
        run("compare", str(tmp_path / "old.json"), str(tmp_path / "new.json"))
    assert stop.value.code == 2
    assert capsys.readouterr() == ("", f"error: compare: {message}\n")


def test_files_of_two_devices_are_compared_and_both_are_named(tmp_path, run, capsys):
    OLD.save(tmp_path / "old.json")
    replace(OLD, device="Card 10").save(tmp_path / "new.json")
    assert run("compare", str(tmp_path / "old.json"), str(tmp_path / "new.json")) == 0
    assert "Two devices: Card 9, and Card 10." in capsys.readouterr().out


def test_files_of_other_settings_are_compared_and_these_are_named():
    def settings(text: str) -> Results:
        return replace(OLD, facts=FACTS | {"settings": text})

    old = settings("model: {norm: batch, skip: true, gone: 1}\ntrain: {seed: 0}")
    new = settings("model: {norm: none, skip: true, come: 2}\ntrain: {seed: 1}")
    assert other_settings(old, new) == ["model.norm", "train.seed"]
    assert other_settings(old, old) == other_settings(OLD, new) == other_settings(new, OLD) == []
    assert "Other settings: model.norm, train.seed." in str(table([], old, new).caption)


def test_a_change_is_told_turn_by_turn():
    """A machine that gets slower is as slow to both; their medians alone are 1.5 apart here."""
    own = row("JAX jit, bfloat16", 1.0, 2.0, 9.0)
    before = replace(row("before: JAX jit, bfloat16", 3.0, 2.2, 9.9), checkout="before")
    [remark] = against_checkouts([own, before, THEIRS])
    ratio = "1.100× (1.100 to 2.050, turn by turn)"
    assert remark == f"JAX jit, bfloat16: {ratio} before: JAX jit, bfloat16"
    assert against_checkouts([replace(own, failure="out of memory"), before]) == []


ODD = "[/] $\\foo$ [bold]as it is[/bold]"


def test_names_and_reasons_are_shown_as_they_are(tmp_path: Path):
    """Rich would take them for markup, and matplotlib for formulas."""
    rows = [OURS, row(ODD, 1.0), row("JAX pmap, bfloat16", failure=ODD)]
    results = replace(OLD, rows=rows)
    printed = Console(width=200, file=StringIO())
    for each in (*tables(results), table(changes(results, results), results, results)):
        printed.print(each)
    assert isinstance(printed.file, StringIO)
    assert printed.file.getvalue().count(ODD) == 3  # Name and reason; name.
    draw(results, tmp_path / "chart.png")


@pytest.mark.parametrize(
    "broken",
    [
        replace(OLD, facts={}),
        replace(OLD, rows=[replace(OURS, samples=())]),
        replace(OLD, rows=[replace(OURS, samples=(0.0, 1.0))]),
    ],
    ids=["no date", "no samples", "no time"],
)
def test_a_file_that_cannot_be_so_is_refused(broken: Results, tmp_path: Path):
    broken.save(tmp_path / "broken.json")
    with pytest.raises(ValueError, match=r"broken\.json: not what train, infer"):
        load(tmp_path / "broken.json")


def test_a_chart_of_several_devices_is_drawn(tmp_path: Path):
    """Their names have a comma after the framework's, where others have none."""
    names = ("JAX, 1 device, bfloat16", "JAX, 2 devices, bfloat16", "JAX, 4 devices, bfloat16")
    one, two = (row(name, 0.1 / n, 0.11 / n) for n, name in enumerate(names[:2], 1))
    failed = row(names[2], failure="out of memory")
    results = replace(OLD, subject="scaling", rows=[one, two, failed])
    assert colours(results, tmp_path) == {"JAX"}


def test_another_checkout_has_a_bar_of_its_own_colour(tmp_path: Path):
    own, torch = row("JAX jit, float32", 0.1), row("PyTorch eager, channels_last, float32", 0.1)
    before = replace(row("before: JAX jit, float32", 0.1), checkout="before")
    assert colours(replace(OLD, rows=[own, before, torch]), tmp_path) == COLOURS.keys()


def colours(results: Results, folder: Path) -> set[str]:
    """Which of them a chart's bars have."""
    draw(results, folder / "chart.png")
    with Image.open(folder / "chart.png") as chart:
        found = {colour for _, colour in chart.convert("RGB").getcolors(2**24) or ()}
    return {name for name, colour in COLOURS.items() if ImageColor.getrgb(colour) in found}


def test_the_page_is_what_the_committed_files_give():
    assert (ROOT / "docs" / "benchmarks.md").read_text() == page(ROOT / "docs" / "benchmarks")


def test_the_page_says_at_which_clocks_samples_were_taken(tmp_path: Path):
    (tmp_path / "benchmarks").mkdir()
    rows = [replace(OURS, clock="1.5 MHz"), replace(THEIRS, clock="1.4 MHz")]
    replace(OLD, rows=rows).save(tmp_path / "benchmarks" / "card.json")
    text = page(tmp_path / "benchmarks")
    assert "driver 550, clock 1.4 MHz, 1.5 MHz after samples, at most 2 MHz" in text


def test_the_page_says_what_was_measured_and_what_was_not(tmp_path: Path):
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    OLD.save(folder / f"card-9--{GPU[0].name}.json")
    text = page(folder)
    assert "## Card 9\n" in text
    cells = ("160", "100 (100 to 100), 5 samples", "9.9", "2,000", "100", "50%", "1e-03")
    assert f"| JAX jit, bfloat16 | {' | '.join(cells)} |" in text
    assert "| PyTorch compile, channels_last, bfloat16 | 80 | 200 (200 to 200), 3 samples |" in text
    assert "JAX jit, bfloat16: 2.00× PyTorch compile, channels_last, bfloat16" in text
    assert "2026-01-02; jax 1.2" in text
    assert "driver 550, clock 1 MHz before the run, at most 2 MHz" in text
    assert "; measured as before: memory with what compilation took and freed; in training" in text
    parts = [f"{name} {part}" for name in ("JAX", "PyTorch") for part in ("forward", "backward")]
    layers = [replace(OURS, contender=part) for part in parts]
    replace(OLD, subject="ops", rows=layers).save(folder / "card-9--ops.json")
    assert page(folder).count("; measured as before") == text.count("; measured as before") == 1
    assert page(folder).count("| ops, ") == 0
    unmeasured = text.partition("## GPU: not measured")[2]
    assert "`python scripts/benchmark.py suite`" in unmeasured
    assert unmeasured.count("| not measured |") == len(GPU) - 1 + len(CPU)


def test_the_page_says_how_memory_was_counted(tmp_path: Path):
    replace(OLD, facts=FACTS | {"memory": memory.ACCOUNT}).save(tmp_path / "card.json")
    assert "; memory without what compilation took and freed. Raw" in page(tmp_path)


def test_the_page_says_of_which_commit_a_row_is(tmp_path: Path):
    replace(OLD, facts=FACTS | {"commit": "abc1234-dirty"}).save(tmp_path / "card.json")
    assert "2026-01-02; jax 1.2, unet-jax abc1234-dirty; " in page(tmp_path)


def test_each_device_begins_with_an_overview(tmp_path: Path):
    """Of rows on one device the fastest counts; end to end, of those that read their data."""
    slower = replace(row("PyTorch eager, channels_last, bfloat16", 0.4), memory=1)
    failed = row("PyTorch eager, contiguous, bfloat16", failure="out of memory")
    many = replace(row("JAX pmap, bfloat16", 0.01), devices=8)
    twice = replace(THEIRS, memory=4_000_000_000)
    trained = replace(OLD, rows=[OURS, many, slower, twice, failed])
    waiting = [
        replace(OURS, contender=OURS.contender + HELD, samples=(0.01,)),
        replace(OURS, contender=OURS.contender + LOADED, samples=(0.16,), bound=None),
        replace(THEIRS, contender=THEIRS.contender + LOADED, samples=(0.24,), memory=None),
    ]
    trained.save(tmp_path / "card--1.json")
    replace(OLD, subject="end-to-end", rows=[*OLD.rows, *waiting]).save(tmp_path / "card--2.json")
    overview, _, sections = page(tmp_path).partition("## Card 9\n")[2].partition("###")
    case = "a U-Net | 256×256, batch 16 | bfloat16"
    assert [line for line in overview.splitlines() if case in line] == [
        f"| train, {case} | 160 | 80 (compile, channels_last) | 2.00× | 0.50× | 50% |",
        f"| end-to-end, {case} | 100 | 66.7 (compile, channels_last) | 1.50× | – | – |",
    ]
    assert sections.count("JAX jit, bfloat16: 2.00× PyTorch compile, channels_last") == 2
    assert "JAX jit, bfloat16, from prepared records: 1.50× PyTorch compile" in sections
    assert "JAX jit, bfloat16, from memory: 1000.0% of the rate without" in sections


def test_some_cases_of_the_suite_can_be_named():
    names = [case.name for case in chosen(CPU, ("plain", "scaling"), "--cases")]
    assert names == [
        "shapes-scaling",
        "carvana-small-plain-train",
        "carvana-small-plain-infer",
    ]
    assert chosen(CPU, (), "--cases") == CPU


def test_the_suite_holds_what_is_promised():
    names = {case.name for case in GPU}
    for network in ("residual", "plain"):
        for size in ("256x256", "320x480"):
            for subject in ("train", "infer", "end-to-end", "scaling"):
                assert f"{network}-{size}-{subject}" in names
    vendor = next(case for case in GPU if case.name == "plain-572x572-train")
    assert vendor.config.train.batch_size == 8
    assert all(case.config.data.dataset == "shapes" for case in GPU), "one would need a download"
    assert {case.precisions for case in GPU if case is not vendor} == {("bfloat16",)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("compare one.json", "compare: give two files, the old one first; got 1"),
        ("train one.json", "one.json is for suite, compare, docs, not for train"),
        ("infer --end-to-end", "--end-to-end is for train, not for infer"),
        (
            "data --precisions bfloat16",
            "--precisions is for train, infer, ops, scaling, not for data",
        ),
        ("train --samples 0", "--samples: 0 is less than 1"),
        ("train --limit inf", "--limit: inf is no finite number"),
        ("train --limit nan", "--limit: nan is no finite number"),
        ("train --batch-sizes 2 4 2", "--batch-sizes: 2 is given more than once"),
        (
            "train --precisions bfloat16 bfloat16",
            "--precisions: bfloat16 is given more than once",
        ),
        ("train --out /dev/null", "--out: /dev/null is no regular file"),
        ("train --together 0", "--together: 0 is less than 1"),
        ("train --starts 0", "--starts: 0 is less than 1"),
        ("train --starts 3 --samples 2", "--starts: 3 is more than --samples, 2"),
        ("ops --checkouts .", "--checkouts is for train, infer, not for ops"),
        (
            "train --checkouts nowhere",
            "--checkouts: nowhere is none of this project: no folder parity/benchmark",
        ),
        (
            f"train --checkouts {ROOT} {ROOT}",
            f"--checkouts: more than one is called {ROOT.name}, by which its rows are told apart",
        ),
        ("ops --starts 2", "--starts is for train, infer, scaling, suite, not for ops"),
        ("ops --together 2", "--together is for train, infer, scaling, suite, not for ops"),
        ("train --batch-sizes 4 0", "--batch-sizes: 0 is less than 1"),
        ("compare one.json two.json", "[Errno 2] No such file or directory: 'one.json'"),
        (
            "compare broken.json broken.json",
            "broken.json: not what train, infer, ops or scaling write",
        ),
        ("docs nowhere", "there is no folder nowhere"),
        ("train --out nowhere/out.json", "--out: there is no folder nowhere"),
        (
            "train --contenders flax",
            "--contenders: 'flax' is in none of the names: JAX jit, float32;",
        ),
        (
            "suite . --cases nothing",
            "--cases: 'nothing' is in none of the names: ",
        ),
        ("train --workers 4", "--workers is for train --end-to-end, not for train alone"),
        ("data --workers -1", "--workers: -1 is less than 0"),
        ("train --out out.png", "--out: out.png is where the chart goes; name the JSON file"),
        ("train --precisions tf32", "precisions: tf32 needs a GPU"),
        ("ops --precisions tf32", "precisions: tf32 needs a GPU"),
        ("scaling --precisions tf32", "precisions: tf32 needs a GPU"),
        ("suite --batch-size 4", f"--batch-size is for {CONFIGURED}, not for suite"),
        ("docs --preset carvana", f"--preset is for {CONFIGURED}, not for docs"),
        ("compare a b --dataset carvana", f"--dataset is for {CONFIGURED}, not for compare"),
        ("train --cases shapes", "--cases is for suite, not for train"),
        ("scaling --batch-sizes 12", "batch_size: 12 does not divide among 8 devices"),
        (
            "train --batch-sizes 3 --accumulate 2",
            "accumulate: 2 does not divide batch_size 3",
        ),
    ],
)
def test_a_mistake_is_one_line(arguments, message, tmp_path, run, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("broken.json").write_text('{"results": {}}')
    with pytest.raises(SystemExit) as stop:
        run(*arguments.split())
    assert stop.value.code == 2
    printed, error = capsys.readouterr()
    assert printed == ""
    assert error.startswith(f"error: {message}")
    assert error.count("\n") == 1
    assert not any(name.endswith(".md") for name in os.listdir())

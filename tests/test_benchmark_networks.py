"""`scripts/benchmark.py train` at toy size, from the command line to its files."""

import contextlib
import json
import math
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import psutil
import pytest
from contestants import SLEEP, Troubled, WrongLayer
from PIL import Image

from parity.benchmark import jobs, layers, memory, networks, setting
from parity.benchmark.contestant import WHOLE_SAMPLE
from parity.benchmark.duel import duels
from parity.benchmark.result import Results, load
from parity.benchmark.roofline import Peaks
from parity.benchmark.table import lines
from unet_jax import onednn

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "benchmark.py"
TINY = "--architecture plain --norm batch --size 16 24 --channels 4 --batch-size 2 --samples 3"
SLOW = "PyTorch eager, contiguous, float32"
QUICK = "PyTorch eager, channels_last, float32"


def command(subject: str, *flags: str) -> list[str]:
    return [subject, *TINY.split(), *flags]


@pytest.fixture(scope="module")
def patch():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def run(patch: pytest.MonkeyPatch) -> Callable[..., int]:
    def run(*args: str) -> int:
        patch.setattr(sys, "argv", [str(SCRIPT), *args])
        return runpy.run_path(str(SCRIPT))["main"]()

    return run


@pytest.fixture(scope="module")
def results(run, patch, tmp_path_factory) -> Results:
    """One contender sleeps, another fails."""
    out = tmp_path_factory.mktemp("results") / "out.json"
    with patch.context() as troubled:
        troubled.setitem(jobs.CONTESTANTS, ("train", "torch"), Troubled)
        who = ("--contenders", "jit", "eager", "compile, channels_last")
        assert run(*command("train", *who, "--out", str(out))) == 0
    return load(out)


def test_a_sleep_shows_up_in_its_row(results):
    rows = {row.contender: row for row in results.rows}
    assert rows[SLOW].median > SLEEP > 2 * rows[QUICK].median
    assert 1 < rows[SLOW].steps <= math.ceil(WHOLE_SAMPLE / SLEEP) < rows[QUICK].steps
    assert f"{rows[SLOW].rate:.3g}" in lines(results.rows)[list(rows).index(SLOW) - 1][1]


def test_rows_hold_what_was_measured(results):
    measured = [row for row in results.rows if row.failure is None]
    alone = ["JAX jit, XLA alone, float32"] if onednn.available() else []
    assert [row.contender for row in measured] == ["JAX jit, float32", *alone, QUICK, SLOW]
    for row in measured:
        assert row.case == "16×24, batch 2"
        assert len(row.samples) == 3
        low, high = row.quartiles
        assert 0 < low <= row.median <= high
        # JAX compiles; the others' first step sleeps as all do.
        assert row.first > (row.median if row.contender.startswith("JAX") else 0)
        assert row.warm_up == 5
        assert row.flops == measured[0].flops > 0
        assert row.roofline is not None
        assert 0 < row.roofline < 1
        assert row.distance is None or row.distance < 1e-4
    assert measured[-1].distance is None, "the reference was compared with itself"
    assert str(duels(results.rows)[0]).startswith("JAX jit, float32: ")


def test_what_cannot_be_measured_is_a_row(results):
    failures = {row.contender: row.failure for row in results.rows if row.failure is not None}
    assert failures.pop("PyTorch compile, channels_last, float32") == (
        "RuntimeError: no compiler here"
    )
    assert set(failures.values()) == {"needs a GPU"}
    assert all("tf32" in name for name in failures)
    table = lines(results.rows)
    assert table[-1][:3] == (
        f"{len(failures)} contenders in tf32",
        "–",
        "not measured: needs a GPU",
    )
    [one, *_] = (row for row in results.rows if row.failure == "needs a GPU")
    assert lines([one])[0][0] == "1 contender in tf32"
    assert any("3 samples" in line[2] for line in table)


def test_facts_and_chart_lie_beside(results, tmp_path):
    facts = results.facts
    assert facts["memory"] == memory.ACCOUNT
    assert facts["versions"].keys() == {"python", "jax", "jaxlib", "flax", "torch", "numpy"}
    assert facts["command"].startswith("python scripts/benchmark.py train --architecture plain")
    assert facts["peaks"]["source"] == "measured: a product, a copy"
    assert results.device.startswith(f"{facts['cpu']}, {facts['cores']} core")
    out = Path(facts["command"].split("--out ")[1])
    with Image.open(out.with_suffix(".png")) as chart:
        assert chart.width > 1000


@pytest.mark.parametrize(
    ("subject", "precision", "limit"),
    [
        ("infer", "float32", "1.0e-03"),
        ("train", "float32", "1.0e-03"),
        ("train", "bfloat16", "8.8e-03"),
    ],
)
def test_a_wrong_weight_is_refused(subject, precision, limit, run, monkeypatch, tmp_path, capsys):
    right = setting.to_flax

    def wrong(*args: Any) -> Any:
        variables = right(*args)
        kernel = variables["params"]["conv_out"]["kernel"]
        variables["params"]["conv_out"]["kernel"] = 1.2 * kernel
        return variables

    monkeypatch.setattr(setting, "to_flax", wrong)
    peaks = Peaks({"float32": 1e9, "bfloat16": 1e9}, 1e9, "")
    monkeypatch.setattr(networks, "device_peaks", lambda device: peaks)
    out = tmp_path / "out.json"
    who = ("--contenders", "jit", "--precisions", precision, "--out", str(out))
    assert run(*command(subject, *who)) == 1
    printed, said = capsys.readouterr()
    assert printed == ""
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    [error] = errors
    assert error.startswith(f"error: no comparison: JAX jit, {precision} does not compute what")
    assert error.endswith(f"limit {limit}")
    assert not out.exists()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Another checkout of this project."""
    made = tmp_path / "JAX before"
    code = shutil.ignore_patterns("__pycache__")  # Which other tests write to.
    for package in ("parity", "unet_jax", "unet_torch_ref"):
        shutil.copytree(ROOT / package, made / package, ignore=code)
    return made


def add(checkout: Path, code: str) -> None:
    """Changes what JAX' contestant is there."""
    with (checkout / "parity" / "benchmark" / "jax_contestant.py").open("a") as module:
        module.write(code)


def test_another_checkout_runs_its_own_code(run, checkout, monkeypatch, tmp_path, capsys):
    add(
        checkout,
        f"""
import time


def slow(self, step=JaxInference.step):
    time.sleep({SLEEP})
    step(self)


JaxInference.step = slow
""",
    )
    monkeypatch.setattr(networks, "device_peaks", lambda device: Peaks({"float32": 1e9}, 1e9, ""))
    out, path = tmp_path / "out.json", list(sys.path)
    who = "jit, float32", "eager, channels_last"
    flags = "--precisions", "float32", "--checkouts", str(checkout), "--out", str(out)
    assert run(*command("infer", *flags, "--contenders", *who)) == 0
    assert sys.path == path
    own, before, _ = rows = [row for row in load(out).rows if row.failure is None]
    assert [row.contender for row in rows] == [
        "JAX jit, float32",
        f"{checkout.name}: JAX jit, float32",
        QUICK,
    ]
    assert [row.checkout for row in rows] == ["", checkout.name, ""]
    assert load(out).facts["checkouts"] == {checkout.name: None}, "there is no git"
    assert before.median > SLEEP > 2 * own.median
    assert duels([before, rows[2]]) == [], "a duel is this checkout's"
    printed = " ".join(capsys.readouterr().out.split())
    assert f"turn by turn) {checkout.name}: JAX jit, float32" in printed


def test_checkouts_without_jax_are_refused(run, capsys):
    with pytest.raises(SystemExit) as stop:
        run(*command("infer", "--checkouts", str(ROOT), "--contenders", "channels_last"))
    assert stop.value.code == 2
    error = "error: --checkouts: none of JAX takes part; see --contenders\n"
    assert capsys.readouterr() == ("", error)


def test_another_checkout_that_computes_something_else_is_refused(
    run, checkout, monkeypatch, capsys
):
    add(checkout, "\n\nJaxInference.outcome = lambda self: np.asarray(self.last[1]) * 1.1\n")
    monkeypatch.setattr(networks, "device_peaks", lambda device: Peaks({"float32": 1e9}, 1e9, ""))
    assert run(*command("infer", "--checkouts", str(checkout), "--contenders", "jit, float32")) == 1
    printed, said = capsys.readouterr()
    assert printed == ""
    error = f"error: no comparison: {checkout.name}: JAX jit, float32 does not compute what"
    assert said.splitlines()[-1].startswith(error)


def test_another_checkout_that_is_too_different_is_refused(checkout, tmp_path):
    """From the command line, whose processes import the script, too."""
    (checkout / "parity" / "benchmark" / "task.py").unlink()
    out = tmp_path / "out.json"
    flags = "--precisions", "float32", "--checkouts", str(checkout), "--out", str(out)
    arguments = [*command("infer", *flags), "--contenders", "jit, float32"]
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    reason = "ModuleNotFoundError: No module named 'parity.benchmark.task'"
    error = f"error: --checkouts: {checkout} cannot take part in this one's race: {reason}\n"
    assert ended.stderr == error
    assert not out.exists()


def test_layers_are_timed_in_both(run, tmp_path, monkeypatch, capsys):
    found = layers.convolutions
    monkeypatch.setattr(
        layers, "convolutions", lambda *args: [*found(*args)[:1], *found(*args)[:1]]
    )
    out = tmp_path / "out.json"
    assert run(*command("ops", "--out", str(out))) == 0
    rows = load(out).rows
    assert [row.contender for row in rows] == [
        f"{name} {part}" for part in ("forward", "backward") for name in ("PyTorch", "JAX")
    ]
    assert {(row.case, row.count) for row in rows} == {("3×3, 2×16×24, 3 → 4, float32", 2)}
    forward, backward = rows[1], rows[3]
    assert backward.flops == 2 * forward.flops == 4 * 9 * 2 * 16 * 24 * 3 * 4
    lost = sum(r.count * r.median * (1 if "JAX" in r.contender else -1) for r in rows)
    assert layers.lost(rows) == {rows[0].case: pytest.approx(lost)}
    assert out.with_suffix(".png").is_file()


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(("forward", 0), id="output"),
        pytest.param(("backward", 1), id="kernel's gradient"),
    ],
)
def test_a_wrong_layer_is_refused(wrong, run, monkeypatch, capsys):
    found = layers.convolutions
    monkeypatch.setattr(layers, "convolutions", lambda *args: found(*args)[:1])
    monkeypatch.setattr(layers, "device_peaks", lambda device: Peaks({"float32": 1e9}, 1e9, ""))
    monkeypatch.setitem(layers.LAYERS, "JAX", partial(WrongLayer, wrong))
    assert run(*command("ops")) == 1
    printed, said = capsys.readouterr()
    assert printed == ""
    error = f"error: no comparison: JAX {wrong[0]} of 3×3, 2×16×24, 3 → 4 does not compute what the"
    assert said.splitlines()[-1].startswith(error)


def test_layers_share_cores_as_their_network_does(run, monkeypatch):
    given = []

    def begun(make: partial, log: Path) -> Mock:
        given.append(make.args)
        return Mock()

    monkeypatch.setattr(layers, "Worker", begun)
    monkeypatch.setattr(layers, "convolutions", lambda *args: [])
    monkeypatch.setattr(layers, "device_peaks", lambda device: Peaks({"float32": 1e9}, 1e9, ""))
    run(*command("ops"))
    assert given == [("float32", False), ("float32", False, 2 * 16 * 24 * 4)]


@pytest.mark.parametrize(
    ("number", "send", "status"),
    [(signal.SIGINT, os.killpg, 130), (signal.SIGTERM, os.kill, 143)],
    ids=["Ctrl-C", "SIGTERM"],
)
def test_a_signal_ends_all_processes_and_nothing_is_left(number, send, status, tmp_path):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    arguments = [sys.executable, str(SCRIPT), *command("train", "--samples", "1000000")]
    environment = os.environ | {"PYTHONPATH": str(SCRIPT.parents[1]), "TMPDIR": str(temporary)}
    process = subprocess.Popen(
        [*arguments, "--contenders", "eager", "--out", str(tmp_path / "out.json")],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # If the tests are a job in the background, they ignore Ctrl-C, and so would their children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if "first step" in line:
                break
        children = psutil.Process(process.pid).children(recursive=True)
        assert children
        time.sleep(0.5)
        assert list(temporary.iterdir())  # Weights.
        send(process.pid, number)
        _, rest = process.communicate(timeout=60)
        assert process.returncode == status
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert "Traceback" not in rest
    assert psutil.wait_procs(children, timeout=10)[1] == []
    assert not (tmp_path / "out.json").exists()
    assert [*temporary.iterdir()] == []


def test_files_of_results_are_json(results):
    out = Path(results.facts["command"].split("--out ")[1])
    assert json.loads(out.read_text())["subject"] == "train"

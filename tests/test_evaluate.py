"""The evaluating command: what it finds, writes and refuses."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawing import NATIVE
from evaluating import SIZE, make_config, moved, write_run
from PIL import Image
from predicting import write_trained

import unet_jax.evaluation.evaluate
import unet_jax.evaluation.evaluation
from parity.torch_predictor import TorchPredictor, read_torch
from unet_jax import onednn
from unet_jax.config import Config
from unet_jax.datasets.files import opened
from unet_jax.evaluation.evaluate import evaluate
from unet_jax.evaluation.evaluate_options import parse_evaluate
from unet_jax.prediction.predictor import Predictor
from unet_jax.trained import load_trained
from unet_jax.weights import save_weights

ROOT = Path(__file__).parents[1]
SCORES = ("dice", "iou", "accuracy", "mean_class_accuracy", "boundary_f")


@pytest.fixture(scope="module", autouse=True)
def no_onednn():
    """XLA gives an image what it gives a batch of it; with oneDNN between, they round apart."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onednn, "available", lambda: False)
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the data of the module's runs lies."""
    return tmp_path_factory.mktemp("place")


@pytest.fixture(scope="module")
def config(place: Path) -> Config:
    return make_config(place)


@pytest.fixture(scope="module")
def run(place: Path, config: Config) -> Path:
    write_run(place / "run", config)
    return place / "run"


@pytest.fixture(scope="module")
def twin(place: Path, config: Config) -> Path:
    write_run(place / "twin", config, "torch")
    return place / "twin"


@pytest.fixture(scope="module")
def report(run: Path, place: Path) -> Path:
    """The report on the run, as it is without further flags; not to be changed."""
    assert command("--run", run, "--out", place / "deep/report") == 0
    return place / "deep/report"


def in_torch():
    return read_torch, TorchPredictor


def command(*args: object) -> int:
    """Runs the command here; its exit status."""
    given = ["--bootstrap", "50", "--batch-size", "2", *map(str, args)]
    try:
        return evaluate(*parse_evaluate(given, description="Evaluates."), in_torch)
    except SystemExit as stop:
        return int(stop.code or 0)


def results(out: Path) -> dict[str, Any]:
    return json.loads((out / "results.json").read_text())


def record(run: Path) -> dict[str, Any]:
    return json.loads((run / "metrics.jsonl").read_text())


def apart(found: dict[str, Any], recorded: dict[str, Any]) -> float:
    """The largest difference of a network's scores from those its run has recorded."""
    given = found["sizes"]["training"]["scores"]
    return max(abs(given[name]["value"] - recorded[name]) for name in SCORES)


# What is found.


def test_a_runs_own_scores_are_found_again(run: Path, report: Path):
    (found,) = results(report)["networks"]
    # Pixels are counted alike: equal counts are divided in the same order.
    assert apart(found, record(run)) == 0
    assert found["framework"] == "JAX"
    assert [*found["sizes"]] == ["training", "native"]
    assert "found here: the same" in (report / "report.md").read_text()


def test_several_classes_and_no_files(place: Path, tmp_path: Path):
    """Scenes that are rendered have no native size of their own."""
    recorded = write_run(tmp_path / "run", make_config(place, "shapes"))
    assert command("--run", tmp_path / "run", "--out", tmp_path / "out") == 0
    (found,) = results(tmp_path / "out")["networks"]
    assert apart(found, recorded) == 0
    assert [*found["sizes"]] == ["training"]
    assert "best_threshold" not in found["sizes"]["training"]


def test_a_run_that_shrinks_what_is_stored_is_seen_as_in_training(place: Path, tmp_path: Path):
    config = make_config(place, stored_size=(20, 40))
    recorded = write_run(tmp_path / "run", config)
    assert command("--run", tmp_path / "run", "--out", tmp_path / "out") == 0
    (found,) = results(tmp_path / "out")["networks"]
    # Here the image is normalised after it is resampled, in training before: a pixel may tip.
    assert apart(found, recorded) < 3 / (6 * SIZE[0] * SIZE[1])


@pytest.mark.parametrize("flags", [(), ("--flips", "h"), ("--tile", "16x24")])
def test_native_counts_are_those_of_predicted_masks(
    flags: tuple[str, ...], run: Path, report: Path, place: Path, tmp_path: Path
):
    """Each file is predicted by itself, and compared with its mask pixel by pixel."""
    if flags:
        report = tmp_path / "out"
        assert command("--run", run, "--out", report, *flags) == 0
    predictor, confusion = Predictor(load_trained(run), batch_size=2), np.zeros((2, 2), int)
    names = json.loads((run / "split.json").read_text())["validation"]
    settings: dict[str, Any] = {"flips": "h"} if "--flips" in flags else {}
    settings |= {"tile": (16, 24)} if "--tile" in flags else {}
    for name in names:
        found = predictor.predict(place / f"data/train/{name}.jpg", **settings)
        mask = np.asarray(Image.open(place / f"data/train_masks/{name}_mask.gif"))
        for true, guess in zip(mask.flat, found.mask.flat, strict=True):
            confusion[int(true > 0), guess] += 1
    native = results(report)["networks"][0]["sizes"]["native"]
    assert native["confusion"] == confusion.tolist()
    hits, either = confusion[1, 1], confusion[1].sum() + confusion[:, 1].sum()
    assert native["scores"]["dice"]["value"] == pytest.approx(2 * hits / either, rel=1e-12)


def test_both_frameworks_count_the_same_from_the_same_weights(run: Path, tmp_path: Path):
    """Their probabilities differ by float32's rounding, 1e-6 or so; only a pixel that is as near to
    0.5 could be counted otherwise, and in these pictures none is."""
    assert command("--run", run, "--framework", "both", "--out", tmp_path / "out") == 0
    found = results(tmp_path / "out")
    ours, theirs = found["networks"]
    assert [ours["label"], theirs["label"]] == ["run (JAX)", "run (PyTorch)"]
    for size in ("training", "native"):
        assert ours["sizes"][size]["confusion"] == theirs["sizes"][size]["confusion"]
        errors = [
            n["sizes"][size]["calibration"]["expected_calibration_error"] for n in (ours, theirs)
        ]
        assert errors[0] == pytest.approx(errors[1], abs=1e-5)
        (difference,) = found["differences"]
        for name in SCORES:
            given = difference["sizes"][size][name]
            assert given == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_the_two_frameworks_really_compute(run: Path):
    """The probabilities are close, and not the same bits."""
    trained = load_trained(run)
    image = np.random.default_rng(0).integers(0, 256, (2, *SIZE, 3), np.uint8)
    ours = Predictor(trained).run(image, "hv")
    theirs = TorchPredictor(trained).run(image, "hv")
    np.testing.assert_allclose(theirs, ours, atol=1e-5)
    assert (theirs != ours).any()
    assert "network" not in vars(Predictor(trained))  # It is made when it is asked for.


def test_runs_are_compared_with_their_converted_weights(run: Path, twin: Path, tmp_path: Path):
    save_weights(read_torch(twin), tmp_path / "model.safetensors")
    given = ["--run", run, "--run", twin, "--weights", tmp_path / "model.safetensors"]
    assert command(*given, "--out", tmp_path / "out") == 0
    networks = results(tmp_path / "out")["networks"]
    labels = ["run (JAX)", "twin (PyTorch)", "model (JAX)"]
    assert [network["label"] for network in networks] == labels
    counts = [network["sizes"]["native"]["confusion"] for network in networks]
    assert counts[0] == counts[1] == counts[2]
    assert networks[0]["recorded_by_the_run"].keys() == set(SCORES)
    assert networks[2]["recorded_by_the_run"] == {}
    text = (tmp_path / "out/report.md").read_text()
    assert "twin (PyTorch) − run (JAX)" in text
    assert (tmp_path / "out/confusion_2_twin-PyTorch.png").is_file()


def test_networks_of_long_names_have_pictures_of_their_own(run: Path, tmp_path: Path):
    names = [f"{'long' * 20}_{n}" for n in range(2)]
    for name in names:
        shutil.copytree(run, tmp_path / name)
    given = [part for name in names for part in ("--run", tmp_path / name)]
    assert command(*given, "--out", tmp_path / "out") == 0
    pictures = re.findall(r'<img src="([^"]+)"', (tmp_path / "out/report.html").read_text())
    assert len({*pictures}) == len(pictures) == 2 + 1 + 2 * 6
    assert len([*(tmp_path / "out/worst").iterdir()]) == 2 * 6
    assert command(*given, "--out", tmp_path / "out", "--force") == 0  # All of it is a report's.


def test_the_last_state_of_either_framework_can_be_evaluated(run: Path, twin: Path, tmp_path: Path):
    assert command("--run", run, "--run", twin, "--last", "--out", tmp_path / "out") == 0
    states = [network["facts"]["state"] for network in results(tmp_path / "out")["networks"]]
    assert states == ["last", "last"]


def test_of_a_file_no_other_state_can_be_asked_for(
    run: Path, twin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    save_weights(load_trained(run), tmp_path / "model.safetensors")
    for path in (tmp_path / "model.safetensors", next((twin / "checkpoints").iterdir())):
        for flag in ("--last", "--no-ema"):
            args = ("--run", run, "--weights", path, flag, "--out", tmp_path / "out")
            assert f"{path}: a file has one set of weights" in refused(capsys, *args)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["native-second", "native-first"])
def test_a_network_trained_at_native_size_is_compared_with_a_smaller_one(
    order: tuple[int, int], run: Path, place: Path, tmp_path: Path
):
    """What the larger one reaches at its size, which is the files', counts at native size, too."""
    write_run(tmp_path / "large", make_config(place, size=NATIVE))
    given = [("--run", run), ("--run", tmp_path / "large")]
    assert command(*given[order[0]], *given[order[1]], "--out", tmp_path / "out") == 0
    found = results(tmp_path / "out")
    networks = {network["label"]: network["sizes"] for network in found["networks"]}
    assert [*networks["run"]] == [*networks["large"]] == ["training", "native"]
    for name in SCORES:
        scores = [networks["large"][size]["scores"][name] for size in ("training", "native")]
        assert scores[0] == scores[1]
    assert command("--run", tmp_path / "large", "--out", tmp_path / "alone") == 0
    (alone,) = results(tmp_path / "alone")["networks"]
    assert [*alone["sizes"]] == ["training"]  # It would say the same twice.


def test_the_best_threshold_is_one_that_can_be_used(run: Path, report: Path, tmp_path: Path):
    before = results(report)["networks"][0]["sizes"]["native"]
    best = before["best_threshold"]
    flags = ("--threshold", best["value"], "--out", tmp_path / "b")
    assert command("--run", run, *flags) == 0
    found = results(tmp_path / "b")["networks"][0]["sizes"]["native"]
    assert found["scores"]["dice"]["value"] == pytest.approx(best["dice"], rel=1e-12)
    assert best["dice"] > before["scores"]["dice"]["value"]
    assert "judge it on another split" in (report / "report.md").read_text()


def test_worst_samples_are_those_with_the_lowest_scores(
    run: Path, report: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    every = results(report)["networks"][0]["worst"]
    assert [entry["score"] for entry in every] == sorted(entry["score"] for entry in every)
    names = json.loads((run / "split.json").read_text())["validation"]
    assert sorted(entry["name"] for entry in every) == sorted(names)
    monkeypatch.setattr(unet_jax.evaluation.evaluation, "WORST", 2)
    assert command("--run", run, "--out", tmp_path / "two") == 0
    assert results(tmp_path / "two")["networks"][0]["worst"] == every[:2]
    shown = sorted(path.name for path in (tmp_path / "two/worst").iterdir())
    assert shown == [f"{n:02}_{entry['name']}.jpg" for n, entry in enumerate(every[:2], 1)]


def test_groups_are_cars(report: Path):
    data = results(report)["data"]
    assert (data["samples"], data["groups"]) == (6, 2)  # 2 of 5 cars, with 3 views each.
    text = (report / "report.md").read_text()
    assert "6 samples in 2 groups" in text
    assert "With 2 groups the intervals mean little." in text


def test_training_samples_can_be_evaluated(run: Path, tmp_path: Path):
    assert command("--run", run, "--split", "train", "--out", tmp_path / "out") == 0
    found = results(tmp_path / "out")
    assert found["data"]["samples"] == 9
    assert found["networks"][0]["recorded_by_the_run"] == {}  # They are of other samples.


def test_weights_are_evaluated_on_a_set_that_is_named(run: Path, place: Path, tmp_path: Path):
    save_weights(load_trained(run), tmp_path / "model.safetensors")
    (tmp_path / "settings.yaml").write_text("data: {dataset: carvana, val_fraction: 0.4}\n")
    given = ("--weights", tmp_path / "model.safetensors", "--preset", tmp_path / "settings.yaml")
    places = ("--data-dir", place / "data", "--prepared-dir", place / "prepared")
    assert command(*given, *places, "--out", tmp_path / "out") == 0
    (found,) = results(tmp_path / "out")["networks"]
    assert apart(found, record(run)) == 0


# What is written.


def test_a_report_is_whole_and_self_contained(report: Path):
    out = report
    files = sorted(path.name for path in out.iterdir())
    assert files == [
        *("confusion.png", "reliability.png", "report.html", "report.md", "results.json"),
        *("worst", "worst.jpg"),
    ]
    assert [path.name for path in out.parent.iterdir()] == ["report"]
    html = (out / "report.html").read_text()
    assert html.startswith("<!DOCTYPE html>")
    assert "http" not in re.sub(r"http://www.w3.org", "", html)
    pictures = re.findall(r'<img src="([^"]+)"', html)
    assert len(pictures) == 2 + 6
    for name in (*pictures, "worst.jpg"):
        with Image.open(out / name) as picture:
            picture.load()
    assert sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) < 5e6
    markdown = (out / "report.md").read_text()
    assert re.findall(r"!\[.*\]\((.*)\)", markdown) == pictures


def test_only_a_report_is_written_over_and_only_by_force(
    run: Path, report: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = shutil.copytree(report, tmp_path / "out")
    (out / "results.json").write_text("old")
    assert command("--run", run, "--out", out) == 2
    assert "--force would write over" in capsys.readouterr().err
    assert (out / "results.json").read_text() == "old"
    assert command("--run", run, "--out", out, "--force") == 0
    assert results(out)["networks"]
    for name in ("notes.txt", "worst/mine.jpg", "confusion_final.png"):
        (out / name).write_text("mine")
        assert command("--run", run, "--out", out, "--force") == 2
        assert f"holds something else than a report ({name})" in capsys.readouterr().err
        assert (out / name).read_text() == "mine"
        (out / name).unlink()
    assert command("--run", run, "--out", out, "--force") == 0


def test_what_fails_leaves_what_was_there(
    run: Path, report: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = shutil.copytree(report, tmp_path / "out")
    before = (out / "results.json").read_bytes()

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("unet_jax.evaluation.pictures.plot_reliability", full)
    assert command("--run", run, "--out", out, "--force") == 2
    assert (out / "results.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


# What goes wrong.


def refused(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    """What is said on stderr by a command that is refused."""
    capsys.readouterr()
    assert command(*args) == 2
    err = " ".join(re.sub(r"[│╭╮╰╯─]", " ", capsys.readouterr().err).split())
    assert "Traceback" not in err
    return err


@pytest.fixture
def broken(run: Path, tmp_path: Path) -> Path:
    """A copy of the run, to be broken."""
    shutil.copytree(run, tmp_path / "broken")
    return tmp_path / "broken"


def test_a_damaged_run_is_named(broken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    args = ("--run", broken, "--out", tmp_path / "out")
    split = (broken / "split.json").read_text()
    (broken / "split.json").write_text(split[:50])
    assert f"{broken}/split.json: missing or damaged" in refused(capsys, *args)
    (broken / "split.json").write_text(split)
    (broken / "metrics.jsonl").write_text("{}\nnot JSON\n")
    assert f"{broken}/metrics.jsonl: damaged" in refused(capsys, *args)
    shutil.rmtree(broken / "checkpoints")
    assert str(broken) in refused(capsys, *args)
    (broken / "config.yaml").unlink()
    assert f"{broken}: not a run (no config.yaml)" in refused(capsys, *args)
    assert not (tmp_path / "out").exists()


def test_samples_that_are_not_there_are_named(
    broken: Path, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    shutil.copytree(place / "data", tmp_path / "data")
    name = json.loads((broken / "split.json").read_text())["validation"][0]
    (tmp_path / f"data/train/{name}.jpg").unlink()
    (tmp_path / f"data/train_masks/{name}_mask.gif").unlink()
    args = ("--run", broken, "--out", tmp_path / "out", "--data-dir", tmp_path / "data")
    message = refused(capsys, *args, "--prepared-dir", tmp_path / "prepared")
    assert "1 of the 6 samples" in message
    assert message.endswith(f"are not there: {name}")
    missing = ("--data-dir", tmp_path / "nowhere")
    assert "nowhere, which does not exist" in refused(capsys, *args[:4], *missing)


def test_data_that_has_changed_is_told(
    run: Path, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    shutil.copytree(place / "data", tmp_path / "data")
    path = next((tmp_path / "data/train").iterdir())
    Image.new("RGB", Image.open(path).size).save(path)
    places = ("--data-dir", tmp_path / "data", "--prepared-dir", tmp_path / "prepared")
    assert command("--run", run, *places, "--out", tmp_path / "out") == 0
    assert "The data is not what the run was trained on" in capsys.readouterr().out
    assert results(tmp_path / "out")["data"]["changed_since_training"]


def test_networks_that_cannot_be_compared_are_refused(
    run: Path, config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    write_run(tmp_path / "other", moved(config, split_seed=5))
    args = ("--run", run, "--run", tmp_path / "other", "--out", tmp_path / "out")
    assert "its val samples are others than those of" in refused(capsys, *args)
    three = write_trained(tmp_path, 3)
    args = ("--run", run, "--weights", three, "--out", tmp_path / "out")
    assert "its network has 3 classes, and carvana has 2" in refused(capsys, *args)
    other = dataclasses.replace(load_trained(run), classes=("car", "background"))
    save_weights(other, tmp_path / "turned.safetensors")
    args = ("--run", run, "--weights", tmp_path / "turned.safetensors", "--out", tmp_path / "out")
    message = "its network's class 0 is car, and that of carvana is background; classes have to be"
    assert message in refused(capsys, *args)


def test_names_that_a_conversion_assumed_are_no_obstacle(run: Path, tmp_path: Path):
    trained = load_trained(run)
    facts = {**trained.facts, "assumed": ["classes"]}
    renamed = dataclasses.replace(trained, classes=("background", "foreground"), facts=facts)
    save_weights(renamed, tmp_path / "model.safetensors")
    args = ("--run", run, "--weights", tmp_path / "model.safetensors", "--out", tmp_path / "out")
    assert command(*args) == 0


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--out", "OUT"), "--run RUN or --weights FILE"),
        (("--run", "RUN"), "--out DIR"),
        (
            ("--run", "RUN", "--out", "OUT", "--split", "test"),
            "no such samples; it has train",
        ),
        (("--run", "nowhere", "--out", "OUT"), "--run: nowhere is not a folder"),
        (("--weights", "no.safetensors", "--out", "OUT"), "--dataset NAME"),
        (("--weights", "no.pt", "--dataset", "carvana", "--out", "OUT"), "no.pt: there is no such"),
        (("--run", "RUN", "--dataset", "carvana", "--out", "OUT"), "leave them out"),
        (("--run", "RUN", "--out", "OUT", "--bootstrap", "-1"), "--bootstrap: -1 is less than 0"),
        (("--run", "RUN", "--out", "OUT", "--batch-size", "0"), "--batch-size: 0 is less than 1"),
        (("--run", "RUN", "--out", "OUT", "--tile", "1x8"), "tile: 1×8 is too small"),
        (("--run", "RUN", "--out", "OUT", "--min-area", "4"), "--min-area, --white"),
        (("--run", "RUN", "--out", "RUN"), "holds something else than a report"),
        (("--run", "RUN", "--out", "RUN/config.yaml"), "config.yaml is a file"),
    ],
)
def test_unusable_arguments_are_refused_in_a_line(
    args: Sequence[str],
    message: str,
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    given = [a.replace("RUN", str(run)).replace("OUT", str(tmp_path / "out")) for a in args]
    assert message in refused(capsys, *given)
    assert not (tmp_path / "out").exists()


def test_a_file_that_went_bad_since_it_was_prepared_is_named(
    run: Path, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
):
    def spoilt(content: bytes) -> Any:
        return opened(content[: len(content) // 2])

    monkeypatch.setattr("unet_jax.evaluation.samples.opened", spoilt)
    message = refused(capsys, "--run", run, "--out", tmp_path / "out")
    assert re.search(r"error: train_masks/._0._mask.gif: cannot be decoded", message)


def test_debug_shows_where(run: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="lists no such samples"):
        command("--run", run, "--out", tmp_path / "out", "--split", "test", "--debug")


def test_the_script_itself(tmp_path: Path):
    line = [sys.executable, str(ROOT / "scripts/evaluate.py"), "--run", str(tmp_path)]
    line += ["--out", str(tmp_path / "out")]
    done = subprocess.run(line, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2
    assert done.stderr == f"error: {tmp_path}: not a run (no config.yaml)\n"

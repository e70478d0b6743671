"""Whole runs through the scripts: what they leave, how they stop, and that they go on exactly."""

import hashlib
import json
import os
import re
import resource
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.experimental.compilation_cache import compilation_cache
from PIL import Image
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

import parity.twin
import unet_jax
import unet_jax.learner
import unet_jax.train
from unet_jax.config import Config, dump, load
from unet_jax.datasets import merged, open_dataset
from unet_jax.models import build_model
from unet_jax.pipeline import Batch, Pipeline
from unet_jax.train_options import parse
from unet_jax.trainer import Trainer

ROOT = Path(__file__).parents[1]
FRAMEWORKS = ("jax", "torch")
EPOCHS, STEPS = 3, 4  # Of the reference run; 9 training images in steps of 2.
ARGUMENTS = (
    *("--size", "16", "24", "--scenes", "12", "--val-fraction", "0.25"),
    # Batch norm, so that running statistics too must survive a stop.
    *("--architecture", "plain", "--channels", "4", "--norm", "batch"),
    *("--epochs", str(EPOCHS), "--batch-size", "2", "--learning-rate", "0.01"),
)


@dataclass
class Record:
    """What one command did.

    Attributes:
      status: Its exit status; None if an exception ended it.
      learner: Its learner, as the end of the command left it.
      trained: A digest of each training batch.
      evaluated: Each evaluated batch, and the classes predicted for it.
    """

    workdir: Path
    status: int | None = None
    learner: Any = None
    trained: list[str] = field(default_factory=list)
    evaluated: list[tuple[Batch, np.ndarray]] = field(default_factory=list)

    def metrics(self) -> list[dict[str, Any]]:
        """The epochs' records, but for the seconds they took."""
        lines = (self.workdir / "metrics.jsonl").read_text().splitlines()
        records = [json.loads(line) for line in lines]
        return [{k: v for k, v in record.items() if k != "seconds"} for record in records]


Launch = Callable[..., Record]


def digest(batch: Batch) -> str:
    return hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in batch)).hexdigest()


def spying(base: type, record: Record, on_step: Callable[[int], None], on_save: Callable) -> type:
    """A learner that notes what it is given, and calls back before steps and saves, from 1."""

    class Spy(base):
        def __init__(self, *args: Any, **facts: Any) -> None:
            super().__init__(*args, **facts)
            record.learner = self
            self.saves = 0

        def train_step(self, batch: Batch) -> Any:
            record.trained.append(digest(batch))
            on_step(len(record.trained))
            return super().train_step(batch)

        def eval_step(self, batch: Batch) -> Any:
            result = super().eval_step(batch)
            record.evaluated.append((batch, np.asarray(result[1])))
            return result

        def save(self, *args: Any) -> None:
            self.saves += 1
            on_save(self.saves)
            super().save(*args)

    return Spy


def ctrl_c_at(step: int, times: int = 1) -> Callable[[int], None]:
    def on_step(n: int) -> None:
        if n == step:
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)

    return on_step


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Lets all commands share one compilation, and PyTorch use one thread of a busy machine.

    Yields:
      Environment variables that do the same for a command in a process of its own.
    """
    settings = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled")),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_disable_most_optimizations": True,
    }
    before = {name: jax.config.values[name] for name in settings}
    threads = torch.get_num_threads()
    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    torch.set_num_threads(1)
    yield {name.upper(): str(value) for name, value in settings.items()} | {"OMP_NUM_THREADS": "1"}
    torch.set_num_threads(threads)
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("prepared")


@pytest.fixture(scope="module")
def launch(compiled: dict[str, str], prepared: Path) -> Launch:
    """Runs a script's `main` here, with a spy for its learner."""

    def launch(
        framework: str,
        workdir: Path | None,
        *arguments: str,
        on_step: Callable[[int], None] = lambda step: None,
        on_save: Callable[[int], None] = lambda save: None,
        record: Record | None = None,
    ) -> Record:
        record = record or Record(workdir or Path())
        script = ROOT / "scripts" / f"train_{framework}.py"
        module, name = {
            "jax": (unet_jax.learner, "JaxLearner"),
            "torch": (parity.twin, "TorchLearner"),
        }[framework]
        command = [str(script), "--prepared-dir", str(prepared)]
        command += [] if workdir is None else ["--workdir", str(workdir)]
        command += ["--parallel", "jit"]  # The tests have eight devices.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, name, spying(getattr(module, name), record, on_step, on_save))
            patch.setattr(sys, "argv", [*command, *arguments])
            record.status = runpy.run_path(str(script))["main"]()
        return record

    return launch


@pytest.fixture(scope="module")
def reference(launch: Launch, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Record]:
    """The uninterrupted run of a framework. Read-only: tests that change files take a copy."""
    records: dict[str, Record] = {}

    def reference(framework: str) -> Record:
        if framework not in records:
            workdir = tmp_path_factory.mktemp(framework) / "run"
            records[framework] = launch(framework, workdir, *ARGUMENTS)
        return records[framework]

    return reference


def state(learner: Any) -> dict[str, tuple[str, bytes]]:
    """Every number that a later step depends on, by its place."""
    if learner.framework == "jax":
        tree = learner.state
    else:
        parts = {name: part.state_dict() for name, part in learner.parts().items()}
        tree = [learner.step, learner.skipped, learner.skipped_in_row, parts]
    leaves = ((jax.tree_util.keystr(p), np.asarray(v)) for p, v in jax.tree.leaves_with_path(tree))
    return {place: (str(leaf.dtype), leaf.tobytes()) for place, leaf in leaves}


def events(workdir: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of each scalar in the TensorBoard events, and (step, 0) of each picture."""
    found: dict[str, list[tuple[int, float]]] = {}
    for path in sorted((workdir / "events").iterdir()):
        for event in LegacyEventFileLoader(str(path)).Load():
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(params=FRAMEWORKS)
def framework(request: pytest.FixtureRequest) -> str:
    return request.param


def test_a_run_leaves_what_it_promises(framework: str, reference: Callable[[str], Record]):
    record = reference(framework)
    assert record.status == 0
    top = {path.name for path in record.workdir.iterdir()}
    files = {"config.yaml", "split.json", "metrics.jsonl", "curves.png", "confusion.png"}
    files |= {"classes.json", "launch.json", "summary.json"}
    assert top == files | {"events", "checkpoints", "predictions"}
    metrics = record.metrics()
    assert [m["epoch"] for m in metrics] == list(range(1, EPOCHS + 1))
    assert [m["step"] for m in metrics] == [STEPS * n for n in range(1, EPOCHS + 1)]


def test_pictures_open(framework: str, reference: Callable[[str], Record]):
    workdir = reference(framework).workdir
    names = sorted(path.name for path in (workdir / "predictions").iterdir())
    assert names == [f"epoch_{n:03}.png" for n in range(1, EPOCHS + 1)]
    for path in (workdir / "curves.png", *(workdir / "predictions" / name for name in names)):
        with Image.open(path) as picture:
            picture.load()
            assert picture.format == "PNG"
            assert min(picture.size) > 200


def test_config_loads_back(
    framework: str, reference: Callable[[str], Record], prepared: Path, tmp_path: Path
):
    workdir = reference(framework).workdir
    arguments = ["--prepared-dir", str(prepared), *ARGUMENTS]
    config = load(workdir / "config.yaml")
    assert config == parse(arguments, description="")[1]
    assert config.model.channels == (4,)
    assert config.train.epochs == EPOCHS


def test_summary(framework: str, reference: Callable[[str], Record]):
    record = reference(framework)
    summary = json.loads((record.workdir / "summary.json").read_text())
    last = json.loads((record.workdir / "metrics.jsonl").read_text().splitlines()[-1])
    assert summary["best"] == max(reversed(record.metrics()), key=lambda m: m["dice"])
    assert summary["epochs"] == EPOCHS
    assert summary["framework"] == framework
    assert summary["training_seconds"] == last["seconds"] > 0
    assert summary["wall_seconds"] > summary["training_seconds"]  # Start-up and saving, too.
    assert summary["images_per_second"] > 0
    assert 0 < summary["data_wait"] < 1
    assert summary["seconds_to_first_step"] > 0
    assert summary["device"].split(":")[0] in ("cpu", "gpu", "tpu", "cuda")
    versions = summary["versions"]
    assert versions["python"] == ".".join(map(str, sys.version_info[:3]))
    for name in ("unet-jax", "jax", "flax", "optax", "orbax-checkpoint", "torch", "numpy"):
        assert versions[name] == metadata.version(name)
    then = time.mktime(time.strptime(summary["finished"], "%Y-%m-%dT%H:%M:%S%z"))
    assert abs(time.mktime(time.localtime()) - then) < 24 * 3600


def test_both_frameworks_report_the_same_number_of_parameters(
    reference: Callable[[str], Record],
):
    records = [reference(name) for name in FRAMEWORKS]
    summaries = [json.loads((r.workdir / "summary.json").read_text()) for r in records]
    [params] = {
        sum(np.size(leaf) for leaf in jax.tree.leaves(r.learner.state.params))
        for r in records
        if r.learner.framework == "jax"
    }
    assert [summary["parameters"] for summary in summaries] == [params, params]


def test_events_hold_every_step_and_epoch(framework: str, reference: Callable[[str], Record]):
    record = reference(framework)
    found = events(record.workdir)
    steps = range(1, STEPS * EPOCHS + 1)
    for name in ("train/loss", "train/grad_norm"):
        assert [step for step, _ in found[name]] == list(steps)
    metrics = record.metrics()
    losses = np.array([loss for _, loss in found["train/loss"]]).reshape(EPOCHS, STEPS)
    # Steps are of one size, so the epoch's loss is their mean; events are in single precision.
    expected = [m["train_loss"] for m in metrics]
    np.testing.assert_allclose(losses.mean(axis=1), expected, rtol=1e-6)
    for name in ("val_loss", "dice", "iou", "accuracy"):
        assert [step for step, _ in found[f"validation/{name}"]] == [m["step"] for m in metrics]
        values = [value for _, value in found[f"validation/{name}"]]
        np.testing.assert_allclose(values, [m[name] for m in metrics], rtol=1e-6)
    assert [step for step, _ in found["predictions"]] == [m["step"] for m in metrics]
    weights = [name for name in found if name.startswith("weights/")]
    # Three times two convolutions with a norm each (6), an upsampling and the last layer (2 each).
    assert len(weights) == 3 * 6 + 2 * 2
    for name in weights:
        assert [step for step, _ in found[name]] == [m["step"] for m in metrics]


def test_split_names_what_was_validated(framework: str, reference: Callable[[str], Record]):
    record = reference(framework)
    split = json.loads((record.workdir / "split.json").read_text())
    builder = open_dataset(load(record.workdir / "config.yaml").data)
    masks = [builder.records()[builder.facts.names.index(n)]["mask"] for n in split["validation"]]
    assert (len(split["train"]), len(split["validation"])) == (9, 3)
    assert sorted(split["train"] + split["validation"]) == sorted(builder.facts.names)
    served = [m for batch, _ in record.evaluated[:2] for m in batch.mask[batch.valid]]
    np.testing.assert_array_equal(served, masks)


def test_validation_scores_are_those_of_the_predictions(
    framework: str, reference: Callable[[str], Record]
):
    """Recomputed from sets of pixels, over the samples that `split.json` names."""
    record = reference(framework)
    config = load(record.workdir / "config.yaml").data
    builder = open_dataset(config)
    names = json.loads((record.workdir / "split.json").read_text())["validation"]
    truth = np.stack([builder.records()[builder.facts.names.index(n)]["mask"] for n in names])
    per_epoch = 4  # Two batches of the validation set, and two of pictures.
    assert len(record.evaluated) == per_epoch * EPOCHS
    for epoch, metrics in enumerate(record.metrics()):
        batches = record.evaluated[per_epoch * epoch :][:2]
        assert [batch.valid.tolist() for batch, _ in batches] == [[True, True], [True, False]]
        predicted = np.concatenate([classes[batch.valid] for batch, classes in batches])
        assert predicted.shape == truth.shape
        dice, iou = {}, {}
        for label, name in enumerate(merged(builder.facts.classes, config.binary)):
            said, true = predicted == label, truth == label
            both, either = int((said & true).sum()), int((said | true).sum())
            iou[name] = both / either if either else None
            dice[name] = 2 * both / (either + both) if either else None
        # Quotients of whole numbers: the last bit or two may differ.
        assert metrics["dice_per_class"] == pytest.approx(dice, rel=1e-14)
        assert metrics["iou_per_class"] == pytest.approx(iou, rel=1e-14)
        for whole, parts in (("dice", dice), ("iou", iou)):
            known = [value for value in parts.values() if value is not None]
            assert metrics[whole] == pytest.approx(np.mean(known), rel=1e-14)
        assert metrics["accuracy"] == pytest.approx(np.mean(predicted == truth), rel=1e-14)


def logits(learner: Any, config: Config, images: np.ndarray) -> np.ndarray:
    """[N, H, W, K] of the network as it is, from images normalised here."""
    mean, std = (np.asarray(v, np.float32) for v in (config.data.mean, config.data.std))
    inputs = (images.astype(np.float32) / 255 - mean) / std
    if learner.framework == "jax":
        model = build_model(config.model, 6)
        variables = {"params": learner.state.params, "batch_stats": learner.state.batch_stats}
        return np.asarray(model.apply(variables, jnp.asarray(inputs)))
    learner.model.eval()
    with torch.no_grad():
        outputs = learner.model(torch.from_numpy(inputs).permute(0, 3, 1, 2))
    return outputs.permute(0, 2, 3, 1).numpy()


def test_validation_loss_is_the_mean_over_the_validation_pixels(
    framework: str, reference: Callable[[str], Record]
):
    record = reference(framework)
    batches = [batch for batch, _ in record.evaluated[-3:-1]]
    images = np.concatenate([batch.image[batch.valid] for batch in batches])
    masks = np.concatenate([batch.mask[batch.valid] for batch in batches])
    config = load(record.workdir / "config.yaml")
    scores = logits(record.learner, config, images).astype(np.float64)
    likelihood = scores - np.log(np.exp(scores).sum(axis=-1, keepdims=True))
    loss = -np.take_along_axis(likelihood, masks[..., None].astype(int), axis=-1).mean()
    # The run sums 1,152 pixels in single precision, and fuses operations differently.
    assert record.metrics()[-1]["val_loss"] == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize("place", ["none", "device"])
def test_where_the_data_lies_changes_no_bit(
    place: str, framework: str, launch: Launch, reference: Callable[[str], Record], tmp_path: Path
):
    # The reference has it in host memory: `auto` on a CPU.
    record = launch(framework, tmp_path / "run", *ARGUMENTS, "--cache", place)
    assert state(record.learner) == state(reference(framework).learner)
    assert record.metrics() == reference(framework).metrics()


def test_both_learners_get_the_same_batches(reference: Callable[[str], Record]):
    first, second = (reference(framework) for framework in FRAMEWORKS)
    assert len(first.trained) == STEPS * EPOCHS
    assert first.trained == second.trained
    epochs = [tuple(first.trained[n * STEPS : (n + 1) * STEPS]) for n in range(EPOCHS)]
    assert all(len(set(epoch)) == STEPS for epoch in epochs)
    assert len(set(epochs)) == EPOCHS
    evaluated = [[digest(batch) for batch, _ in r.evaluated] for r in (first, second)]
    assert evaluated[0] == evaluated[1]


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(1, id="first step"),
        pytest.param(6, id="mid-epoch"),
        pytest.param(2 * STEPS, id="last step of an epoch"),
        pytest.param(EPOCHS * STEPS, id="last step of all"),
    ],
)
def test_an_interrupted_run_goes_on_exactly(
    framework: str,
    step: int,
    launch: Launch,
    reference: Callable[[str], Record],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    """Ctrl-C comes while a step is under way; that step is finished, saved, and not repeated."""
    whole = reference(framework)
    handler = signal.getsignal(signal.SIGINT)
    workdir = tmp_path / "run"
    stopped = launch(framework, workdir, *ARGUMENTS, on_step=ctrl_c_at(step))
    assert signal.getsignal(signal.SIGINT) is handler
    assert stopped.status == 130
    assert stopped.learner.step == len(stopped.trained) == step
    assert f"--resume --workdir {workdir}" in capsys.readouterr().out
    assert not (workdir / "summary.json").exists()
    finished = (step - 1) // STEPS
    if finished:
        assert stopped.metrics() == whole.metrics()[:finished]

    resumed = launch(framework, workdir, "--resume")
    assert resumed.status == 0
    assert stopped.trained + resumed.trained == whole.trained
    assert state(resumed.learner) == state(whole.learner)
    assert resumed.metrics() == whole.metrics()
    assert events(workdir)["train/loss"] == events(whole.workdir)["train/loss"]
    summary, expected = (
        json.loads((r.workdir / "summary.json").read_text()) for r in (resumed, whole)
    )
    assert summary["best"] == expected["best"]
    # The first step compiles, and is not timed; without a second one there is no speed to tell.
    assert (summary["images_per_second"] is None) == (len(resumed.trained) < 2)


def test_resuming_a_finished_run_changes_no_result(
    framework: str, launch: Launch, reference: Callable[[str], Record], tmp_path: Path
):
    """Which also shows that the last checkpoint holds the whole state."""
    whole = reference(framework)
    shutil.copytree(whole.workdir, tmp_path / "run")
    handler = signal.getsignal(signal.SIGINT)
    resumed = launch(framework, tmp_path / "run", "--resume")
    assert signal.getsignal(signal.SIGINT) is handler
    assert resumed.status == 0
    assert resumed.trained == []
    assert state(resumed.learner) == state(whole.learner)
    assert resumed.metrics() == whole.metrics()


def test_the_state_compared_above_is_all_of_it(reference: Callable[[str], Record]):
    """Parameters, two moments of each, counters, and running statistics of four batch norms."""
    found = state(reference("jax").learner)
    parameters = sum(".params" in place for place in found)
    assert parameters > 10
    assert sum(".batch_stats" in place for place in found) >= 2 * 4
    # Moments of the JAX optimiser are vectors of all parameters.
    size, mu, nu = (
        sum(len(value) for place, (_, value) in found.items() if part in place)
        for part in (".params", ".mu", ".nu")
    )
    assert size == mu == nu
    assert found[".step"][1] == np.int32(STEPS * EPOCHS).tobytes()
    found = state(reference("torch").learner)
    assert sum("exp_avg'" in place for place in found) == parameters
    assert sum("exp_avg_sq'" in place for place in found) == parameters
    assert sum("running_var" in place for place in found) >= 4


@pytest.mark.parametrize("save", [1, 2])
def test_a_run_that_cannot_be_saved_stops_with_one_line_and_goes_on_exactly(
    save: int,
    launch: Launch,
    reference: Callable[[str], Record],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    """Its records are an epoch ahead of its checkpoints, or there is no checkpoint yet."""

    def die(n: int) -> None:
        if n == save:
            raise OSError("No space left on device")

    whole = reference("torch")
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        launch("torch", tmp_path / "run", *ARGUMENTS, on_save=die)
    assert stop.value.code == 2
    assert capsys.readouterr().err == (
        "error: No space left on device. When that is put right, go on with: "
        f"--resume --workdir {tmp_path / 'run'}\n"
    )
    resumed = launch("torch", tmp_path / "run", "--resume")
    assert resumed.metrics() == whole.metrics()
    assert state(resumed.learner) == state(whole.learner)


def test_a_second_ctrl_c_stops_at_once(
    launch: Launch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    record, handler = Record(tmp_path / "a run"), signal.default_int_handler
    on_step = ctrl_c_at(3, times=2)
    before = signal.signal(signal.SIGINT, handler)  # A job in the background ignores Ctrl-C.
    try:
        launch("torch", record.workdir, *ARGUMENTS, on_step=on_step, record=record)
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert record.status == 130
    assert record.learner.step == 2
    assert not (record.workdir / "checkpoints").exists()
    assert capsys.readouterr().out.splitlines()[-1] == (
        "Stopped; not saved after the last checkpoint. Go on with: "
        f"--resume --workdir '{record.workdir}'"
    )


@pytest.mark.parametrize("name", ["split.json", "metrics.jsonl", "checkpoints"])
def test_a_folder_with_a_part_of_a_run_is_refused_and_left_alone(
    name: str, launch: Launch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "run" / name
    if name == "checkpoints":
        (path / "8").mkdir(parents=True)
    else:
        path.parent.mkdir()
        path.write_text("somebody's own")
    before = snapshot(tmp_path / "run")
    with pytest.raises(SystemExit) as stop:
        launch("torch", tmp_path / "run", *ARGUMENTS)
    assert stop.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"error: --workdir: {tmp_path / 'run'} holds {name}, which a run would write over; choose "
        "another folder"
    )
    assert snapshot(tmp_path / "run") == before
    assert [path.name for path in (tmp_path / "run").iterdir()] == [name]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("metrics.jsonl", '{"epoch": 1}\n{"epoch\n', "line 2 is damaged: "),
        ("split.json", "{", "damaged: "),
        ("launch.json", '{"remat": "perhaps"}', "damaged: remat: "),
    ],
)
def test_a_damaged_file_of_a_run_is_named(
    name: str,
    text: str,
    said: str,
    launch: Launch,
    reference: Callable[[str], Record],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    shutil.copytree(reference("torch").workdir, tmp_path / "run")
    (tmp_path / "run" / name).write_text(text)
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        launch("torch", tmp_path / "run", "--resume")
    assert stop.value.code == 2
    assert f"error: {tmp_path / 'run' / name}: {said}" in capsys.readouterr().err


def test_a_run_is_started_or_resumed_by_one_command_line(
    launch: Launch,
    reference: Callable[[str], Record],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    """As a scheduler runs it again."""
    whole, workdir = reference("torch"), tmp_path / "run"
    command = (*ARGUMENTS, "--resume-or-start")
    stopped = launch("torch", workdir, *command, on_step=ctrl_c_at(6))
    resumed = launch("torch", workdir, *command)
    assert stopped.trained + resumed.trained == whole.trained
    assert resumed.metrics() == whole.metrics()
    again = launch("torch", workdir, *command)
    assert (again.status, again.trained) == (0, [])
    assert "nothing is left to do" in capsys.readouterr().out


def test_runs_that_start_in_one_second_have_folders_of_their_own(
    launch: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("unet_jax.train.time.strftime", lambda *_: "now")
    for _ in range(2):
        launch("torch", None, *ARGUMENTS, "--epochs", "1")
    assert {path.name for path in (tmp_path / "runs").iterdir() if path.is_dir()} == {
        "shapes-now",
        "shapes-now-2",
    }


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def terminate(*_: object) -> None:
    signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize("notes", [False, True], ids=["new folder", "folder with a file"])
def test_ctrl_c_before_the_first_step_leaves_no_run(
    notes: bool, framework: str, launch: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(unet_jax.train, "settle", interrupt)
    if notes:
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "notes.txt").touch()
    record = launch(framework, tmp_path / "run", *ARGUMENTS)
    assert record.status == 130
    assert record.learner.step == 0
    assert [path.name for path in tmp_path.rglob("*")] == ["run", "notes.txt"] * notes


def test_sigterm_before_the_first_step_leaves_no_run(
    launch: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(unet_jax.train, "settle", terminate)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stop:
        launch("torch", tmp_path / "run", *ARGUMENTS)
    assert stop.value.code == 0
    assert signal.getsignal(signal.SIGTERM) is before
    assert not (tmp_path / "run").exists()


def test_two_ctrl_c_in_the_first_step_leave_no_run(
    launch: Launch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert launch("torch", tmp_path / "run", *ARGUMENTS, on_step=interrupt).status == 130
    said = capsys.readouterr().out.splitlines()[-1]
    assert said == "Stopped; not saved, as no step was finished."
    assert not (tmp_path / "run").exists()


def test_ctrl_c_before_the_first_step_leaves_a_resumed_run_as_it_was(
    framework: str,
    launch: Launch,
    reference: Callable[[str], Record],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    shutil.copytree(reference(framework).workdir, tmp_path / "run")
    before = {path: content for path, (_, content) in snapshot(tmp_path / "run").items()}
    monkeypatch.setattr(Trainer, "resume", interrupt)
    assert launch(framework, tmp_path / "run", "--resume").status == 130
    assert {path: content for path, (_, content) in snapshot(tmp_path / "run").items()} == before


@pytest.mark.parametrize(
    ("framework", "module", "name"),
    [("jax", unet_jax.learner, "build_recipe"), ("torch", parity.twin, "build_twin")],
)
def test_a_mistake_of_ours_in_the_learner_is_not_taken_for_one_in_the_settings(
    framework: str,
    module: Any,
    name: str,
    launch: Launch,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    def fail(*_: object, **__: object) -> None:
        raise ValueError("shapes do not match")

    monkeypatch.setattr(module, name, fail)
    with pytest.raises(ValueError, match="shapes do not match"):
        launch(framework, tmp_path / "run", *ARGUMENTS)
    assert not (tmp_path / "run").exists()


def test_a_mistake_of_ours_in_preparing_is_not_taken_for_one_in_the_settings(
    launch: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: object) -> None:
        raise ValueError("shapes do not match")

    monkeypatch.setattr(unet_jax.train, "open_dataset", fail)
    with pytest.raises(ValueError, match="shapes do not match"):
        launch("torch", tmp_path / "run", *ARGUMENTS)


def test_what_steps_give_is_read_a_step_late_in_one_piece(
    launch: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    base: Any = parity.twin.TorchLearner
    order: list[str] = []

    class Noting(base):
        def train_step(self, batch: Batch) -> Any:
            order.append("train")
            return super().train_step(batch)

        def eval_step(self, batch: Batch) -> Any:
            order.append("evaluate")
            return super().eval_step(batch)

        def read(self, values: Any) -> Any:
            order.append("read")
            return super().read(values)

    monkeypatch.setattr(parity.twin, "TorchLearner", Noting)
    launch("torch", tmp_path / "run", *ARGUMENTS, "--epochs", "1")
    first = ["train", "read"]  # It is waited for, to be timed.
    steps = ["train", "read"] * (STEPS - 1) + ["read"]
    batches = ["evaluate", "evaluate", "read", "read"]
    pictures = ["evaluate", "read"] * 2
    assert order == [*first, *steps, *batches, *pictures]


def test_a_full_disk_under_the_events_ends_a_run_with_one_line(
    launch: Launch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(step: int) -> None:
        if step == 3:
            [path] = (tmp_path / "run" / "events").iterdir()
            resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 9, before[1]))

    try:
        with pytest.raises(SystemExit) as stop:
            launch("torch", tmp_path / "run", *ARGUMENTS, on_step=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert stop.value.code == 2
    assert capsys.readouterr().err == (
        "error: [Errno 27] File too large. When that is put right, go on with: "
        f"--resume --workdir {tmp_path / 'run'}\n"
    )


@pytest.mark.parametrize(
    ("framework", "number", "status"),
    [("jax", signal.SIGINT, 130), ("jax", signal.SIGTERM, 0), ("torch", signal.SIGTERM, 0)],
)
def test_a_signal_saves_and_ends_the_process_in_time(
    framework: str,
    number: int,
    status: int,
    compiled: dict[str, str],
    prepared: Path,
    tmp_path: Path,
):
    arguments = (*ARGUMENTS, "--epochs", "9999")
    process = subprocess.Popen(
        [
            *(sys.executable, ROOT / "scripts" / f"train_{framework}.py"),
            *("--workdir", tmp_path / "run", "--prepared-dir", prepared, *arguments),
        ],
        env=os.environ | compiled,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        patience = time.monotonic() + 120  # Seconds; a busy machine takes 10 to start and compile.
        while not (tmp_path / "run" / "metrics.jsonl").exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < patience
            time.sleep(0.05)
        sent = time.monotonic()
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == status, err
    assert time.monotonic() - sent < 10  # Seconds; schedulers wait for 30.
    [step] = re.findall(r"^Saved after step (\d+)\. Go on with: --resume", out, re.MULTILINE)
    assert step in names(tmp_path / "run")
    assert "Traceback" not in err


def test_an_existing_run_is_refused_and_left_alone(
    framework: str,
    launch: Launch,
    reference: Callable[[str], Record],
    capsys: pytest.CaptureFixture[str],
):
    workdir = reference(framework).workdir
    before = snapshot(workdir)
    assert len(before) > 8
    capsys.readouterr()  # The reference run's, if this test is the first to ask for it.
    with pytest.raises(SystemExit) as stop:
        launch(framework, workdir, *ARGUMENTS, "--epochs", "1")
    assert stop.value.code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert str(workdir) in error
    assert "--resume" in error
    assert snapshot(workdir) == before


@pytest.mark.parametrize(
    "arguments", [(), ("--preset", "shapes", *ARGUMENTS)], ids=["alone", "with a preset"]
)
def test_resume_needs_a_run(
    arguments: Sequence[str],
    framework: str,
    launch: Launch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    with pytest.raises(SystemExit) as stop:
        launch(framework, tmp_path / "nothing", "--resume", *arguments)
    assert stop.value.code == 2
    assert f"{tmp_path / 'nothing'} holds no run" in capsys.readouterr().err
    assert not (tmp_path / "nothing").exists()


def test_unusable_data_is_an_error_message_and_no_run(
    framework: str, launch: Launch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    place = tmp_path / "elsewhere"
    with pytest.raises(SystemExit) as stop:
        launch(framework, tmp_path / "run", "--dataset", "carvana", "--data-dir", str(place))
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "error: no Carvana data: looked for train, train_masks; or" in error
    assert str(place) in error
    assert not (tmp_path / "run").exists()


def test_a_dry_run_needs_no_data_to_know_150_classes(
    framework: str, launch: Launch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    arguments = ("--dataset", "ade20k", "--channels", "8", "--groups", "4", "--dry-run")
    arguments += ("--size", "16", "24", "--stored-size", "16", "24", "--batch-size", "2")
    assert launch(framework, tmp_path / "run", *arguments).status == 0
    last = {"jax": "2 × 16 × 24 × 150 ", "torch": "2 × 150 × 16 × 24 "}[framework]
    assert last in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("level", [0, 2])
def test_verbosity_decides_what_is_said(
    level: int, launch: Launch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    arguments = (*ARGUMENTS, "--epochs", "1", "--verbose", str(level))
    assert launch("torch", tmp_path / "run", *arguments).status == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("Best: epoch 1, ")
    if level == 0:
        assert len(lines) == 1
    said = ("network: architecture plain", "optimiser: optimizer adamw", "epoch   1/1")
    for start in (*said, "9 training and 3 validation images"):
        assert any(line.startswith(start) for line in lines) == (level > 0), start
    assert any("conv_out" in line for line in lines) == (level > 0)
    assert not any("conv_out.weight" in line for line in lines)


@pytest.mark.filterwarnings("error:The given NumPy array is not writable")
def test_a_tiny_network_learns_four_images(framework: str, launch: Launch, tmp_path: Path):
    arguments = ("--overfit", "4", "--batch-size", "1", "--epochs", "6", "--binary")
    arguments += ("--architecture", "residual", "--channels", "8", "--norm", "group")
    arguments += ("--groups", "4", "--warmup", "0")
    record = launch(framework, tmp_path / "run", *ARGUMENTS, *arguments)
    assert len(record.trained) == 6 * 9
    first, *_, last = record.metrics()
    # Measured 0.44 to 0.60 over two seeds of either framework.
    assert last["train_loss"] < 0.7 * first["train_loss"]
    share = np.mean(np.concatenate([batch.mask for batch, _ in record.evaluated[:4]]))
    prior = -share * np.log(share) - (1 - share) * np.log(1 - share)
    # All that can be had without a look at the images is `prior`. Measured 0.40 to 0.57 of it.
    assert last["val_loss"] < 0.75 * prior
    assert last["dice"] > first["dice"]
    assert last["dice_per_class"].keys() == {"background", "foreground"}
    assert last["dice"] == last["dice_per_class"]["foreground"]


def test_a_run_keeps_its_best_and_latest_checkpoints(
    framework: str, reference: Callable[[str], Record]
):
    record = reference(framework)
    best = max(reversed(record.metrics()), key=lambda m: m["dice"])["step"]
    paths = (record.workdir / "checkpoints").iterdir()
    kept = {int(path.name.removesuffix(".pt")) for path in paths}
    assert kept == {best, (EPOCHS - 1) * STEPS, EPOCHS * STEPS}


def names(workdir: Path) -> set[str]:
    """Of the checkpoints that a run has."""
    return {path.name.removesuffix(".pt") for path in (workdir / "checkpoints").iterdir()}


def test_what_is_saved_and_called_best_follows_the_settings(
    framework: str,
    launch: Launch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    """Every third step, the best epochs and the last are saved; the last and the best are kept."""
    losses, validate = iter((3.0, 1.0, 2.0)), Trainer._validate
    monkeypatch.setattr(
        Trainer, "_validate", lambda self: {**(validate(self) or {}), "val_loss": next(losses)}
    )
    record, saved = Record(tmp_path / "run"), []
    launch(
        framework,
        record.workdir,
        *(*ARGUMENTS, "--best", "val_loss"),
        *("--every-epochs", "9", "--every-steps", "3", "--keep", "1"),
        on_save=lambda n: saved.append(record.learner.step),
        record=record,
    )
    assert saved == [3, STEPS, 6, 2 * STEPS, 9, 3 * STEPS]
    assert names(record.workdir) == {str(2 * STEPS), str(3 * STEPS)}
    summary = json.loads((record.workdir / "summary.json").read_text())
    assert summary["best"] == record.metrics()[1]
    lines = capsys.readouterr().out.splitlines()
    epochs = [line for line in lines if line.startswith("epoch")]
    assert [line.endswith("best") for line in epochs] == [True, True, False]
    assert any(line.startswith("Best: epoch 2, val loss 1.0000") for line in lines)
    command = (
        f"Predict with it: python scripts/predict.py --run {record.workdir} IMAGE --out FOLDER"
    )
    assert (lines[-1] == command) == (framework == "jax")


def test_a_run_predicts_what_it_validated(reference: Callable[[str], Record]):
    record = reference("jax")
    best = json.loads((record.workdir / "summary.json").read_text())["best"]
    predictor = unet_jax.load(record.workdir)
    assert predictor.trained.facts["step"] == best["step"]
    per_epoch = len(record.evaluated) // EPOCHS
    first = (best["epoch"] - 1) * per_epoch
    for batch, predicted in record.evaluated[first : first + per_epoch]:
        for image, ids, valid in zip(batch.image, predicted, batch.valid, strict=True):
            if valid:
                np.testing.assert_array_equal(predictor.predict(np.asarray(image)).mask, ids)


def test_a_save_after_a_step_that_ends_an_epoch_waits_for_its_validation(
    launch: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """So that it is saved once, and as what it scored."""
    dice, validate = iter((0.9, 0.1, 0.2)), Trainer._validate
    monkeypatch.setattr(
        Trainer, "_validate", lambda self: {**(validate(self) or {}), "dice": next(dice)}
    )
    record, saved = Record(tmp_path / "run"), []
    launch(
        "torch",
        record.workdir,
        *(*ARGUMENTS, "--every-epochs", "9", "--every-steps", str(2 * STEPS)),
        on_save=lambda n: saved.append(record.learner.step),
        record=record,
    )
    assert saved == [STEPS, 2 * STEPS, 3 * STEPS]


def damage(workdir: Path, step: int) -> Path:
    """Cuts the largest file of a checkpoint short."""
    [place] = (workdir / "checkpoints").glob(f"{step}*")
    paths = [place, *place.rglob("*")]
    largest = max((path for path in paths if path.is_file()), key=lambda path: path.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 2)
    return place


def test_a_run_goes_on_exactly_from_the_checkpoint_before_a_damaged_one(
    framework: str,
    launch: Launch,
    reference: Callable[[str], Record],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    whole = reference(framework)
    shutil.copytree(whole.workdir, tmp_path / "run")
    place = damage(tmp_path / "run", EPOCHS * STEPS)
    capsys.readouterr()
    resumed = launch(framework, tmp_path / "run", "--resume")
    said = capsys.readouterr().out
    assert f"{place} is damaged and not used: " in said
    assert f"Going on after step {(EPOCHS - 1) * STEPS}, in epoch {EPOCHS}." in said
    assert len(resumed.trained) == STEPS
    assert state(resumed.learner) == state(whole.learner)
    assert resumed.metrics() == whole.metrics()


def test_a_full_disk_ends_a_run_with_one_line_and_loses_no_checkpoint(
    framework: str, launch: Launch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(save: int) -> None:
        if save == 2:  # No file may become larger than this; a checkpoint is.
            resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))

    workdir = tmp_path / "run"
    try:
        with pytest.raises(SystemExit) as stop:
            launch(
                framework, workdir, *ARGUMENTS, "--channels", "64", "--epochs", "2", on_save=fill
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert stop.value.code == 2
    [line] = [line for line in capfd.readouterr().err.splitlines() if "Preparing" not in line]
    place = workdir / "checkpoints"
    assert line.startswith(f"error: {place}: checkpoint {2 * STEPS} could not be written: ")
    assert "File too large" in line  # For a disk it is "No space left on device".
    assert line.endswith(
        f" MB are free. When that is put right, go on with: --resume --workdir {workdir}"
    )
    assert names(workdir) == {str(STEPS)}
    resumed = launch(framework, workdir, "--resume")
    assert resumed.status == 0
    assert len(resumed.trained) == STEPS


def test_a_run_without_a_whole_checkpoint_is_left_as_it_was(
    launch: Launch,
    reference: Callable[[str], Record],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    shutil.copytree(reference("torch").workdir, tmp_path / "run")
    for name in names(tmp_path / "run"):
        damage(tmp_path / "run", int(name))
    before = {path: content for path, (_, content) in snapshot(tmp_path / "run").items()}
    with pytest.raises(SystemExit) as stop:
        launch("torch", tmp_path / "run", "--resume")
    assert stop.value.code == 2
    assert "all checkpoints are damaged" in capsys.readouterr().err
    assert {path: content for path, (_, content) in snapshot(tmp_path / "run").items()} == before


def test_a_checkpoint_of_another_network_lists_what_differs(
    framework: str,
    launch: Launch,
    reference: Callable[[str], Record],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    shutil.copytree(reference(framework).workdir, tmp_path / "run")
    path = tmp_path / "run" / "config.yaml"
    config = load(path)
    path.write_text(dump(replace(config, model=replace(config.model, channels=(6,)))))
    with pytest.raises(SystemExit) as stop:
        launch(framework, tmp_path / "run", "--resume")
    assert stop.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert any(line.endswith("is of another network or optimiser:") for line in lines)
    entry, before, now = {
        "jax": ("params/conv_out/kernel", [1, 1, 4, 6], [1, 1, 6, 6]),
        "torch": ("model/encoder.0.conv_1.weight", [4, 3, 3, 3], [6, 3, 3, 3]),
    }[framework]
    assert f"  {entry}: float32 {before} saved, float32 {now} expected" in lines


def test_a_run_of_the_other_framework_is_refused(
    framework: str,
    launch: Launch,
    reference: Callable[[str], Record],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    other = {"jax": "torch", "torch": "jax"}[framework]
    shutil.copytree(reference(other).workdir, tmp_path / "run")
    with pytest.raises(SystemExit) as stop:
        launch(framework, tmp_path / "run", "--resume")
    assert stop.value.code == 2
    name = {"jax": "JAX", "torch": "PyTorch"}[framework]
    assert f"{tmp_path / 'run' / 'checkpoints'} holds no checkpoint of {name}: " in (
        capsys.readouterr().err
    )


def test_a_run_killed_before_its_summary_gets_it_when_resumed(
    launch: Launch, reference: Callable[[str], Record], tmp_path: Path
):
    whole = reference("torch").workdir
    shutil.copytree(whole, tmp_path / "run")
    (tmp_path / "run" / "summary.json").unlink()
    assert launch("torch", tmp_path / "run", "--resume").status == 0
    found, expected = (
        json.loads((path / "summary.json").read_text()) for path in (tmp_path / "run", whole)
    )
    assert found["best"] == expected["best"]


def test_a_run_that_diverges_ends_and_keeps_the_batch(
    framework: str, launch: Launch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    arguments = ("--learning-rate", "1e30", "--warmup", "0", "--max-skipped", "2")
    with pytest.raises(SystemExit) as stop:
        launch(framework, tmp_path / "run", *ARGUMENTS, *arguments)
    assert stop.value.code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert re.search(r"^error: loss (nan|inf) in epoch 1, and 2 steps in a row that were", error)
    [path] = (tmp_path / "run").glob("not_finite_*.npz")
    assert str(path) in error
    names = json.loads((tmp_path / "run" / "split.json").read_text())["train"]
    assert len(set(re.findall(r"scene_\w+", error)) & set(names)) == 2
    with np.load(path) as saved:
        assert saved["image"].shape == (2, 16, 24, 3)
        assert saved["mask"].shape == (2, 16, 24)


def test_too_little_memory_is_said_in_one_line_with_what_to_try(
    framework: str, launch: Launch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    def on_step(n: int) -> None:
        raise {
            "jax": jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating"),
            "torch": torch.OutOfMemoryError("CUDA out of memory."),
        }[framework]

    with pytest.raises(SystemExit) as stop:
        launch(framework, tmp_path / "run", *ARGUMENTS, on_step=on_step)
    assert stop.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("error: too little memory for batches of 2: try a smaller ")
    for what in ("--batch-size", "--accumulate", "--remat", "--precision bfloat16", "--cache none"):
        assert what in lines[-1]


@pytest.mark.parametrize(
    ("module", "name"),
    [
        pytest.param(unet_jax.learner, "JaxLearner", id="first weights"),
        pytest.param(unet_jax.train, "settle", id="data on the device"),
    ],
)
def test_too_little_memory_before_the_first_step_is_said_so_too(
    module: Any,
    name: str,
    launch: Launch,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    def fail(*_: object, **__: object) -> None:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating")

    class Failing(unet_jax.learner.JaxLearner):
        __init__ = fail  # type: ignore[assignment]

    monkeypatch.setattr(module, name, Failing if name == "JaxLearner" else fail)
    with pytest.raises(SystemExit) as stop:
        launch("jax", tmp_path / "run", *ARGUMENTS)
    assert stop.value.code == 2
    assert "error: too little memory for batches of 2: try" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_too_little_host_memory_for_the_data_is_said_so_too(
    framework: str,
    launch: Launch,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    def fail(*_: object) -> None:
        raise MemoryError("Unable to allocate 99 GiB")

    monkeypatch.setattr(Pipeline, "hold", fail)
    with pytest.raises(SystemExit) as stop:
        launch(framework, tmp_path / "run", *ARGUMENTS)
    assert stop.value.code == 2
    assert "error: too little memory for batches of 2: try" in capsys.readouterr().err

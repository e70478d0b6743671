"""The command line: where settings come from, and what a mistake says."""

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from unet_jax.config import (
    AugmentConfig,
    Config,
    DataConfig,
    LossConfig,
    ModelConfig,
    OptimConfig,
    SaveConfig,
    TrainConfig,
    dump,
    load,
    presets,
)
from unet_jax.launch import Launch, read_launch, write_launch
from unet_jax.run import Run
from unet_jax.train_options import RunOptions, parse

ROOT = Path(__file__).parents[1]


def run(*args: str | Path) -> tuple[RunOptions, Config]:
    return parse([str(arg) for arg in args], description="Trains.")


def refuse(capsys: pytest.CaptureFixture[str], *args: str | Path) -> str:
    """What a refused command line says: all of it on stderr, with exit status 2."""
    with pytest.raises(SystemExit) as stop:
        run(*args)
    assert stop.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", err).split())  # Without the box and its line breaks.


# Where settings come from.


def test_the_default_is_the_preset_of_the_default_data_set():
    options, config = run()
    assert config == load("shapes")
    assert options == RunOptions(preset="shapes")


def test_a_data_set_with_a_preset_of_its_name_starts_from_it():
    options, config = run("--dataset", "shapes", "--epochs", "3")
    start = load("shapes")
    assert config == dataclasses.replace(start, train=dataclasses.replace(start.train, epochs=3))
    assert options.preset == "shapes"


@pytest.mark.parametrize("preset", presets())
def test_a_preset_is_taken_by_its_name(preset):
    options, config = run("--preset", preset)
    assert config == load(preset)
    assert options.preset == preset


@pytest.mark.parametrize("spelling", [["--preset", "carvana-small"], ["--preset=carvana-small"]])
@pytest.mark.parametrize("first", [True, False], ids=["preset-first", "preset-last"])
def test_a_flag_changes_a_preset_and_nothing_else(spelling, first):
    flags = ["--learning-rate", "0.5", "--channels", "8", "24", "--no-skip", "--size", "64", "32"]
    flags += ["--rotation", "15", "--scale", "0.8", "1.25", "--stored-size", "96", "64"]
    _, config = run(*(spelling + flags if first else flags + spelling))
    start = load("carvana-small")
    assert (start.optim.learning_rate, start.model.skip) != (0.5, False)
    assert config == dataclasses.replace(
        start,
        data=dataclasses.replace(start.data, size=(64, 32), stored_size=(96, 64)),
        augment=dataclasses.replace(start.augment, rotation=15, scale=(0.8, 1.25)),
        model=dataclasses.replace(start.model, channels=(8, 24), skip=False),
        optim=dataclasses.replace(start.optim, learning_rate=0.5),
    )


@pytest.mark.parametrize(
    ("flags", "loss"),
    [
        (["--class-weights", "median"], LossConfig(class_weights="median")),
        (["--class-weights", "1", "2.5"], LossConfig(class_weights=(1.0, 2.5))),
        (["--focal", "1", "--focal-alpha", "0.25"], LossConfig(focal=1.0, focal_alpha=0.25)),
    ],
)
def test_the_loss_has_flags(flags, loss):
    assert run(*flags)[1].loss == loss


def test_a_preset_may_be_a_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("train: {epochs: 2}\n")
    options, config = run("--preset", path)
    assert config == Config(train=TrainConfig(epochs=2))
    assert options.preset == "mine"


def test_run_options_are_read(tmp_path):
    options, _ = run("--workdir", tmp_path / "new", "--dry-run")
    assert options == RunOptions(preset="shapes", workdir=tmp_path / "new", dry_run=True)


# Resuming.


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, Config]:
    """A run's folder, and its settings, none of a preset's."""
    config = Config(
        data=DataConfig(size=(32, 48)),
        model=ModelConfig(channels=(6, 8), groups=2),
        optim=OptimConfig(learning_rate=0.125),
        train=TrainConfig(epochs=17),
    )
    (tmp_path / "config.yaml").write_text(dump(config))
    return tmp_path, config


def test_resume_takes_the_settings_of_the_run(saved):
    folder, expected = saved
    options, config = run("--resume", "--workdir", folder)
    assert config == expected
    assert options.resume
    assert options.workdir == folder


def test_resume_may_change_a_setting(saved):
    folder, expected = saved
    _, config = run("--workdir", folder, "--resume", "--epochs", "20")
    assert config == dataclasses.replace(
        expected, train=dataclasses.replace(expected.train, epochs=20)
    )


def test_resume_goes_on_as_the_run_was_launched(saved):
    folder, _ = saved
    write_launch(folder, Launch(remat=True, wandb=True, parallel="pmap"))
    options, _ = run("--resume", "--workdir", folder)
    assert options.launch == Launch(remat=True, wandb=True, parallel="pmap")
    options, _ = run("--resume", "--workdir", folder, "--no-wandb", "--parallel", "jit")
    assert options.launch == Launch(remat=True, parallel="jit")
    options, _ = run("--resume", "--workdir", folder, "--preset", folder / "config.yaml")
    assert options.remat


def test_a_run_says_how_it_was_launched(tmp_path):
    how = Launch(remat=True, parallel="shard")
    Run(tmp_path / "run", Config(), how, resume=False)
    assert read_launch(tmp_path / "run") == how


def test_resume_or_start_resumes_what_there_is(saved, tmp_path):
    folder, expected = saved
    options, config = run("--resume-or-start", "--workdir", folder)
    assert (options.resume, config) == (True, expected)
    options, config = run("--resume-or-start", "--workdir", tmp_path / "new")
    assert (options.resume, config) == (False, load("shapes"))


@pytest.mark.parametrize("flags", [["--workdir=~/run"], ["--workdir", "~/run"]], ids=" ".join)
def test_a_home_folder_is_one_everywhere(flags, saved, monkeypatch):
    folder, expected = saved
    (folder / "run").mkdir()
    (folder / "config.yaml").rename(folder / "run" / "config.yaml")
    monkeypatch.setenv("HOME", str(folder))
    options, config = run("--resume", *flags)
    assert (options.workdir, config) == (folder / "run", expected)


def test_a_folder_without_resume_gives_no_settings(saved):
    _, config = run("--workdir", saved[0])
    assert config == load("shapes")


# Help.


def test_help_has_a_flag_for_every_setting(capsys):
    with pytest.raises(SystemExit) as stop:
        run("--help")
    assert stop.value.code == 0
    text = capsys.readouterr().out
    configs = (DataConfig, AugmentConfig, ModelConfig, LossConfig, OptimConfig, TrainConfig)
    configs += (SaveConfig,)
    groups = (RunOptions, *configs)
    names = [field.name for group in groups for field in dataclasses.fields(group)]
    flags = {"--" + name.replace("_", "-") for name in names}
    assert len(flags) == len(names), "two settings share a flag"
    assert flags <= set(re.findall(r"(?<![\w-])--[a-z-]+", text))
    assert {field.name for field in dataclasses.fields(Config)} == {
        group.__name__.removesuffix("Config").lower() for group in configs
    }
    assert text.lstrip().startswith("usage: ")
    assert "Trains." in text
    for preset in presets():
        assert preset in text


# Mistakes.


def test_stdout_may_be_closed(monkeypatch):
    """As `>&-` does."""
    monkeypatch.setattr(sys, "stdout", None)
    options, _ = run()
    assert options == RunOptions(preset="shapes")


@pytest.mark.parametrize("buffered", ["", "1"], ids=["buffered", "unbuffered"])
def test_help_may_be_left_unread(buffered):
    read, written = os.pipe()
    os.close(read)  # As `| head` does, once it has its lines.
    ended = subprocess.run(
        [sys.executable, "scripts/kill_test.py", "--help"],
        cwd=ROOT,
        env=os.environ | {"PYTHONUNBUFFERED": buffered},
        stdout=written,
        stderr=subprocess.PIPE,
        text=True,
        timeout=100,
    )
    os.close(written)
    assert (ended.returncode, ended.stderr) == (1, "")


def test_an_unknown_flag_is_named(capsys):
    assert "--learning-rat" in refuse(capsys, "--learning-rat", "0.1")


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        pytest.param(
            ["--dataset", "cats"], ["--dataset", "cats", "shapes", "carvana"], id="data-set"
        ),
        pytest.param(["--norm", "layer"], ["--norm", "layer", "batch", "group", "none"], id="norm"),
        pytest.param(["--epochs", "many"], ["--epochs", "many"], id="not-a-number"),
        pytest.param(["--epochs"], ["--epochs"], id="no-value"),
        pytest.param(["--size", "64"], ["--size"], id="one-of-two-values"),
        pytest.param(["--workdir"], ["--workdir"], id="no-folder"),
    ],
)
def test_a_bad_choice_is_named_with_what_is_allowed(capsys, flags, names):
    message = refuse(capsys, *flags)
    assert [name for name in names if name not in message] == []


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        pytest.param(
            ["--preset", "shape"],
            f"error: preset 'shape' is neither a YAML file nor one of {', '.join(presets())}",
            id="unknown-preset",
        ),
        pytest.param(
            ["--size", "7", "64", "--channels", "16", "32", "64"],
            "size: (7, 64) is too small; 3 stages need at least 8 pixels a side",
            id="size-too-small",
        ),
        pytest.param(
            ["--groups", "5", "--channels", "16", "32", "64"],
            "groups: 5 does not divide the width 16 of channels (16, 32, 64)",
            id="groups-not-dividing",
        ),
        pytest.param(
            ["--epochs", "0"],
            "epochs: Input should be greater than or equal to 1; got 0",
            id="out-of-range",
        ),
        pytest.param(
            ["--resume"],
            "error: --resume needs --workdir: the folder of the run to go on with",
            id="resume-without-a-folder",
        ),
        pytest.param(
            ["--resume-or-start"],
            "error: --resume-or-start needs --workdir: the folder of the run to go on with",
            id="resume-or-start-without-a-folder",
        ),
    ],
)
def test_a_bad_setting_is_named_with_its_value(capsys, flags, expected):
    assert expected in refuse(capsys, *flags)


@pytest.mark.parametrize("exists", [True, False], ids=["empty", "absent"])
def test_resume_in_a_folder_without_a_run_is_refused(capsys, tmp_path, exists):
    folder = tmp_path if exists else tmp_path / "absent"
    message = refuse(capsys, "--resume", "--workdir", folder)
    assert message == f"error: --resume: {folder} holds no run (no config.yaml)"


def test_resume_of_a_damaged_run_names_the_file(capsys, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("train: {epochs: 0}\n")
    message = refuse(capsys, "--resume", "--workdir", tmp_path)
    assert message.startswith(f"error: {path}: train.epochs: ")

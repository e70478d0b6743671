"""The preparation script: what it counts, prints and draws, and what its mistakes say."""

import dataclasses
import io
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from rich.console import Console

from unet_jax import prepare as module
from unet_jax.config import DataConfig, PrepareConfig, load
from unet_jax.datasets import IGNORED, DataError, open_dataset
from unet_jax.datasets.builder import Facts
from unet_jax.overview import overview
from unet_jax.prepare import prepare
from unet_jax.prepare_options import PrepareOptions, parse_prepare, training_flags
from unet_jax.split import Split
from unet_jax.statistics import Statistics, measure
from unet_jax.train_options import parse

SIZE = (12, 16)


def write_pairs(folder: Path, split: str, count: int, seed: int) -> list[np.ndarray]:
    """Images of noise, with masks of 0, 1 and 2, and a row of 255: returns the images."""
    rng = np.random.default_rng(seed)
    images = []
    for kind in ("images", "masks"):
        (folder / split / kind).mkdir(parents=True, exist_ok=True)
    for n in range(count):
        image = rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8) // (1 + seed)
        mask = np.zeros(SIZE, np.uint8)
        mask[:, 8:12], mask[:, 12:], mask[0] = 1, 2, IGNORED
        Image.fromarray(image).save(folder / split / "images" / f"{n}.png")
        Image.fromarray(mask).save(folder / split / "masks" / f"{n}.png")
        images.append(image)
    return images


@pytest.fixture
def data(tmp_path: Path) -> tuple[Path, list[np.ndarray]]:
    """A folder of 4 training and 2 darker validation pairs; and the training images."""
    images = write_pairs(tmp_path / "data", "train", 4, seed=0)
    write_pairs(tmp_path / "data", "val", 2, seed=1)
    return tmp_path / "data", images


def run(data_dir: Path, *more: str | Path) -> int:
    args = ["--dataset", "folder", "--data-dir", data_dir, "--size", *SIZE]
    args += ["--prepared-dir", data_dir.parent / "prepared", *more]
    return prepare(*parse_prepare([str(arg) for arg in args], description="Prepares."))


def refused(capsys: pytest.CaptureFixture[str], data_dir: Path, *more: str | Path) -> str:
    """What a run that fails says: one error, with exit status 2, and nothing else."""
    with pytest.raises(SystemExit) as stop:
        run(data_dir, *more)
    assert stop.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    return err


# The whole.


def test_everything_is_said_and_drawn(data, capsys: pytest.CaptureFixture[str]):
    folder, images = data
    assert run(folder) == 0
    out = capsys.readouterr().out
    text = " ".join(re.sub(r"[│┃]", " ", out).split())
    assert f"files{folder}" in text.replace(" ", "")
    assert "Masks hold class ids from 0 to 2, and 255, which is ignored." in text
    assert "pairs 6 " in text
    assert "4 training, 2 validation; as published" in text
    assert "12×16, all of them" in text
    # Of 12 rows one is ignored; of the rest half is class 0, and a quarter 1 and 2 each.
    assert f"background {100 * 11 / 12 / 2:.2f} % 6" in text
    assert f"class 1 {100 * 11 / 12 / 4:.2f} % 6" in text
    assert f"ignored {100 / 12:.2f} % 6" in text
    copy = re.search(r"Prepared copy: ([\d.]+) MB in (.+)", out)
    sheet = re.search(r"Contact sheet: (.+\.png)\n", out)
    assert copy
    assert sheet
    assert list(Path(copy[2]).glob("*.array_record*"))
    with Image.open(sheet[1]) as picture:
        assert picture.format == "PNG"
    settings = yaml.safe_load(out[out.index("data:") : copy.start()])["data"]
    pixels = np.stack(images) / 255
    # Printed with four places.
    np.testing.assert_allclose(settings["mean"], pixels.mean((0, 1, 2)), atol=5.1e-5)
    np.testing.assert_allclose(settings["std"], pixels.std((0, 1, 2)), atol=5.1e-5)


@pytest.mark.parametrize(
    ("more", "title"),
    [
        ((), "folder at 12×16 "),
        (("--stored-size", *map(str, SIZE)), "folder at 12×16 "),
        (("--stored-size", "24", "17"), "folder at 24×17, for a network at 12×16 "),
    ],
    ids=["unsaid", "the same", "larger"],
)
def test_the_size_of_the_copy_is_said(more, title, data, capsys):
    run(data[0], *more)
    out = capsys.readouterr().out
    assert title in " ".join(out.split())
    copy = re.search(r"Prepared copy: .+ MB in (.+)", out)
    assert copy
    assert f"/{'x'.join(more[1:]) or '12x16'}-" in copy[1]


def test_moments_can_be_pasted_into_a_preset(data, capsys: pytest.CaptureFixture[str]):
    run(data[0])
    out = capsys.readouterr().out
    preset = data[0].parent / "mine.yaml"
    preset.write_text(out[out.index("data:") : out.index("Prepared copy")])
    assert load(preset).data.mean != DataConfig().mean


def test_the_script_does_the_same(data, monkeypatch, capsys: pytest.CaptureFixture[str]):
    script = Path(__file__).parents[1] / "scripts" / "prepare_data.py"
    args = ["--preset", "folder", "--data-dir", data[0], "--size", *SIZE]
    args += ["--prepared-dir", data[0].parent / "prepared"]
    monkeypatch.setattr(sys, "argv", [str(script), *map(str, args)])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(script), run_name="__main__")
    assert stop.value.code == 0
    assert "Contact sheet: " in capsys.readouterr().out


# The contact sheet.


def test_a_sheet_is_replaced_with_a_word(data, capsys: pytest.CaptureFixture[str]):
    path = data[0].parent / "new" / "mine.PNG"
    run(data[0], "--sheet", path)
    assert f"Contact sheet: {path}\n" in capsys.readouterr().out
    path.write_bytes(b"old")
    run(data[0], "--sheet", path)
    assert f"Contact sheet: {path} (drawn over the one before)\n" in capsys.readouterr().out
    with Image.open(path) as picture:
        assert picture.format == "PNG"
    assert [p.name for p in path.parent.iterdir()] == ["mine.PNG"]


@pytest.mark.parametrize("name", ["photo.jpg", "sheet", "folder.png"])
def test_a_sheet_that_is_no_png_is_refused_first(data, capsys, name: str):
    (data[0].parent / "folder.png").mkdir()
    message = refused(capsys, data[0], "--sheet", data[0].parent / name)
    assert message == f"error: --sheet: {data[0].parent / name} is not a PNG file's name\n"
    assert not (data[0].parent / "prepared").exists()


def test_samples_of_a_sheet_are_spread_over_the_set(tmp_path: Path, monkeypatch):
    write_pairs(tmp_path / "data", "", 60, seed=0)
    names = []
    monkeypatch.setattr(
        module,
        "contact_sheet",
        lambda *args: names.extend(args[2]) or Image.new("RGB", (1, 1)),
    )
    run(tmp_path / "data")
    every = sorted(str(n) for n in range(60))
    places = [every.index(name) for name in names]
    assert len(places) == 24
    assert (places[0], places[-1]) == (0, 59)
    assert set(np.diff(places)) <= {2, 3}


# Mistakes, and Ctrl-C.


def test_bad_data_are_named_and_nothing_is_left(data, capsys: pytest.CaptureFixture[str]):
    (data[0] / "train" / "images" / "1.png").write_bytes(b"no image")
    message = refused(capsys, data[0])
    assert message.count("error: ") == 1
    assert "train/images/1.png: cannot be decoded" in message
    assert not list(data[0].parent.rglob("*.array_record*"))
    assert not list(data[0].parent.rglob("*.png.part"))


def test_a_set_without_training_samples_is_refused(tmp_path: Path, capsys):
    write_pairs(tmp_path / "data", "val", 2, seed=0)
    assert "there are no samples to train on" in refused(capsys, tmp_path / "data")


def test_ctrl_c_ends_it_quietly(data, monkeypatch, capsys: pytest.CaptureFixture[str]):
    def interrupt(config: DataConfig) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "open_dataset", interrupt)
    assert run(data[0]) == 130
    assert capsys.readouterr() == ("", "")


# Downloads.


def test_what_was_downloaded_is_prepared(data, monkeypatch, capsys: pytest.CaptureFixture[str]):
    asked = []
    monkeypatch.setattr(module, "download", lambda config: asked.append(config) or data[0])
    elsewhere = data[0].parent / "elsewhere"
    assert run(data[0], "--download", "--data-dir", elsewhere) == 0
    assert [config.data_dir for config in asked] == [elsewhere]
    out = capsys.readouterr().out
    assert "pairs" in out
    assert f"--data-dir={data[0]} " in out.splitlines()[-1]


def test_a_failed_download_ends_it(data, monkeypatch, capsys: pytest.CaptureFixture[str]):
    def fail(config: DataConfig) -> None:
        raise DataError("no network")

    monkeypatch.setattr(module, "download", fail)
    assert refused(capsys, data[0], "--download") == "error: no network\n"
    assert not (data[0].parent / "prepared").exists()


# The command line.


def test_settings_start_from_the_data_sets_preset():
    options, config = parse_prepare(["--dataset", "camvid"], description="")
    assert (options, config) == (PrepareOptions(), load("camvid").data)


def test_flags_change_a_preset():
    args = ["--preset", "carvana-small", "--size", "8", "9", "--download", "--sheet", "a.png"]
    options, config = parse_prepare(args, description="")
    assert config == dataclasses.replace(load("carvana-small").data, size=(8, 9))
    assert (options.download, options.sheet) == (True, Path("a.png"))


def test_help_has_a_flag_for_every_setting_of_preparing_and_no_other(
    capsys: pytest.CaptureFixture[str],
):
    with pytest.raises(SystemExit) as stop:
        parse_prepare(["--help"], description="Prepares.")
    assert stop.value.code == 0
    fields = [*dataclasses.fields(PrepareConfig), *dataclasses.fields(PrepareOptions)]
    flags = {"--" + field.name.replace("_", "-") for field in fields}
    found = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", capsys.readouterr().out))
    assert found == flags | {"--help", "--no-download"}
    assert not flags & {"--binary", "--overfit", "--cache", "--mean", "--std", "--epochs"}


def test_settings_that_have_no_flag_here_are_the_presets(tmp_path: Path):
    preset = tmp_path / "mine.yaml"
    preset.write_text("data: {binary: true, std: [0.5, 0.5, 0.5], scenes: 7}\n")
    _, config = parse_prepare(["--preset", str(preset), "--scenes", "8"], description="")
    assert config == DataConfig(binary=True, std=(0.5, 0.5, 0.5), scenes=8)


PRESET = """
data: {dataset: folder, size: [24, 40], stored_size: [30, 50], split_seed: 5, mask_suffix: _seg}
"""


@pytest.mark.parametrize(
    "args",
    [
        ["--dataset", "folder"],
        ["--dataset", "folder", "--size", "16", "32", "--data-dir", "with a space"],
        ["--dataset", "folder", "--mask-suffix=-mask", "--description", "d.yaml"],
        ["--preset", "carvana-small", "--data-dir", "d", "--prepared-dir", "~/p"],
        ["--preset", "carvana-small", "--dataset", "camvid", "--val-fraction", "0.5"],
        ["--preset", "mine.yaml", "--mask-suffix", "", "--split-seed", "0", "--sheet", "a.png"],
        ["--preset", "mine.yaml", "--stored-size", "None"],
        ["--scenes", "7", "--stored-size", "70", "100"],
    ],
    ids=" ".join,
)
def test_the_flags_for_training_bring_the_same_settings(
    args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(PRESET)
    options, config = parse_prepare(args, description="")
    flags = shlex.join(training_flags(options, config))
    assert parse(shlex.split(flags), description="")[1].data == config


def test_the_last_line_opens_the_very_copy(data, capsys: pytest.CaptureFixture[str]):
    run(data[0], "--size", "16", "24")  # Enough for the preset's network.
    flags = capsys.readouterr().out.splitlines()[-1].removeprefix("Train on it with: ")
    config = parse(shlex.split(flags), description="")[1].data
    before = set(data[0].parent.rglob("*"))
    assert len(open_dataset(config).records()) == 6
    assert set(data[0].parent.rglob("*")) == before


@pytest.mark.parametrize(
    ("args", "message"),
    [
        pytest.param(["--epochs", "3"], "--epochs", id="training"),
        pytest.param(["--binary"], "--binary", id="training on data"),
        pytest.param(["--preset", "nope"], "preset 'nope' is neither", id="preset"),
        pytest.param(["--val-fraction", "2"], "val_fraction: ", id="out-of-range"),
    ],
)
def test_a_wrong_flag_is_named(capsys: pytest.CaptureFixture[str], args: list[str], message: str):
    with pytest.raises(SystemExit) as stop:
        parse_prepare(args, description="")
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


# Statistics, and how they are shown.


class Once:
    """Records that can be read a single time."""

    def __init__(self, records: list[dict[str, np.ndarray]]) -> None:
        self.records, self.reads = records, 0

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        self.reads += 1
        assert self.reads == 1
        return iter(self.records)


def test_measure_agrees_with_numpy_in_one_pass():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 9, 7, 3), dtype=np.uint8)
    images[..., 1] //= 3
    masks = rng.choice(np.array([0, 3, 149, IGNORED], np.uint8), (5, 9, 7))
    masks[0] = 3
    records = [{"image": i, "mask": m} for i, m in zip(images, masks, strict=True)]
    found = measure(Once(records), train=[0, 3, 4])
    for value in (0, 3, 149, IGNORED, 7):
        assert found.pixels[value] == (masks == value).sum()
        assert found.pictures[value] == (masks == value).any(axis=(1, 2)).sum()
        assert found.shares[value] == pytest.approx((masks == value).mean())
    pixels = images[[0, 3, 4]] / 255
    # Sums of a few hundred float64.
    np.testing.assert_allclose(found.mean, pixels.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(found.std, pixels.std((0, 1, 2)), rtol=1e-12)


def shown(pixels: np.ndarray, facts: Facts) -> str:
    statistics = Statistics(pixels, (pixels > 0).astype(int), np.full(3, 0.5), np.full(3, 0.25))
    console = Console(file=io.StringIO(), width=120)
    test = [n for n, part in enumerate(facts.splits) if part == "test"]
    split = Split([n for n in range(len(facts.names)) if n not in test], [], test)
    console.print(*overview(facts, split, statistics, DataConfig()))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def facts_of(count: int, native: list[list[int]], splits: list[str], note: str = "") -> Facts:
    names = [str(n) for n in range(len(native))]
    palette = [[n, n, n] for n in range(count)]
    return Facts(
        names, names, splits, native, [f"[/c{n}]" for n in range(count)], palette, note, ""
    )


def test_many_classes_are_counted_beyond_the_largest():
    pixels = np.zeros(256, np.int64)
    pixels[:100] = np.arange(100) + 1
    text = shown(pixels, facts_of(150, [[8, 8]], [""]))
    listed = re.findall(r"\[/c(\d+)\]", text)  # As they are, though they look like markup.
    assert [int(n) for n in listed] == list(range(99, 79, -1))
    total = pixels.sum()
    assert f"{100 * 100 / total:.2f} %" in text
    assert re.search(rf"… and 130 more\s+│\s+{100 * pixels[:80].sum() / total:.2f} %", text)
    assert "50 of the 150 classes never occur." in text


def test_a_tiny_share_is_not_shown_as_none():
    pixels = np.zeros(256, np.int64)
    pixels[:2] = 10**6, 1
    assert "< 0.01 %" in shown(pixels, facts_of(2, [[8, 8]], [""]))
    assert "never occur" not in shown(pixels, facts_of(2, [[8, 8]], [""]))


def test_native_sizes_and_test_samples_are_counted():
    native = [[9, 9], [4, 30], [5, 5], [9, 9], [40, 10]]
    pixels = np.ones(256, np.int64)
    text = shown(pixels, facts_of(2, native, ["train", "val", "test", "test", "train"], "[/n]"))
    assert "5×5 the smallest, 9×9 the median, 40×10 the largest; 4 different ones" in text
    assert "2 test; as published" in text
    assert "[/n]" in text

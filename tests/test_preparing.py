"""Preparing: once, as a whole or not at all, whatever dies in the middle or happens beside."""

import math
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
from drawing import (
    NATIVE,
    SIZE,
    as_zips,
    contents,
    draw,
    files,
    open_set,
    refused,
    save_mask,
    write_kaggle,
)
from PIL import Image

from unet_jax.config import DataConfig
from unet_jax.datasets import builder as builder_module
from unet_jax.datasets.carvana import Carvana

VIEWS = tuple(f"{n:02}" for n in range(1, 13))


@pytest.fixture(scope="session")
def kaggle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read-only: tests that change files draw their own."""
    return write_kaggle(tmp_path_factory.mktemp("carvana") / "kaggle", ("car",), VIEWS)


@pytest.fixture
def two_views(tmp_path: Path) -> Path:
    return write_kaggle(tmp_path / "two_views", ("car",), VIEWS[:2])


@pytest.mark.parametrize("packed", [False, True], ids=["folders", "zips"])
def test_a_second_open_writes_nothing(packed: bool, kaggle: Path, tmp_path: Path):
    data = as_zips(kaggle, tmp_path / "zips") if packed else kaggle
    first = contents(open_set("carvana", data, tmp_path / "prepared"))
    written = files(tmp_path / "prepared")
    assert written
    assert contents(open_set("carvana", data, tmp_path / "prepared")) == first
    assert files(tmp_path / "prepared") == written


def pad(path: Path) -> None:
    """One length for all files, so that no length gives a change away."""
    content = path.read_bytes()
    assert len(content) <= 16384
    path.write_bytes(content.ljust(16384, b"\0"))


def repaint(path: Path) -> None:
    """Other pixels, and a time of change that even a coarse clock tells from the first."""
    picture = Image.open(path)
    flipped = picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    before = path.stat().st_mtime_ns
    flipped.save(path)
    pad(path)
    os.utime(path, ns=(before + 10**9, before + 10**9))


@pytest.mark.parametrize("changed", ["train", "train_masks"])
@pytest.mark.parametrize("layout", ["folders", "zips", "image and mask of one name"])
def test_a_changed_source_is_prepared_anew(
    layout: str, changed: str, two_views: Path, tmp_path: Path
):
    data = two_views
    if layout == "image and mask of one name":
        for path in [*data.glob("train/*"), *data.glob("train_masks/*")]:
            Image.open(path).save(path.with_name(path.stem.removesuffix("_mask") + ".png"))
            path.unlink()
    for path in [*two_views.glob("train/*"), *two_views.glob("train_masks/*")]:
        pad(path)
    if layout == "zips":
        data = as_zips(two_views, tmp_path / "zips")
    before = contents(open_set("carvana", data, tmp_path / "prepared"))
    repaint(sorted((two_views / changed).iterdir())[0])
    if layout == "zips":
        shutil.rmtree(data)
        as_zips(two_views, data)
    after = contents(open_set("carvana", data, tmp_path / "prepared"))
    column = 2 if changed == "train" else 3
    assert after[0][column] != before[0][column]
    assert after[1] == before[1]


def test_another_size_is_prepared_beside(kaggle: Path, tmp_path: Path):
    first = open_set("carvana", kaggle, tmp_path)
    written = files(tmp_path)
    other = open_set("carvana", kaggle, tmp_path, (8, 12))
    assert other.records()[0]["image"].shape == (8, 12, 3)
    assert {name: files(tmp_path)[name] for name in written} == written
    assert first.records()[0]["image"].shape == (*SIZE, 3)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def shrink(path: Path) -> None:
    save_mask(draw(0, (NATIVE[0], NATIVE[1] - 2))[1], path)


def third_class(path: Path) -> None:
    save_mask(draw(0)[1] + 6 * (draw(1)[1] & draw(0)[1]) * np.eye(*NATIVE, dtype=np.uint8), path)


def many_values(path: Path) -> None:
    Image.fromarray(np.arange(40 * 60, dtype=np.uint8).reshape(NATIVE)).save(path)


def in_colour(path: Path) -> None:
    Image.fromarray(draw(0)[0]).save(path, format="png")


def as_jpeg(path: Path) -> None:
    Image.fromarray(draw(0)[1] * np.uint8(255)).save(path, format="jpeg")


def huge(path: Path) -> None:
    """A few kilobytes that unpack to 200 million pixels."""
    Image.new("1", (20_000, 10_000)).save(path, format="png")


IMAGE, MASK = "train/car_02.jpg", "train_masks/car_02_mask.gif"


@pytest.mark.parametrize("packed", [False, True], ids=["folders", "zips"])
@pytest.mark.parametrize(
    ("bad", "spoil", "reason"),
    [
        pytest.param(IMAGE, truncate, "cannot be decoded", id="truncated JPEG"),
        pytest.param(IMAGE, lambda p: p.write_text("hello"), "cannot be decoded", id="text"),
        pytest.param(IMAGE, lambda p: p.write_bytes(b""), "cannot be decoded", id="empty"),
        pytest.param(IMAGE, huge, "could be decompression bomb", id="bomb"),
        pytest.param(MASK, truncate, "cannot be decoded", id="truncated GIF"),
        pytest.param(MASK, shrink, "40×58 (H×W), but train/car_02.jpg is 40×60", id="other size"),
        pytest.param(MASK, in_colour, "is in colour", id="mask in colour"),
        pytest.param(MASK, as_jpeg, "is a JPEG", id="mask as JPEG"),
        pytest.param(MASK, third_class, "the values 1, 7; allowed: 0, 255", id="values 0 1 7"),
        pytest.param(MASK, many_values, "1, 2, 3, 4, 5, 6, 7, 8, …", id="values 0…"),
    ],
)
def test_a_bad_file_is_named_and_leaves_nothing(
    bad: str,
    spoil: Callable[[Path], None],
    reason: str,
    packed: bool,
    two_views: Path,
    tmp_path: Path,
):
    good = (two_views / bad).read_bytes()
    spoil(two_views / bad)
    data = as_zips(two_views, tmp_path / "zips", top=True) if packed else two_views
    message = refused("carvana", data, tmp_path / "prepared")
    assert message.startswith("1 files of carvana cannot be used:\n")
    assert f"  {bad}: " in message
    assert reason in message
    assert files(tmp_path / "prepared") == {}
    (two_views / bad).write_bytes(good)
    if packed:
        shutil.rmtree(data)
        as_zips(two_views, data, top=True)
    assert len(open_set("carvana", data, tmp_path / "prepared").records()) == 2


def test_every_bad_file_is_named_at_once(two_views: Path, tmp_path: Path):
    truncate(two_views / "train" / "car_01.jpg")
    shrink(two_views / "train_masks" / "car_02_mask.gif")
    message = refused("carvana", two_views, tmp_path / "prepared")
    assert "2 files of carvana" in message
    assert "  train/car_01.jpg: " in message
    assert "  train_masks/car_02_mask.gif: " in message


@pytest.mark.parametrize("fault", ["undecodable", "unpaired"])
@pytest.mark.parametrize("count", [20, 23])
def test_a_long_list_ends_in_a_count(fault: str, count: int, tmp_path: Path):
    views = [f"{n:02}" for n in range(1, count + 1)]
    data = write_kaggle(tmp_path / "data", ("car",), [*views, "99"])
    for path in sorted((data / "train").iterdir())[:count]:
        path.unlink() if fault == "unpaired" else path.write_text("hello")
    message = refused("carvana", data, tmp_path / "prepared")
    title, *lines = message.splitlines()
    assert f"{count} " in title
    path = "train/car_{}.jpg" if fault == "undecodable" else "train_masks/car_{}_mask.gif"
    assert [line.split(":")[0] for line in lines[:20]] == [
        f"  {path.format(view)}" for view in views[:20]
    ]
    assert lines[20:] == (["  … and 3 more"] if count == 23 else [])


def test_a_prepared_dir_that_cannot_be_made_is_named(kaggle: Path, tmp_path: Path):
    (tmp_path / "file").write_text("")
    message = refused("carvana", kaggle, tmp_path / "file")
    assert str(tmp_path / "file") in message
    assert "--prepared-dir" in message


def test_nothing_is_left_among_the_temporary_files(
    kaggle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    open_set("carvana", kaggle, tmp_path / "prepared")
    assert list((tmp_path / "temporary").iterdir()) == []


def test_names_that_are_not_utf8_are_kept(two_views: Path, tmp_path: Path):
    """As Latin-1 unpacked on Linux; Python writes such bytes as lone surrogates."""
    odd = os.fsdecode(b"caf\xe9_01")
    shutil.copy(two_views / "train" / "car_01.jpg", two_views / "train" / f"{odd}.jpg")
    shutil.copy(two_views / MASK, two_views / "train_masks" / f"{odd}_mask.gif")
    for _ in range(2):  # Prepared, then read back.
        builder = open_set("carvana", two_views, tmp_path / "prepared")
        assert builder.facts.names == sorted([odd, "car_01", "car_02"])


KILLED = """
    import os, signal, sys
    from collections import Counter
    from pathlib import Path
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import file_adapters
    from unet_jax import side_by_side
    from unet_jax.config import DataConfig
    from unet_jax.datasets import builder, files, open_dataset, renderer

    dataset, data_dir, prepared_dir, point = sys.argv[1], *map(Path, sys.argv[2:4]), sys.argv[4]
    side_by_side.AHEAD = 1
    builder.SHARD = 5 * 4 * 16 * 32  # Five samples a file: one is complete, and one is not.
    passed = Counter()

    def passing(here):
        passed[here] += 1
        if here == point and passed[here] == (1 if here == "before the set is put in place" else 9):
            os.kill(os.getpid(), signal.SIGKILL)

    def counted(here, function):
        return lambda *places, **named: (passing(here), function(*places, **named))[1]

    class Counting(file_adapters.array_record_module.ArrayRecordWriter):
        def write(self, record):
            passing("writing")
            super().write(record)

    files.load_pair = counted("reading", files.load_pair)
    renderer.render = counted("rendering", renderer.render)
    file_adapters.array_record_module.ArrayRecordWriter = Counting
    tfds.core.DatasetInfo.update_data_dir = counted(
        "before the set is put in place", tfds.core.DatasetInfo.update_data_dir
    )
    open_dataset(DataConfig(
        dataset=dataset, data_dir=data_dir, prepared_dir=prepared_dir, size=(16, 32), scenes=12
    ))
"""


@pytest.mark.parametrize(
    ("dataset", "point"),
    [
        ("carvana", "reading"),
        ("carvana", "writing"),
        ("carvana", "before the set is put in place"),
        ("shapes", "rendering"),
    ],
)
def test_killed_in_the_middle_the_next_run_starts_over(
    dataset: str, point: str, kaggle: Path, tmp_path: Path
):
    places = [dataset, str(kaggle), str(tmp_path / "killed"), point]
    command = [sys.executable, "-c", textwrap.dedent(KILLED), *places]
    killed = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    left = [path for path in (tmp_path / "killed").rglob("*") if "incomplete" in path.name]
    assert left, "nothing had been begun"
    assert any("incomplete" in name for name in files(tmp_path / "killed")), "or written"
    builder = open_set(dataset, kaggle, tmp_path / "killed", scenes=len(VIEWS))
    whole = open_set(dataset, kaggle, tmp_path / "whole", scenes=len(VIEWS))
    assert contents(builder) == contents(whole)
    assert len(builder.records()) == len(VIEWS)
    # The leftovers are gone, and what is there has the same names.
    assert {name.split("/", 1)[1] for name in files(tmp_path / "killed")} == {
        name.split("/", 1)[1] for name in files(tmp_path / "whole")
    }


@pytest.mark.parametrize(("each", "count"), [(1, 12), (5, 3), (6, 2), (12, 1), (99, 1)])
def test_samples_keep_their_order_in_however_many_files(
    each: int, count: int, kaggle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    expected = contents(open_set("carvana", kaggle, tmp_path / "one"))
    monkeypatch.setattr(builder_module, "SHARD", each * 4 * math.prod(SIZE))
    builder = open_set("carvana", kaggle, tmp_path / "several")
    assert contents(builder) == expected
    stored = [name for name in files(tmp_path / "several") if "array_record" in name]
    assert len(stored) == count


def test_a_record_is_what_tfds_reads_by_itself(kaggle: Path, tmp_path: Path):
    builder = open_set("carvana", kaggle, tmp_path)
    source = builder.as_data_source(builder.PART)  # type: ignore[reportCallIssue]
    for record, parsed in zip(builder.records(), source, strict=True):
        image, mask = np.split(parsed["pixels"], [3 * math.prod(SIZE)])
        np.testing.assert_array_equal(record["image"], image.reshape(*SIZE, 3))
        np.testing.assert_array_equal(record["mask"], mask.reshape(SIZE))


def prepare_and_tell(data: Path, prepared: Path, line: Connection) -> None:
    line.send("ready")
    line.recv()
    line.send(contents(open_set("carvana", data, prepared)))


def test_two_processes_at_once_end_with_the_same_set(kaggle: Path, tmp_path: Path):
    spawned = multiprocessing.get_context("spawn")
    lines, processes = [], []
    for _ in range(2):
        ours, theirs = spawned.Pipe()
        process = spawned.Process(
            target=prepare_and_tell, args=(kaggle, tmp_path / "shared", theirs), daemon=True
        )
        process.start()
        lines.append(ours)
        processes.append(process)
    for line in lines:
        assert line.poll(120)
        assert line.recv() == "ready"
    for line in lines:
        line.send("go")
    expected = contents(open_set("carvana", kaggle, tmp_path / "alone"))
    for line in lines:
        assert line.poll(120)
        assert line.recv() == expected
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert len(files(tmp_path / "shared")) == len(files(tmp_path / "alone"))


def test_a_builder_sees_what_another_prepared_after_it_was_made(kaggle: Path, tmp_path: Path):
    """As for the process that waited for the lock."""
    config = DataConfig(dataset="carvana", data_dir=kaggle, prepared_dir=tmp_path, size=SIZE)
    late = Carvana(config)
    first = open_set("carvana", kaggle, tmp_path)
    written = files(tmp_path)
    late.prepare()
    assert contents(late) == contents(first)
    assert files(tmp_path) == written

"""The predicting command: what it reads, writes, refuses, and says."""

import csv
import io
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import psutil
import pytest
from PIL import Image
from predicting import COLOURS, NAMES, make_predictor, photo, write_photos, write_trained

import unet_jax.prediction.picture
import unet_jax.prediction.work
from unet_jax.datasets.errors import DataError
from unet_jax.prediction.ahead import ahead
from unet_jax.prediction.inputs import find_inputs
from unet_jax.prediction.predict import predict
from unet_jax.prediction.predict_options import parse_predict
from unet_jax.prediction.predictor import Predictor
from unet_jax.prediction.run_length import decode_runs
from unet_jax.prediction.work import Work

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Files of networks for two and three classes."""
    return {n: write_trained(tmp_path_factory.mktemp("weights"), n) for n in (2, 3)}


def command(weights: Path, *args: object) -> int:
    """Runs the command here; its exit status."""
    given = ["--weights", str(weights), "--batch-size", "2", *map(str, args)]
    try:
        return predict(*parse_predict(given, description="Predicts."))
    except SystemExit as stop:
        return int(stop.code or 0)


def listed(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


# What is written.


def test_every_kind_of_result(weights: dict[int, Path], tmp_path: Path):
    write_photos(tmp_path / "in", ["a.png", "b.png", "c.png"])
    kinds = "mask,binary,probabilities,probabilities16,overlay,panel"
    assert command(weights[2], tmp_path / "in", "--out", tmp_path / "out", "--save", kinds) == 0
    ends = [
        "binary.png",
        "mask.png",
        "overlay.jpg",
        "panel.png",
        "probabilities.npz",
        "probability.png",
    ]
    assert listed(tmp_path / "out") == [f"{name}_{end}" for name in "abc" for end in ends]
    for seed, name in enumerate("abc"):
        expected = make_predictor().predict(photo(seed))
        out = tmp_path / "out" / name
        with Image.open(f"{out}_mask.png") as picture:
            assert picture.mode == "P"
            palette = picture.getpalette()
            assert palette is not None
            assert [tuple(palette[n : n + 3]) for n in (0, 3)] == list(COLOURS[:2])
            np.testing.assert_array_equal(np.asarray(picture), expected.mask)
        np.testing.assert_array_equal(pixels(Path(f"{out}_binary.png")), 255 * expected.mask)
        assert expected.probabilities is not None
        with np.load(f"{out}_probabilities.npz") as found:
            assert found.files == ["probabilities", "classes"]
            assert found["classes"].tolist() == list(NAMES[:2])
            assert found["probabilities"].dtype == np.float32
            np.testing.assert_allclose(found["probabilities"], expected.probabilities, atol=1e-6)
        deep = pixels(Path(f"{out}_probability.png"))
        assert deep.dtype == np.uint16
        # Rounded to 1 / 65535.
        np.testing.assert_allclose(deep / 65535, expected.probabilities[..., 1], atol=1e-5)
        overlay = pixels(Path(f"{out}_overlay.jpg")).astype(int)
        assert np.abs(overlay - np.asarray(expected.overlay())).mean() < 8  # As JPEG has it.
        with Image.open(f"{out}_panel.png") as picture:
            assert picture.width > 3 * 500


def test_several_classes_have_a_probability_each(weights: dict[int, Path], tmp_path: Path):
    write_photos(tmp_path / "in", ["a.png"])
    out = tmp_path / "out"
    save = "mask,probabilities16"
    assert command(weights[3], tmp_path / "in/a.png", "--out", out, "--save", save) == 0
    names = [f"a_probability_{n:03}.png" for n in range(3)]
    assert listed(out) == ["a_mask.png", *names]
    levels = np.stack([pixels(out / name) for name in names], -1)
    np.testing.assert_array_equal(pixels(out / "a_mask.png"), levels.argmax(-1))
    assert np.abs(levels.sum(-1, dtype=int) - 65535).max() <= 2  # Three roundings.


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Decoding's.
def test_a_submission_and_a_coco_file(weights: dict[int, Path], tmp_path: Path):
    coco = pytest.importorskip("pycocotools.coco")
    write_photos(tmp_path / "in", ["x/a.jpg", "y/a.jpg", "b.jpg"])
    rle, made, out = tmp_path / "new/s.csv", tmp_path / "new/c.json", tmp_path / "out"
    args = (tmp_path / "in", "--out", out, "--rle", rle, "--coco", made)
    assert command(weights[2], *args) == 0
    rows = list(csv.DictReader(io.StringIO(rle.read_text())))
    masks = [pixels(out / f"{name}_mask.png") for name in ("b", "x/a", "y/a")]
    assert [row["img"] for row in rows] == ["b.jpg", "a.jpg", "a.jpg"]
    for row, mask in zip(rows, masks, strict=True):
        np.testing.assert_array_equal(decode_runs(row["rle_mask"], mask.shape), mask)
    opened = coco.COCO(made)
    files = ["b.jpg", "x/a.jpg", "y/a.jpg"]
    assert [i["file_name"] for i in opened.dataset["images"]] == files
    for number, mask in enumerate(masks, 1):
        (region,) = opened.loadAnns(opened.getAnnIds(imgIds=[number]))
        np.testing.assert_array_equal(opened.annToMask(region), mask)


def test_files_that_keep_their_suffix_have_it_once_in_coco(
    weights: dict[int, Path], tmp_path: Path
):
    pytest.importorskip("pycocotools")
    write_photos(tmp_path / "in", ["1.jpg", "1.png", "2.png"])
    assert command(weights[2], tmp_path / "in", "--coco", tmp_path / "c.json") == 0
    images = json.loads((tmp_path / "c.json").read_text())["images"]
    assert [image["file_name"] for image in images] == ["1.jpg", "1.png", "2.png"]


def test_a_submission_alone_needs_no_folder(weights: dict[int, Path], tmp_path: Path):
    write_photos(tmp_path, ["a.png"])
    assert command(weights[2], tmp_path / "a.png", "--rle", tmp_path / "s.csv") == 0
    assert listed(tmp_path) == ["a.png", "s.csv"]


@pytest.mark.parametrize("how", [("--tile", "8x12"), ("--size", "native", "--flips", "hv")])
def test_images_of_many_sizes_in_any_batches(
    weights: dict[int, Path], how: Sequence[str], tmp_path: Path
):
    """Sizes wait for others of their own; nothing gets lost, or another's mask."""
    sizes = [(20, 30), (16, 24), (20, 30), (18, 10), (20, 30), (16, 24), (9, 9)]
    for seed, size in enumerate(sizes):
        Image.fromarray(photo(seed, size)).save(tmp_path / f"{seed}.png")
    paths = [tmp_path / f"{seed}.png" for seed in range(7)]
    assert command(weights[2], *paths, "--out", tmp_path / "out", *how) == 0
    settings = {"tile": (8, 12)} if how[0] == "--tile" else {"size": "native", "flips": "hv"}
    predictor = make_predictor()
    for seed, size in enumerate(sizes):
        expected = predictor.predict(photo(seed, size), **settings).mask  # type: ignore[arg-type]
        np.testing.assert_array_equal(pixels(tmp_path / f"out/{seed}_mask.png"), expected)


@pytest.mark.parametrize(
    ("photos", "flags", "batches"),
    [
        (5, (), [(2, 16, 24)] * 3),
        (1, (), [(1, 16, 24)]),
        (2, ("--batch-size", "8"), [(2, 16, 24)]),
        (5, ("--size", "native"), [(2, 20, 30)] * 2 + [(1, 20, 30)]),
    ],
    ids=["last-is-filled", "one", "fewer-than-a-batch", "native"],
)
def test_batches_have_one_size_and_no_more_copies_than_that_takes(
    photos: int,
    flags: Sequence[str],
    batches: list[tuple[int, ...]],
    weights: dict[int, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    shapes, run = [], Predictor.run

    def spy(self: Predictor, images: np.ndarray, flips: str) -> np.ndarray:
        shapes.append(images.shape[:3])
        return run(self, images, flips)

    monkeypatch.setattr(Predictor, "run", spy)
    write_photos(tmp_path, [f"{n}.png" for n in range(photos)])
    assert command(weights[2], f"{tmp_path}/*.png", "--out", tmp_path / "out", *flags) == 0
    assert shapes == batches


# What goes wrong.


def test_broken_files_are_named_and_the_others_done(
    weights: dict[int, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    write_photos(tmp_path / "in", ["a.png", "c.png", "e.jpg"])
    whole = (tmp_path / "in/c.png").read_bytes()
    (tmp_path / "in/b.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "in/d.jpg").write_bytes(b"")
    args = (tmp_path / "in", "--out", tmp_path / "out", "--rle", tmp_path / "s.csv")
    assert command(weights[2], *args) == 1
    assert listed(tmp_path / "out") == ["a_mask.png", "c_mask.png", "e_mask.png"]
    assert len((tmp_path / "s.csv").read_text().splitlines()) == 4
    out, err = capsys.readouterr()
    assert "3 images in" in out
    first, *lines = err.splitlines()
    assert first == "error: 2 of 5 images could not be predicted:"
    assert len(lines) == 2
    assert lines[0].startswith(f"  {tmp_path}/in/b.png: ")
    assert lines[1] == f"  {tmp_path}/in/d.jpg: not an image of any known kind"


def test_every_file_that_fails_is_named(
    weights: dict[int, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    write_photos(tmp_path / "in", ["whole.png"])
    for n in range(30):
        (tmp_path / f"in/{n:02}.png").write_bytes(b"no")
    assert command(weights[2], tmp_path / "in", "--out", tmp_path / "out") == 1
    first, *lines = capsys.readouterr().err.splitlines()
    assert first == "error: 30 of 31 images could not be predicted:"
    reason = "not an image of any known kind"
    assert lines == [f"  {tmp_path}/in/{n:02}.png: {reason}" for n in range(30)]


@pytest.mark.parametrize("how", [("--tile", "8x12"), ("--size", "native")], ids=["tiles", "whole"])
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError("Unable to allocate 9 TiB"), "the machine has too little memory"),
        (
            jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes."),
            "the device has too little memory",
        ),
    ],
    ids=["numpy", "device"],
)
def test_an_image_too_large_for_the_memory_is_named_and_the_others_done(
    how: Sequence[str],
    error: Exception,
    reason: str,
    weights: dict[int, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    bands, run = Predictor.bands, Predictor.run

    def check(height: int) -> None:
        if height == 50:
            raise error

    def short_bands(self: Predictor, image: np.ndarray, *rest: Any) -> Any:
        check(len(image))
        return bands(self, image, *rest)

    def short_run(self: Predictor, images: np.ndarray, flips: str = "none") -> np.ndarray:
        check(images.shape[1])
        return run(self, images, flips)

    monkeypatch.setattr(Predictor, "bands", short_bands)
    monkeypatch.setattr(Predictor, "run", short_run)
    for name, size in (("a", (20, 30)), ("b", (50, 30)), ("c", (20, 30))):
        Image.fromarray(photo(0, size)).save(tmp_path / f"{name}.png")
    paths = [tmp_path / f"{name}.png" for name in "abc"]
    assert command(weights[2], *paths, "--out", tmp_path / "out", *how) == 1
    assert listed(tmp_path / "out") == ["a_mask.png", "c_mask.png"]
    advice = "try a smaller --batch-size, or --tile"
    assert capsys.readouterr().err.splitlines() == [
        "error: 1 of 3 images could not be predicted:",
        f"  {tmp_path}/b.png: {reason}: {advice}",
    ]


def test_another_error_of_the_device_is_no_images_fault(
    weights: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: object) -> None:
        raise jax.errors.JaxRuntimeError("INTERNAL: no such kernel")

    monkeypatch.setattr(Predictor, "run", fail)
    write_photos(tmp_path, ["a.png"])
    with pytest.raises(jax.errors.JaxRuntimeError, match="no such kernel"):
        command(weights[2], tmp_path / "a.png", "--out", tmp_path / "out")


def test_pictures_are_larger_than_pillow_allows_and_still_bounded(
    weights: dict[int, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow refuses twice as many and more.
    write_photos(tmp_path, ["a.png"])  # 600 pixels.
    assert command(weights[2], tmp_path / "a.png", "--out", tmp_path / "out") == 0
    assert Image.MAX_IMAGE_PIXELS == 100
    monkeypatch.setattr(unet_jax.prediction.picture, "LARGEST", 598)
    assert command(weights[2], tmp_path / "a.png", "--out", tmp_path / "out", "--force") == 1
    assert "a.png: Image size (600 pixels) exceeds limit of 598 pixels" in capsys.readouterr().err


def test_debug_shows_where(weights: dict[int, Path], tmp_path: Path):
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(OSError, match="not an image of any known kind"):
        command(weights[2], tmp_path / "a.png", "--out", tmp_path / "out", "--debug")


def test_what_cannot_be_written_is_named(
    weights: dict[int, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    write_photos(tmp_path / "in", ["a.png", "x/b.png"])
    (tmp_path / "out").mkdir()
    (tmp_path / "out/x").write_text("in the way")
    assert command(weights[2], tmp_path / "in", "--out", tmp_path / "out") == 1
    assert re.search(r"in/x/b\.png: .*exists", capsys.readouterr().err)
    assert listed(tmp_path / "out") == ["a_mask.png", "x"]


def test_nothing_is_written_over_unless_forced(
    weights: dict[int, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    write_photos(tmp_path / "in", ["a.png", "b.png"])
    out = tmp_path / "out"
    out.mkdir()
    (out / "b_mask.png").write_text("mine")
    assert command(weights[2], tmp_path / "in", "--out", out) == 2
    assert f"{out}/b_mask.png would be written over; --force does that" in capsys.readouterr().err
    assert listed(out) == ["b_mask.png"]
    (tmp_path / "s.csv").write_text("mine")
    assert command(weights[2], tmp_path / "in", "--rle", tmp_path / "s.csv") == 2
    assert (tmp_path / "s.csv").read_text() == "mine"
    assert command(weights[2], tmp_path / "in", "--out", out, "--force") == 0
    assert pixels(out / "b_mask.png").shape == (20, 30)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("IN", "--out", "OUT", "--save", "mask,maks"), "--save: 'maks' is none of mask, binary"),
        (("IN", "--out", "OUT", "--save", "binary"), "--save binary: needs two classes"),
        (("IN", "--out", "OUT", "--rle", "s.csv"), "--rle: needs two classes, and there are 3"),
        (("IN", "--out", "OUT", "--threshold", "0.4"), "threshold: 0.4 needs two classes"),
        (("IN", "--out", "OUT", "--tile", "8"), "'8' is not a height and a width in pixels"),
        (("IN", "--out", "OUT", "--tile", "1x8"), "tile: 1×8 is too small"),
        (("IN", "--out", "OUT", "--batch-size", "0"), "--batch-size: 0 is less than 1"),
        (("IN", "--out", "IN/a.png"), "a.png is a file; a folder is needed"),
        (("IN", "--out", "IN"), "results would go among the images"),
        (("IN",), "--out DIR"),
        (("--out", "OUT"), "INPUT"),
        (("nowhere.jpg", "--out", "OUT"), "nowhere.jpg: there is no such file or folder"),
        (("OUT", "--out", "OUT/more"), "no images there"),
        (("IN", "--out", "OUT", "--run", "RUN"), "--run RUN or --weights FILE, one of them"),
    ],
)
def test_unusable_arguments_are_refused_in_a_line(
    weights: dict[int, Path],
    args: Sequence[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    write_photos(tmp_path / "IN", ["a.png"])
    (tmp_path / "OUT").mkdir()
    given = [str(tmp_path / a) if a.startswith(("IN", "OUT")) else a for a in args]
    assert command(weights[3], *given) == 2
    err = capsys.readouterr().err
    text = " ".join(re.sub(r"[│╭╮╰╯─]", " ", err).split())
    assert message in text
    assert "Traceback" not in text
    assert listed(tmp_path) == ["IN/a.png"]


def test_ctrl_c_stops_and_leaves_whole_files(
    weights: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    batch = Work.batch

    def interrupted(self: Work, group: list, size: int) -> object:
        if group[0].input.name == "2":
            signal.raise_signal(signal.SIGINT)
        return batch(self, group, size)

    monkeypatch.setattr(Work, "batch", interrupted)
    write_photos(tmp_path / "in", [f"{n}.png" for n in range(6)])
    args = (tmp_path / "in", "--out", tmp_path / "out", "--rle", tmp_path / "s.csv")
    # A job in the background ignores Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert command(weights[2], *args) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert not (tmp_path / "s.csv").exists()
    assert {*listed(tmp_path / "out")} <= {"0_mask.png", "1_mask.png"}


def test_the_script_itself(weights: dict[int, Path], tmp_path: Path):
    write_photos(tmp_path, ["a.png"])
    (tmp_path / "b.png").write_bytes(b"no")
    line = [sys.executable, str(ROOT / "scripts/predict.py"), "--weights", str(weights[2])]
    line += [str(tmp_path / "a.png"), str(tmp_path / "b.png"), "--out", str(tmp_path / "out")]
    done = subprocess.run(line, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: 1 of 2 images could not be predicted:",
        f"  {tmp_path}/b.png: not an image of any known kind",
    ]
    assert len(done.stdout.splitlines()) == 2
    assert listed(tmp_path / "out") == ["a_mask.png"]


# Which images, and what their results are called.


def names(places: Sequence[object], out: Path | None = None) -> dict[str, str]:
    """Each input's name, and the file's."""
    return {i.name: i.path.name for i in find_inputs([str(place) for place in places], out)}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("a.jpg", "x/a.jpg", "x/b.PNG", "y/a.jpg", "y/z/c.tif", "y/notes.txt", ".h/d.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    return tmp_path


def test_names_are_paths_below_what_was_given(tree: Path):
    assert [*names([tree])] == ["a", "x/a", "x/b", "y/a", "y/z/c"]
    assert [*names([tree / "x"])] == ["a", "b"]
    assert [*names([tree / "x" / "a.jpg"])] == ["a"]
    assert [*names([tree / "x", tree / "y"])] == ["x/a", "x/b", "y/a", "y/z/c"]
    assert [*names([tree / "x/a.jpg", tree / "y/a.jpg"])] == ["x/a", "y/a"]
    assert [*names([tree / "*/a.jpg"])] == ["x/a", "y/a"]
    assert [*names([tree / "**/*.jpg"])] == ["a", "x/a", "y/a"]
    assert [*names([tree / "y/*"])] == ["a", "z/c"]


def test_each_file_is_taken_once(tree: Path):
    assert [*names([tree / "x/a.jpg", tree / "x", f"{tree}/x/*.jpg"])] == ["a", "b"]


def test_the_suffix_tells_apart_what_the_stem_does_not(tree: Path):
    (tree / "x/a.png").touch()
    found = names([tree / "x"])
    assert found == {"a.jpg": "a.jpg", "a.png": "a.png", "b": "b.PNG"}


def test_no_two_results_have_one_name(tmp_path: Path):
    """`1.jpg` keeps its suffix for the sake of `1.png`; then `1.jpg.png` has to, too."""
    for name in ("1.jpg", "1.png", "1.jpg.png", "2.png"):
        (tmp_path / name).touch()
    found = {"1.jpg": "1.jpg", "1.png": "1.png", "1.jpg.png": "1.jpg.png", "2": "2.png"}
    assert names([tmp_path]) == found


def test_links_that_lead_back_are_followed_once(tree: Path):
    (tree / "x/up").symlink_to(tree)
    (tree / "y/z/across").symlink_to(tree / "x")
    assert [*names([tree])] == ["a", "x/a", "x/b", "y/a", "y/z/c"]
    assert [*names([tree / "**/*.*"])] == ["a", "x/a", "x/b", "y/a", "y/z/c"]
    assert [*names([tree / "y"])] == ["a", "z/c", "z/across/a", "z/across/b", "z/across/up/a"]


def test_results_are_no_inputs(tree: Path):
    assert [*names([tree], tree / "y")] == ["a", "x/a", "x/b"]
    assert [*names([tree / "**/*.*"], tree / "y")] == ["a", "x/a", "x/b"]
    assert [*names([tree / "x"], tree)] == ["a", "b"]
    with pytest.raises(DataError, match="among the images"):
        names([tree], tree)


def test_a_file_is_taken_whatever_its_suffix(tree: Path):
    assert [*names([tree / "y/notes.txt"])] == ["notes"]


# Memory.


def test_work_ahead_is_in_order_and_bounded():
    lock, under_way, most = threading.Lock(), [0], [0]

    def work(n: int) -> int:
        with lock:
            under_way[0] += 1
            most[0] = max(most[0], under_way[0])
        time.sleep(0.001 * (n % 3))
        with lock:
            under_way[0] -= 1
        return n

    taken = []

    def items():
        for n in range(50):
            taken.append(n)
            yield n

    for n in ahead(items(), work, lambda n: 10, threads=4, budget=30, most=8):
        assert n == len(taken) - 4 or len(taken) == 50  # Three under way, one in hand.
    assert most[0] <= 3
    heavy = ahead(range(5), work, lambda n: 100, threads=4, budget=30, most=8)
    assert [*heavy] == [0, 1, 2, 3, 4]


def test_what_fails_in_a_thread_is_raised_here():
    def work(n: int) -> int:
        return 1 // n

    with pytest.raises(ZeroDivisionError):
        list(ahead([1, 0, 2], work, lambda n: 1, threads=2, budget=10, most=2))


def test_memory_stays_flat_over_many_images(weights: dict[int, Path], tmp_path: Path):
    """Images together are 300 times 240 KB, 72 MB of pixels; what is under way is a handful. The
    second half may add fragmentation and pytest's own, but no share of 36 MB."""
    image = Image.fromarray(photo(0, (200, 400)))
    for n in range(300):
        image.save(tmp_path / f"{n:03}.jpg")
    process, seen = psutil.Process(), []
    advance = unet_jax.prediction.work.Progress.advance

    def spy(self: object, *args: object) -> None:
        seen.append(process.memory_info().rss)
        advance(self, *args)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unet_jax.prediction.work.Progress, "advance", spy)
        assert command(weights[2], tmp_path, "--out", tmp_path / "out") == 0
    assert len(seen) == 300
    assert max(seen[150:]) - max(seen[:150]) < 12e6
    assert max(seen) - min(seen) < 60e6

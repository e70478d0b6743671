"""The page that compares runs: what it says of each, and of folders that hold none."""

import html
import json
import os
import re
import runpy
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from unet_jax.comparison import PAGE, refresh, write_page
from unet_jax.config import Config, DataConfig, ModelConfig, OptimConfig, dump
from unet_jax.launch import Launch
from unet_jax.run import Run
from unet_jax.train import compared

ROOT = Path(__file__).parents[1]
EVIL = "<img src=x onerror=alert(1)> & 100% #1?"
DICE = (0.25, 0.75, 0.5)
SUMMARY = {
    "wall_seconds": 251.4,
    "images_per_second": 17.46,
    "framework": "jax",
    "device": "gpu: NVIDIA <H200>",
    "finished": "2031-05-17T18:19:20+0200",
}


def record(epoch: int, dice: float) -> dict[str, Any]:
    scores = {"dice": dice, "iou": dice / 2, "accuracy": 0.9 + dice / 20, "val_loss": 1 - dice}
    return {"epoch": epoch, "step": 9 * epoch, "train_loss": 0.5, **scores, "seconds": 1.0}


def make_run(
    folder: Path,
    config: Config | None = None,
    dice: tuple[float, ...] = DICE,
    summary: dict[str, Any] | None = SUMMARY,
    pictures: tuple[str, ...] = ("epoch_001.png",),
) -> Path:
    """A run's folder, without what the page does not look at."""
    (folder / "predictions").mkdir(parents=True)
    (folder / "config.yaml").write_text(dump(config or Config()))
    lines = [json.dumps(record(n, value)) + "\n" for n, value in enumerate(dice, 1)]
    (folder / "metrics.jsonl").write_text("".join(lines))
    if summary is not None:
        (folder / "summary.json").write_text(json.dumps(summary))
    for name in pictures:
        (folder / "predictions" / name).touch()
    return folder


class Page(HTMLParser):
    """A page's texts, tables, links and elements; fails if an element is not closed.

    Attributes:
      rows: The cells of each row of each table.
      links: What is linked to or shown.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.links: list[str] = []
        self.elements: set[str] = set()
        self.attributes: set[str] = set()
        self.open: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links += [str(value) for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data

    def charts(self) -> list[str]:
        return re.findall(r"<svg [^>]*xmlns:xlink.*?</svg>", self.source, re.DOTALL)


def compare(folder: Path) -> Page:
    assert write_page(folder) == folder / PAGE
    return Page(folder / PAGE)


# What it says.


def test_a_row_says_what_a_run_reached(tmp_path: Path):
    make_run(tmp_path / "one")
    page = compare(tmp_path)
    headings, row = page.rows
    assert dict(zip(headings, row, strict=True)) == {
        "run": "one",
        "best epoch": "2 of 3",
        "Dice": "0.7500",
        "IoU": "0.3750",
        "accuracy": "0.9375",
        "val loss": "0.2500",
        "wall time": "4 min 11 s",
        "images/s": "17.5",
        "device": "jax, gpu: NVIDIA <H200>",
        "ended": "2031-05-17 18:19",
    }
    assert "<h2>shapes</h2>" in page.source


def test_what_a_run_writes_can_be_read(tmp_path: Path):
    run = Run(tmp_path / "runs" / "real", Config(), Launch(), resume=False)
    panel = Image.fromarray(np.zeros((4, 4, 3), np.uint8))
    run.epoch(record(1, 0.5), panel)
    assert (tmp_path / "runs" / PAGE).exists()  # After every epoch.
    unfinished = Page(tmp_path / "runs" / PAGE).rows[1]
    run.summary({**SUMMARY, "parameters": 7})
    run.close()
    page = compare(tmp_path / "runs")
    assert page.rows[1][:6] == ["real", "1 of 1", "0.5000", "0.2500", "0.9250", "0.5000"]
    assert page.rows[1][6:8] == ["4 min 11 s", "17.5"]
    assert unfinished[:6] == page.rows[1][:6]
    assert unfinished[6:9] == ["unfinished", "–", ""]
    assert {"real/predictions/epoch_001.png", "real/curves.png"} <= set(page.links)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (59.4, "59 s"),
        (60, "1 min 0 s"),
        (599, "9 min 59 s"),
        (3599, "1 h 0 min"),
        (9000, "2 h 30 min"),
    ],
)
def test_durations(seconds: float, expected: str, tmp_path: Path):
    make_run(tmp_path / "one", summary={**SUMMARY, "wall_seconds": seconds})
    assert compare(tmp_path).rows[1][6] == expected


@pytest.mark.parametrize(
    ("best", "epoch"), [("dice", 2), ("val_loss", 3), ("boundary_f", 1), ("of another version", 2)]
)
def test_the_best_epoch_is_the_one_by_the_run_s_own_score(best: str, epoch: int, tmp_path: Path):
    run = make_run(tmp_path / "one")
    text = dump(Config()).replace("best: dice", f"best: {best}")
    assert f"best: {best}" in text
    (run / "config.yaml").write_text(text)
    records = [
        record(n, dice) | {"val_loss": loss, "boundary_f": 1 / n}
        for n, dice, loss in zip((1, 2, 3), DICE, (0.75, 0.5, 0.25), strict=True)
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in records))
    make_run(tmp_path / "two")
    page = compare(tmp_path)
    headings, *rows = page.rows
    [row] = [row for row in rows[:2] if row[0] == "one"]
    assert row[1] == f"{epoch} of 3"
    assert ("boundary F" in headings) == (best == "boundary_f")
    if best == "boundary_f":
        column = headings.index("boundary F")
        assert {row[0]: row[column] for row in rows[:2]} == {"one": "1.0000", "two": "–"}


@pytest.mark.parametrize(
    ("dice", "epoch"), [((0.25, float("nan"), 0.125), 1), ((0.5, 0.5, 0.25), 2)]
)
def test_the_last_of_equal_epochs_is_best_and_none_without_a_number(dice, epoch, tmp_path: Path):
    make_run(tmp_path / "one", dice=dice)
    assert compare(tmp_path).rows[1][1] == f"{epoch} of 3"


def test_the_best_run_comes_first_and_its_scores_are_bold(tmp_path: Path):
    for name, dice in (("a", 0.5), ("b", 0.75), ("c", 0.25)):
        make_run(tmp_path / name, dice=(dice,))
    page = compare(tmp_path)
    assert [row[0] for row in page.rows[1:]] == ["b", "a", "c"]
    assert re.findall("<b>(.*?)</b>", page.source) == ["0.7500", "0.3750", "0.9375", "0.2500"]


def test_only_the_settings_that_differ_are_shown(tmp_path: Path):
    first = Config(data=DataConfig(prepared_dir=Path("/a"), size=(32, 48)))
    second = Config(
        data=DataConfig(prepared_dir=Path("/b"), size=(64, 48)),
        model=ModelConfig(channels=(16, 32)),
        optim=OptimConfig(learning_rate=0.125),
    )
    make_run(tmp_path / "first", first, dice=(0.5,))
    make_run(tmp_path / "second", second, dice=(0.25,))
    headings, *rows = compare(tmp_path).rows[3:]
    assert headings == ["settings that differ", "size", "channels", "learning_rate"]
    assert rows == [
        ["first", "32 48", "64 128 256 512", "0.001"],
        ["second", "64 48", "16 32", "0.125"],
    ]


def test_runs_of_other_versions_are_compared(tmp_path: Path):
    make_run(tmp_path / "now", dice=(0.5,))
    other = make_run(tmp_path / "then", dice=(0.25,)) / "config.yaml"
    other.write_text(other.read_text().replace("seed: 0}", "seed: 0, friction: 0.5}"))
    assert "friction" in other.read_text()
    assert compare(tmp_path).rows[3:] == [
        ["settings that differ", "friction"],
        ["now", "–"],
        ["then", "0.5"],
    ]


def test_each_data_set_has_a_section(tmp_path: Path):
    make_run(tmp_path / "a", dice=(0.5,))
    make_run(tmp_path / "b", Config(data=DataConfig(dataset="carvana")), dice=(0.25,))
    page = compare(tmp_path)
    assert re.findall("<h2>(.*?)</h2>", page.source) == ["carvana", "shapes"]
    assert len(page.rows) == 4  # No settings are compared across data sets.
    assert len(page.charts()) == 2 * 4
    (make_run(tmp_path / "c") / "config.yaml").write_text("train: {epochs: 3}")
    assert len(compare(tmp_path).rows) == 6


@pytest.mark.parametrize("runs", [1, 12])
def test_every_run_has_a_line_of_its_own_in_each_chart(runs: int, tmp_path: Path):
    for n in range(runs):
        make_run(tmp_path / f"run {n:02}", dice=(0.25 + n / 100, 0.5))
    page = compare(tmp_path)
    keys = re.findall(r'<path d="M0 5H26" stroke="(.*?)" .*?stroke-dasharray="(.*?)"', page.source)
    assert len(set(keys)) == runs
    assert len(page.charts()) == 4
    for chart in page.charts():
        lines = re.findall(r'style="fill: none; (stroke-dasharray[^"]*?)?stroke: (#\w+)', chart)
        assert len([line for line in lines if line[1] in dict(keys)]) >= runs
    assert "currentColor" in page.charts()[0]
    assert "#010203" not in page.source


def test_the_last_picture_is_shown_and_links_lead_somewhere(tmp_path: Path):
    run = make_run(tmp_path / EVIL, pictures=("epoch_999.png", "epoch_1000.png", "epoch_002.png"))
    (run / "confusion.png").touch()
    page = compare(tmp_path)
    links = [link for link in page.links if not link.startswith("#")]
    assert {Path(unquote(link)).name for link in links} == {EVIL, "epoch_1000.png", "confusion.png"}
    for link in links:
        assert (tmp_path / unquote(link)).exists()
        assert not set(link) & set("<>&#? ")


def test_whatever_is_written_in_a_run_is_text(tmp_path: Path):
    make_run(tmp_path / "a", summary={**SUMMARY, "device": EVIL, "finished": EVIL})
    text = dump(Config()).replace("residual", json.dumps(EVIL))
    (make_run(tmp_path / EVIL) / "config.yaml").write_text(text)
    (make_run(tmp_path / "b") / "metrics.jsonl").write_text(json.dumps([EVIL]) + "\n")
    page = compare(tmp_path)
    assert EVIL in {cell for row in page.rows for cell in row}
    assert html.escape(EVIL) in page.source
    assert page.source.count("<img") == 2  # The pictures of the two runs.
    assert not {"script", "iframe", "object", "link"} & page.elements
    assert not {name for name in page.attributes if name.startswith("on")}


def test_nothing_is_fetched_from_elsewhere(tmp_path: Path):
    make_run(tmp_path / "a")
    page = compare(tmp_path)
    addresses = re.findall(
        r'(?<!xmlns=")(?<!xmlns:xlink=")https?://|url\((?!#)|@import', page.source
    )
    assert addresses == []


# What cannot be read.


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("config.yaml", None, "no config.yaml"),
        ("config.yaml", b"data: [", "config.yaml: while parsing"),
        ("config.yaml", b"- 1", "config.yaml: : Input should be a valid dictionary"),
        ("config.yaml", b"\xff\xfe\x00", "config.yaml: "),
        ("metrics.jsonl", None, "no metrics.jsonl"),
        ("metrics.jsonl", b"", "no epoch is finished"),
        ("metrics.jsonl", b'{"epoch": 1, "di', "no epoch is finished"),
        ("metrics.jsonl", b"half\n", "metrics.jsonl: Expecting value"),
        ("metrics.jsonl", b'{"epoch": 1}\n', "metrics.jsonl: 0.dice: Field required"),
        ("summary.json", b"", "summary.json: Expecting value"),
        ("summary.json", b'{"wall_seconds": "long"}', "summary.json: wall_seconds: Input should"),
    ],
)
def test_a_damaged_run_is_left_out_and_named(name, content, reason, tmp_path: Path):
    make_run(tmp_path / "whole")
    damaged = make_run(tmp_path / "damaged & torn") / name
    damaged.unlink() if content is None else damaged.write_bytes(content)
    page = compare(tmp_path)
    assert [row[0] for row in page.rows] == ["run", "whole"]
    [line] = re.findall("<li>(.*?)</li>", page.source)
    assert html.unescape(line).startswith(f"damaged & torn: {reason}")


def test_half_a_line_is_an_epoch_that_comes_again(tmp_path: Path):
    path = make_run(tmp_path / "a") / "metrics.jsonl"
    path.write_text(path.read_text() + '{"epoch": 4, "dice": 0.9')
    assert compare(tmp_path).rows[1][1] == "2 of 3"


def test_other_files_and_folders_are_passed_over(tmp_path: Path):
    make_run(tmp_path / "a")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes.txt").touch()
    page = compare(tmp_path)
    assert len(page.rows) == 2
    assert "notes" not in page.source


def test_without_runs_the_page_is_empty(tmp_path: Path):
    assert compare(tmp_path).rows == []


# When it is written.


def test_the_page_is_refreshed_beside_runs_by_default(tmp_path: Path):
    run = make_run(tmp_path / "runs" / "a")
    page = refresh(run)
    assert page is not None
    assert page.samefile(tmp_path / "runs" / PAGE)
    make_run(tmp_path / "runs" / "b")
    refresh(run)
    assert {row[0] for row in Page(page).rows} == {"run", "a", "b"}
    assert sorted(os.listdir(tmp_path / "runs")) == ["a", "b", PAGE]


def test_a_page_that_is_fresh_enough_is_left_alone(tmp_path: Path):
    run = make_run(tmp_path / "runs" / "a")
    page = refresh(run, patience=60)
    assert page is not None
    written = page.stat().st_mtime
    assert refresh(run, patience=60) is None
    os.utime(page, (written - 61, written - 61))
    assert refresh(run, patience=60) is not None
    assert page.stat().st_mtime >= written


def test_elsewhere_a_page_is_kept_fresh_but_not_begun(tmp_path: Path):
    run = make_run(tmp_path / "a")
    assert refresh(run) is None
    assert not (tmp_path / PAGE).exists()
    write_page(tmp_path)
    make_run(tmp_path / "b")
    assert refresh(run) is not None
    assert len(Page(tmp_path / PAGE).rows) == 3


def test_a_page_of_somebody_elses_is_left_alone(tmp_path: Path):
    run = make_run(tmp_path / "runs" / "a")
    page = run.parent / PAGE
    page.write_bytes(b"<h1>mine \xff</h1>")
    assert refresh(run) is None
    with pytest.raises(ValueError, match=r"index.html is another page; move it away"):
        write_page(run.parent)
    assert page.read_bytes() == b"<h1>mine \xff</h1>"


def test_a_page_that_cannot_be_written_ends_no_run(tmp_path: Path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError("no space")

    monkeypatch.setattr("unet_jax.comparison.write_page", full)
    run = Run(tmp_path / "runs" / "real", Config(), Launch(), resume=False)
    run.epoch(record(1, 0.5), Image.fromarray(np.zeros((4, 4, 3), np.uint8)))
    run.close()
    assert compared(run.workdir) == "; not compared with other runs: no space"


def script(monkeypatch: pytest.MonkeyPatch, *args: str) -> Any:
    monkeypatch.setattr(sys, "argv", ["compare_runs.py", *args])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROOT / "scripts/compare_runs.py"), run_name="__main__")
    return stop.value.code


def test_the_script_writes_the_page_and_says_where(tmp_path, monkeypatch, capsys):
    make_run(tmp_path / "runs" / "a")
    monkeypatch.chdir(tmp_path)
    assert script(monkeypatch) == 0
    assert capsys.readouterr().out == f"{Path('runs', PAGE)}\n"
    assert len(Page(tmp_path / "runs" / PAGE).rows) == 2


def test_the_script_names_a_folder_that_does_not_exist(tmp_path, monkeypatch, capsys):
    assert script(monkeypatch, str(tmp_path / "absent")) == 2
    assert capsys.readouterr().err == f"error: {tmp_path / 'absent'}: no such folder\n"

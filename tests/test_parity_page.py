"""The parity report for people: what its page and its Markdown file say, of whatever report."""

import json
import math
import os
import re
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest
from parity_reports import EVIL, full_report, make_report, make_row, make_rows

from parity.pages.findings import number, percent, share, size
from parity.pages.markdown import markdown
from parity.pages.page import page, write_page
from parity.pages.plots import by_layer, layers

VOID = ("meta", "img", "br")


class Page(HTMLParser):
    """A page's text, cells and elements; fails if an element is not closed.

    Attributes:
      text: All that is shown, but for plots.
      headings: Texts of h1 to h3.
      rows: The cells of each row of each table.
      elements: Each element and its attributes.
    """

    def __init__(self, source: str) -> None:
        super().__init__()
        self.text = ""
        self.headings: list[str] = []
        self.rows: list[list[str]] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(source)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag in ("h1", "h2", "h3"):
            self.headings.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"style", "svg"} & set(self.open):
            return
        self.text += data
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data
        if {"h1", "h2", "h3"} & set(self.open):
            self.headings[-1] += data

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def columns(text: str) -> list[list[int]]:
    """How many cells each line of each Markdown table has."""
    tables, before = [], False
    for line in text.splitlines():
        is_row = line.startswith("|")
        if is_row:
            if not before:
                tables.append([])
            tables[-1].append(len(re.findall(r"(?<!\\)\|", line)) - 1)
        before = is_row
    return tables


def red_report() -> dict:
    """A report in which one layer differs, and a gradient that follows from it."""
    rows = make_rows()
    for place, row in enumerate(rows):
        if (row["case"], row["stage"], row["name"]) in (
            ("case 1", "eval", "encoder_2/conv_1"),
            ("case 1", "gradients", "encoder_3/conv_2"),
        ):
            rows[place] = make_row(**{**row, "error": 3.5e-4})
    return make_report(rows, command="python -m parity")


# What it says.


def test_a_page_has_every_part_of_a_full_report():
    found = Page(page(full_report(), {"prediction_jax.png": b"\x89PNG"}))
    assert found.headings == [
        "✓ The same model in JAX and in PyTorch",
        "What is compared",
        "The worst tensor of each stage",
        "Everything else of a training",
        "Error by layer",
        "The other configurations",
        "Training",
        "A prediction from each",
        "Can the comparison fail?",
        "A third opinion",
        "Where it ran",
    ]
    for said in (
        "90 tensors",
        "2 configurations of the network and 3 other components",
        "relative error of 1e-15 where 1e-12 is allowed: the two agree to 15 digits",
        "python -m parity --level full",
        "A network of another library agrees to 1e-6.",
        "2 of 3 were noticed (67 %)",
        "184 s",
    ):
        assert said in found.text, said
    assert ["jax ran on", "TFRT_CPU_0"] in found.rows
    assert ["jax", "0.10.2"] in found.rows
    assert ["no fault at all", "loss", "✗ no", "–", "mean loss"] in found.rows
    assert ["loss: dice", "1e-15 0.1 %", "2e-7 20 %"] in found.rows
    [picture] = found.attributes("img")
    assert picture == {"src": "data:image/png;base64,iVBORw==", "alt": "Prediction: JAX"}
    # Outputs, gradients, one small plot, losses.
    assert sum("role" in each for each in found.attributes("svg")) == 4


def test_what_is_missing_leaves_no_trace():
    least = {"passed": True, "rows": make_rows(1), "versions": {}, "device": {}}
    found = Page(page(least, {}))
    assert found.headings == [
        "✓ The same model in JAX and in PyTorch",
        "What is compared",
        "The worst tensor of each stage",
        "Error by layer",
        "Where it ran",
    ]
    assert "To repeat it" not in found.text
    assert found.attributes("img") == []
    assert re.findall("^## .*", markdown(least), re.MULTILINE) == [
        "## Worst tensor of each stage",
        "## Where it ran",
    ]


@pytest.mark.parametrize("stage", ["loss: dice", "eval"])
def test_a_report_of_one_row_is_a_page(stage: str):
    row = make_row("one", "float64", stage, "value")
    text = Page(page(make_report([row]), {})).text
    assert "1 tensor from 1" in text
    assert "1e-15 0.1 %" in text


def test_a_report_of_no_rows_is_a_page():
    assert "0 tensors" in Page(page(make_report([]), {})).text
    assert "0 tensors" in markdown(make_report([]))


def test_a_failure_comes_first_with_what_to_do():
    report = red_report()
    found, text = Page(page(report, {})), markdown(report)
    assert found.headings[:2] == ["✗ The JAX and the PyTorch program differ", "What differs first"]
    for said in (
        "4 of them are further apart than their limit allows",
        "encoder_2/conv_1, outputs, eval, in the configuration “case 1”, computed in float64: "
        "relative error 3.5e-4, where 1e-12 is allowed",
        "Look at what this layer computes in unet_jax/models",
        "The last to agree before it is encoder_1/conv_2.",
    ):
        assert said in found.text, said
    assert "`encoder_2/conv_1` (case 1, float64, eval): relative error 3.5e-4, limit 1e-12" in text
    failed = [row[0] for row in found.rows if "✗ 3.5e-4 ≫ 100 %" in row]
    assert failed == ["case 1", "case 1"]  # In float64 and in float32.
    assert "Outputs of “case 1”" in page(report, {})  # By name, though case 0 has as many layers.


def test_curves_that_part_are_a_failure_of_no_tensor():
    report = make_report(passed=False, loss_gaps={"float64": 2.5e-9})
    for text in (Page(page(report, {})).text, markdown(report)):
        assert "Each is within its limit, but another check failed" in text
        assert "While training in float64 the losses part by up to 2.5e-9." in text.replace(
            "\\", ""
        )
    assert "What differs first" not in page(report, {})


@pytest.mark.parametrize("error", [math.nan, math.inf, None, 1e300])
@pytest.mark.filterwarnings("error")
def test_errors_that_are_no_numbers_fail_and_are_drawn(error: float | None, tmp_path: Path):
    row = make_row("case 0", "float64", "eval", "encoder_0") | {"error": error, "passed": False}
    report = make_report([*make_rows(1), row], losses={"float64": {"jax": [1.0], "torch": [error]}})
    (tmp_path / "report.json").write_text(json.dumps(report))
    source = write_page(tmp_path).read_text(encoding="utf-8")
    found = Page(source)
    shown = "1e300" if error == 1e300 else "∞"
    assert f"relative error {shown}" in found.text
    assert f"✗ {shown} ≫ 100 %" in {cell for row in found.rows for cell in row}
    assert "nan" not in found.text.lower()
    assert "#d6302b" in source[source.index("<svg") :]  # The red ×.


def test_what_fails_by_its_ulps_is_reported_by_them():
    row = make_row("case 0", "float32", "eval", "encoder_0", ulps=9.0, ulps_limit=6.0)
    report = make_report([*make_rows(1), row | {"passed": False}])
    text = Page(page(report, {})).text
    assert "ULPs 9e0, where 6e0 is allowed" in text
    assert "ULPs 9e0, limit 6e0" in markdown(report).replace("\\", "")
    assert "✗ ULPs 150 %" in {cell for row in Page(page(report, {})).rows for cell in row}


@pytest.mark.parametrize(
    ("error", "limit", "expected"),
    [(0.0, 0.0, 0.0), (1e-20, 0.0, math.inf), (0.5, 2.0, 0.25), (math.nan, 1.0, math.inf)],
)
def test_share_of_a_limit(error: float, limit: float, expected: float):
    assert share({"error": error, "limit": limit}) == expected
    assert not math.isnan(number(error))


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, "0"), (2.14e-14, "2.1e-14"), (2e-7, "2e-7"), (1.0, "1e0"), (math.inf, "∞")],
)
def test_errors_are_short(value: float, expected: str):
    assert size(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, "0 %"), (0.0042, "0.4 %"), (0.37, "37 %"), (1, "100 %"), (9.9, "990 %"), (10, "≫ 100 %")],
)
def test_percentages_are_short(value: float, expected: str):
    assert percent(value) == expected


def test_gradients_come_in_the_order_in_which_layers_run():
    names = ["encoder_0/conv", "upsample_0", "decoder_0/conv"]
    rows = [make_row("one", "float64", "eval", name) for name in names]
    made = ("encoder_0/conv/bias", "decoder_0/conv/kernel", "elsewhere", "upsample_0/kernel")
    rows += [make_row("one", "float64", "gradients", name) for name in made]
    assert [row["name"] for row in layers(rows, "one", "gradients")] == [
        "encoder_0/conv/bias",
        "upsample_0/kernel",
        "decoder_0/conv/kernel",
        "elsewhere",
    ]


def test_of_many_layers_blocks_are_named_and_the_first_that_fails():
    names = [f"encoder_{block}/conv_{n}" for block in range(9) for n in range(9)]
    rows = [make_row("one", "float64", "eval", name) for name in names]
    rows[40] = make_row("one", "float64", "eval", names[40], error=1.0)
    drawn = re.findall(r"<text[^>]*>(encoder[^<]*)</text>", by_layer(rows, "Outputs"))
    assert sorted(drawn) == sorted([f"encoder_{block}" for block in range(9)] + [names[40]])


# Whatever is in it.


def evil_report() -> dict:
    row = make_row(EVIL, "float64", "eval", EVIL) | {"error": 1.0, "passed": False}
    fault = {"name": EVIL, "component": EVIL, "killed": False, "named": EVIL, "expected": EVIL}
    return make_report(
        [row, row | {"precision": EVIL, "stage": EVIL}],
        versions={EVIL: EVIL},
        device={EVIL: EVIL},
        command=EVIL,
        level=EVIL,
        third_opinion=EVIL,
        mutations=[fault],
        loss_gaps={EVIL: 1.0},
        losses={EVIL: {"jax": [1.0, 2.0], "torch": [1.0, 2.0]}},
        pictures=[EVIL],
    )


def test_whatever_is_named_in_a_report_is_text():
    source = page(evil_report(), {EVIL: b"1"})
    found = Page(source)
    assert [EVIL, EVIL] in [row for row in found.rows if len(row) == 2]
    assert [EVIL, EVIL, "✗ no", EVIL, EVIL] in found.rows
    assert len(found.attributes("img")) == 1
    assert not {"script", "iframe", "object", "link", "a"} & {tag for tag, _ in found.elements}
    names = {name for _, attributes in found.elements for name in attributes}
    assert not {name for name in names if name.startswith("on")}


@pytest.mark.parametrize("report", [full_report(), red_report(), evil_report()])
def test_markdown_tables_have_as_many_cells_as_headings(report: dict):
    tables = columns(markdown(report))
    assert len(tables) >= 3
    for table in tables:
        assert len(table) >= 3
        assert len(set(table)) == 1


@pytest.mark.parametrize("report", [full_report(), red_report(), evil_report()])
def test_nothing_is_fetched_from_elsewhere(report: dict):
    source = page(report, {"prediction_jax.png": b"1"})
    shown = re.sub(r'xmlns(:xlink)?="[^"]*"', "", source)
    assert re.findall(r"https?://|url\((?!#)|@import", shown) == []
    found = Page(source)
    for _, attributes in found.elements:
        assert str(attributes.get("src", "data:")).startswith("data:")
        assert str(attributes.get("xlink:href", "#")).startswith("#")


def test_a_page_can_be_read_out_and_names_nothing_twice():
    found = Page(page(full_report(), {"prediction_jax.png": b"1"}))
    for tag, attributes in found.elements:
        if tag == "th":
            assert attributes["scope"] in ("row", "col")
        if tag == "img":
            assert attributes["alt"]
        if tag == "svg":
            assert attributes.get("aria-label") or attributes.get("aria-hidden")
    ids = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_a_big_report_is_a_small_page_soon():
    rows = make_rows(cases=100, layers=10)
    rows += [row for row in make_rows(cases=1, layers=200) if row["stage"] in ("eval", "gradients")]
    assert len(rows) > 10_000
    report = make_report(rows)
    begun = time.process_time()
    source = page(report, {})
    # It takes 3 s of processor time; a page drawn in full for each case, minutes.
    assert time.process_time() - begun < 30
    assert len(source) < 1_000_000
    assert f"{len(rows):,} tensors" in source


# Where it goes.


def test_the_page_is_written_beside_the_report(tmp_path: Path):
    report = full_report()
    (tmp_path / "report.json").write_text(json.dumps(report))
    (tmp_path / "prediction_torch.png").write_bytes(b"1")
    assert write_page(tmp_path) == tmp_path / "report.html"
    assert (tmp_path / "report.md").read_text(encoding="utf-8") == markdown(report)
    found = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert [each["alt"] for each in found.attributes("img")] == ["Prediction: PyTorch"]
    names = ["prediction_torch.png", "report.html", "report.json", "report.md"]
    assert sorted(os.listdir(tmp_path)) == names


def test_pictures_elsewhere_are_not_taken(tmp_path: Path):
    (tmp_path / "secret.png").write_bytes(b"1")
    folder = tmp_path / "report"
    folder.mkdir()
    report = make_report([], pictures=["../secret.png", str(tmp_path / "secret.png")])
    (folder / "report.json").write_text(json.dumps(report))
    assert "<img" not in write_page(folder).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file"),
        ("{", "Expecting property name"),
        ("{}", "holds no parity report: no passed and no rows"),
        ("[]", "holds no parity report: no passed and no rows"),
    ],
)
def test_what_is_no_report_is_named(content: str | None, reason: str, tmp_path: Path):
    if content is not None:
        (tmp_path / "report.json").write_text(content)
    with pytest.raises(ValueError, match=rf"report.json.*{reason}"):
        write_page(tmp_path)
    assert [name for name in os.listdir(tmp_path) if name != "report.json"] == []

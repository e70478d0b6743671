"""A parity report as a page for people: `report.html`, which needs nothing beside it."""

import base64
import json
import re
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from parity.pages.findings import (
    EPSILON,
    STAGES,
    Report,
    advice,
    distinct,
    grouped,
    headline,
    lead,
    measure,
    networks,
    numbers,
    other_failures,
    percent,
    share,
    size,
)
from parity.pages.markdown import markdown
from parity.pages.plots import by_layer, colour, layers, losses, shown_case, small
from parity.pages.style import STYLE
from parity.pages.tables import LISTED, summary, tensors
from unet_jax.draft import draft
from unet_jax.page import document, key, table

PANELS = 24
"""Configurations that have a plot of their own."""


def write_page(folder: Path) -> Path:
    """Writes `report.html` and `report.md` from the `report.json` and the pictures in `folder`.

    Returns:
      The page.

    Raises:
      ValueError: There is no report.json, or it holds no report.
    """
    source = folder / "report.json"
    try:
        report = json.loads(source.read_text(encoding="utf-8"))
    except (OSError, ValueError) as reason:
        raise ValueError(f"{source}: {reason}") from reason
    missing = [name for name in ("passed", "rows") if name not in report]
    if missing:
        raise ValueError(f"{source} holds no parity report: no {' and no '.join(missing)}")
    names = [Path(name).name for name in report.get("pictures", [])]
    pictures = {name: (folder / name).read_bytes() for name in names if (folder / name).is_file()}
    files = {"report.md": markdown(report), "report.html": page(report, pictures)}
    for name, text in files.items():
        with draft(folder / name) as part:
            part.write_text(text, encoding="utf-8")
    return folder / "report.html"


def page(report: Report, pictures: Mapping[str, bytes]) -> str:
    """The report as HTML that fetches nothing.

    Args:
      report: What report.json holds.
      pictures: PNG files by their names.
    """
    parts = (
        _verdict(report),
        _first(report),
        _numbers(report),
        _introduction(report),
        summary(report),
        _by_layer(report),
        _losses(report),
        _pictures(pictures),
        _faults(report),
        _opinion(report),
        _origin(report),
    )
    return document(headline(report), "\n".join(filter(None, parts)), f"<style>{STYLE}</style>")


def _verdict(report: Report) -> str:
    mark, tone = ("✓", "good") if report["passed"] else ("✗", "bad")
    also = "".join(f"<p>{_prose(text)}</p>" for text in other_failures(report))
    return (
        f'<header class="verdict {tone}"><h1>{mark} {escape(headline(report))}</h1>'
        f"<p>{_prose(lead(report))}</p>{also}</header>"
    )


def _prose(text: str) -> str:
    """Text in which no line ends within a number such as 1e-12."""
    return re.sub(r"[\d.]+e-\d+", r'<span class="number">\g<0></span>', escape(text))


def _first(report: Report) -> str:
    """The first divergence, what to do about it, and what else fails."""
    first = report.get("first_divergence")
    if not first:
        return ""
    failed = [row for row in report["rows"] if not row["passed"]]
    some = "All" if len(failed) <= LISTED else f"The first {LISTED} of"
    title = f"{some} {len(failed):,} that differ, in order"
    more = f"<details><summary>{title}</summary>{tensors(failed[:LISTED])}</details>"
    command = report.get("command")
    again = f"<p>To compare again:</p><pre>{escape(str(command))}</pre>" if command else ""
    stage = STAGES.get(first["stage"], str(first["stage"]))
    found = measure(first)
    return (
        '<section class="first"><h2>What differs first</h2>'
        f"<p><b><code>{escape(first['name'])}</code></b>, {escape(stage)}, "
        f"in the configuration “{escape(first['case'])}”, computed in "
        f"{escape(first['precision'])}: {found.kind} <b>{size(found.value)}</b>, "
        f"where {size(found.limit)} is allowed.</p>"
        f"<p>{escape(advice(report))} Whatever is computed from it differs, too, so mend this one "
        f"first.</p>{again}{more if len(failed) > 1 else ''}</section>"
    )


def _numbers(report: Report) -> str:
    tiles = "".join(
        f"<div><dt>{_prose(what)}</dt><dd>{escape(value)}</dd></div>"
        for value, what in numbers(report)
    )
    return f'<dl class="numbers">{tiles}</dl>'


def _introduction(report: Report) -> str:
    known = [name for name in distinct(report["rows"], "precision") if name in EPSILON]
    steps = "; ".join(f"{name} {size(EPSILON[name])}" for name in known)
    rounding = (
        "<dt>Machine epsilon</dt><dd>Computers round every result to a fixed number of digits. "
        f"Relative to the result, the step from one number to the next is, in {steps}. Sums in "
        "another order differ by a few such steps, and deep networks add them up. A mistake, such "
        "as a border padded on the wrong side, shows many orders of magnitude above.</dd>"
    )
    return (
        "<h2>What is compared</h2><p><code>unet_jax</code> trains and runs a U-Net, a network that "
        "gives every pixel of a picture a class, in JAX with Flax. <code>unet_torch_ref</code> is "
        "its twin: the same network, loss and training step in PyTorch. If both compute the same "
        "numbers, weights trained in one work in the other, and a mistake would have to be made "
        "twice, in two frameworks, to go unseen.</p>"
        "<details><summary>How to read the numbers</summary><dl>"
        "<dt>Relative error</dt><dd>The length of the difference of two tensors, divided by the "
        "length of PyTorch’s: ‖a − b‖ / ‖b‖. 2e-14 is 2 × 10<sup>−14</sup>: the first difference "
        "is in the 14th digit.</dd>"
        f"{rounding if known else ''}"
        "<dt>Limit</dt><dd>The largest error that passes. Weights are copied, so they must be "
        "equal. In float64, where rounding is smallest, the limit is fixed, far below what any "
        "mistake causes. In float32 JAX may be at most twice as far from the float64 result as "
        "PyTorch’s own float32 is. A cell’s percentage is the part of the limit that is used.</dd>"
        "</dl></details>"
    )


def _by_layer(report: Report) -> str:
    rows = networks(report)
    case = shown_case(rows, report.get("first_divergence"))
    if case is None:
        return ""
    plots = [
        (f"{title} of “{case}”", own)
        for stage, title in (("eval", "Outputs"), ("gradients", "Gradients"))
        if (own := layers(rows, case, stage))
    ]
    large = "".join(f"<figure>{by_layer(own, title)}</figure>" for title, own in plots)
    precisions = distinct(rows, "precision")
    legend = "".join(f"<span>{key(colour(each))}{escape(each)}</span>" for each in precisions)
    others = [each for each in distinct(rows, "case") if each != case]
    if len(others) > PANELS:
        near = {own[0]: max(map(share, of)) for own, of in grouped(rows, "case").items()}
        others = sorted(others, key=near.__getitem__, reverse=True)[:PANELS]
    panels = "".join(f"<figure>{small(rows, each)}</figure>" for each in others)
    rest = (
        "<h3>The other configurations</h3><p>From the first layer to the last: outputs (solid) and "
        f'gradients (dashed); thin lines are machine epsilon.</p><div class="panels">{panels}</div>'
    )
    return (
        "<h2>Error by layer</h2><p>Each point is a tensor; layers come in the order in which they "
        "run, from the picture at the top to the prediction at the bottom. Dashed lines are "
        "machine epsilon; broad pale lines are the limits; a red × is a tensor beyond its limit; a "
        f'point at the left edge is exact.</p><p class="legend">{legend}</p>'
        f'<div class="curves">{large}</div>{rest if others else ""}'
    )


def _losses(report: Report) -> str:
    curves = report.get("losses")
    if not curves:
        return ""
    plots = "".join(f"<figure>{losses(each, name)}</figure>" for name, each in curves.items())
    band = (
        " The grey band is how far rounding alone drives training apart."
        if any(each.get("band") for each in curves.values())
        else ""
    )
    return (
        "<h2>Training</h2><p>Both programs were trained from the same weights on the same batches. "
        "The broad pale curve is PyTorch’s loss, the thin one on it JAX’s; below is their relative "
        f"difference at each step, and machine epsilon (dashed).{band} In less than float64 "
        "rounding grows from step to step, in either framework by itself.</p>"
        f'<div class="curves">{plots}</div>'
    )


def _pictures(pictures: Mapping[str, bytes]) -> str:
    captions = {
        "prediction_jax": "JAX",
        "prediction_torch": "PyTorch",
        "prediction_difference": "Their difference",
    }
    figures = ""
    for name, content in pictures.items():
        caption = escape(captions.get(Path(name).stem, Path(name).stem.replace("_", " ")))
        data = base64.b64encode(content).decode()
        figures += (
            f'<figure><img src="data:image/png;base64,{data}" alt="Prediction: {caption}">'
            f"<figcaption>{caption}</figcaption></figure>"
        )
    return (
        f'<h2>A prediction from each</h2><div class="pictures">{figures}</div>' if figures else ""
    )


def _faults(report: Report) -> str:
    faults = report.get("mutations")
    if not faults:
        return ""
    caught = sum(bool(fault["killed"]) for fault in faults)
    rows = [
        (
            escape(str(fault["name"])),
            escape(str(fault["component"])),
            "✓ yes" if fault["killed"] else '<span class="cell bad">✗ no</span>',
            _code(fault.get("named")),
            _code(fault.get("expected")),
        )
        for fault in faults
    ]
    return (
        "<h2>Can the comparison fail?</h2><p>A check that cannot fail shows nothing. So "
        "small faults were planted in one of the programs, one at a time, and the comparison was "
        f"run again: <b>{caught} of {len(faults)}</b> were noticed "
        f"({percent(caught / len(faults))}).</p>"
        + table(("fault", "in", "noticed", "what the report named", "expected"), rows, kind="words")
    )


def _code(text: Any) -> str:
    return "–" if text is None or text == "" else f"<code>{escape(str(text))}</code>"


def _opinion(report: Report) -> str:
    opinion = report.get("third_opinion")
    return f"<h2>A third opinion</h2><p>{escape(str(opinion))}</p>" if opinion else ""


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min"


def _origin(report: Report) -> str:
    where = [(f"{name} ran on", device) for name, device in report.get("device", {}).items()]
    where += [("precision", ", ".join(distinct(report["rows"], "precision")) or "–")]
    where += [("level", report["level"])] if "level" in report else []
    where += [("time", _duration(report["seconds"]))] if "seconds" in report else []
    versions = report.get("versions", {}).items()
    tables = "".join(
        table(headings, [[escape(str(cell)) for cell in row] for row in rows], kind="words")
        for headings, rows in ((("what", "where"), where), (("package", "version"), versions))
        if rows
    )
    command = report.get("command")
    again = f"<p>To repeat it:</p><pre>{escape(str(command))}</pre>" if command else ""
    return (
        f'<h2>Where it ran</h2><div class="origin">{tables}</div>{again}'
        "<p>Every number of every tensor is in <code>report.json</code>, beside this page.</p>"
    )

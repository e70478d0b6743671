"""What the project's HTML pages share: look, frame, tables and charts, all in one file."""

import contextlib
import io
import re
from collections.abc import Iterable, Iterator
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#010203"  # In charts; replaced by the page's colour of text, be it dark or light.
STYLE = """
:root { color-scheme: light dark; }
body { font: 14px/1.45 system-ui, sans-serif;
  max-width: 84rem; margin: 2rem auto; padding: 0 1rem; }
h2 { margin-top: 2.5rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin-bottom: 1.2rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; text-align: right; white-space: nowrap; }
th { font-weight: 600; opacity: .7; }
th[scope=row] { font-weight: inherit; opacity: 1; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
tr + tr > * { border-top: 1px solid color-mix(in srgb, currentColor 18%, transparent); }
.curves, .pictures { display: grid; gap: 1.2rem; margin: 1.2rem 0; }
.curves { grid-template-columns: repeat(auto-fill, minmax(min(34rem, 100%), 1fr)); }
.pictures { grid-template-columns: repeat(auto-fill, minmax(min(24rem, 100%), 1fr)); }
.curves svg, img { width: 100%; height: auto; }
figure { margin: 0; }
.key { width: 26px; height: 10px; margin-right: .5rem; vertical-align: middle; }
"""


def document(title: str, body: str, head: str = "") -> str:
    """A whole page.

    Args:
      title: Text.
      body: HTML.
      head: HTML of what else belongs there, such as more style.
    """
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{STYLE}</style>{head}</head>\n"
        f"<body>{body}</body></html>\n"
    )


def table(
    headings: Iterable[str], rows: Iterable[Iterable[str]], caption: str = "", kind: str = ""
) -> str:
    """A table of HTML cells, of which the first heads its row; wide ones scroll sideways.

    Args:
      headings: HTML of the first row.
      rows: HTML of the others.
      caption: HTML over it; none if empty.
      kind: Class of the table.
    """
    head = "".join(f'<th scope="col">{heading}</th>' for heading in headings)
    body = "\n".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'
        for first, *cells in rows
    )
    title = f"<caption>{caption}</caption>" if caption else ""
    which = f' class="{kind}"' if kind else ""
    return f'<div class="wide"><table{which}>{title}<tr>{head}</tr>\n{body}</table></div>\n'


def key(colour: str, dashes: Iterable[float] = ()) -> str:
    """A sample of a chart's line, to stand before its name."""
    dashed = " ".join(str(2 * length) for length in dashes)
    return (
        f'<svg class="key" viewBox="0 0 26 10" aria-hidden="true"><path d="M0 5H26" '
        f'stroke="{colour}" stroke-width="2.5" stroke-dasharray="{dashed}"/></svg>'
    )


@contextlib.contextmanager
def charts(name: str, size: float = 10) -> Iterator[None]:
    """Settings under which Matplotlib's figures are drawn and turned into `svg`.

    Args:
      name: Of the chart; no other of the page has it.
      size: Of letters, in points.
    """
    from matplotlib import rc_context  # Slow to import, and only needed here.

    inks = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    settings: dict[Any, Any] = dict.fromkeys(inks, INK)
    settings |= {"svg.fonttype": "none", "svg.hashsalt": name, "font.family": "sans-serif"}
    settings |= {"font.size": size}
    with rc_context(settings):
        yield


def svg(figure: "Figure", label: str) -> str:
    """A figure as SVG to stand in a page.

    Args:
      figure: Drawn within `charts`.
      label: What is read out to those who do not see it.
    """
    drawn, unsaid = io.StringIO(), dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(drawn, format="svg", transparent=True, metadata=unsaid)
    text = drawn.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    # Matplotlib names all groups alike in every figure; names are kept where something uses them.
    used = set(re.findall(r"#([\w-]+)", text))
    text = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", text)
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1)

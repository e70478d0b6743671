"""A report's parts, which become Markdown as well as HTML."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple
from urllib.parse import quote

from unet_jax.page import document, table

STYLE = """<style>
figure img { width: auto; max-width: 100%; border-radius: 4px; }
figure { margin: 1rem 0 1.4rem; }
figcaption { opacity: .75; margin-top: .2rem; }
p { max-width: 50rem; }
pre { overflow-x: auto; padding: .6rem .8rem; border-radius: 4px;
  background: color-mix(in srgb, currentColor 8%, transparent); }
</style>"""


class Heading(NamedTuple):
    """Of a section."""

    text: str


class Text(NamedTuple):
    """A paragraph."""

    text: str


class Code(NamedTuple):
    """A command."""

    text: str


class Table(NamedTuple):
    """Cells of text; the first of each row heads it."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


class Figure(NamedTuple):
    """A picture in a file beside the report.

    Attributes:
      path: From the report's folder.
      caption: Written below.
    """

    path: str
    caption: str


Part = Heading | Text | Code | Table | Figure


def to_markdown(title: str, parts: Iterable[Part]) -> str:
    """The report as Markdown.

    Args:
      title: Of the whole.
      parts: In order.
    """
    return "\n\n".join([f"# {_plain(title)}", *map(_markdown, parts)]) + "\n"


def to_html(title: str, parts: Iterable[Part]) -> str:
    """The report as a page.

    Args:
      title: Of the whole.
      parts: In order.
    """
    body = "\n".join([f"<h1>{escape(title)}</h1>", *map(_html, parts)])
    return document(title, body, STYLE)


def _markdown(part: Part) -> str:
    match part:
        case Heading(text):
            return f"## {_plain(text)}"
        case Text(text):
            return _plain(text)
        case Code(text):
            return f"```sh\n{text}\n```"
        case Figure(path, caption):
            return f"![{_plain(caption)}]({quote(path)})\n\n{_plain(caption)}"
        case Table(headings, rows):
            rule = ["---"] + ["---:"] * (len(headings) - 1)
            lines = [[*map(_plain, headings)], rule, *([*map(_plain, row)] for row in rows)]
            return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _html(part: Part) -> str:
    match part:
        case Heading(text):
            return f"<h2>{escape(text)}</h2>"
        case Text(text):
            return f"<p>{escape(text)}</p>"
        case Code(text):
            return f"<pre><code>{escape(text)}</code></pre>"
        case Figure(path, caption):
            return (
                f'<figure><a href="{quote(path)}"><img src="{quote(path)}" alt="{escape(caption)}" '
                f'loading="lazy"></a><figcaption>{escape(caption)}</figcaption></figure>'
            )
        case Table(headings, rows):
            return table(map(escape, headings), (map(escape, row) for row in rows))


def _plain(text: str) -> str:
    """Text of which Markdown makes nothing else."""
    for sign in "\\`*_[]<>|":
        text = text.replace(sign, f"\\{sign}")
    return text

"""A sheet of pictures: a grid under a title, with captions, and a legend that wraps."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

INK = (232, 234, 238)
FAINT = (150, 156, 168)
PAPER = (18, 20, 26)
GAP = 8
LINE = 22
SWATCH = 14
TITLE, SMALL = 17, 12  # Sizes of letters.


class Entry(NamedTuple):
    """One of a legend's.

    Attributes:
      swatch: uint8 [SWATCH, SWATCH, 3].
      name: Written beside it.
    """

    swatch: np.ndarray
    name: str


def draw_sheet(
    cells: Sequence[np.ndarray],
    columns: int,
    *,
    title: str,
    legend: Sequence[Entry],
    headers: Sequence[str] = (),
    captions: Sequence[str] = (),
) -> Image.Image:
    """Lays pictures out in rows.

    Args:
      cells: uint8 [H, W, 3] each, all of one size; row by row.
      columns: How many make a row.
      title: Written above; shortened if it is too long, as all texts are.
      legend: Written below.
      headers: Written above each column, if any.
      captions: Written below each cell, if any.
    """
    height, width = cells[0].shape[:2]
    step_x, step_y = width + GAP, height + GAP + (LINE if captions else 0)
    top = 2 * GAP + LINE + (LINE if headers else 0)
    sheet_w, bottom = GAP + columns * step_x, top + -(-len(cells) // columns) * step_y
    lines = _wrapped(legend, sheet_w - 2 * GAP)
    sheet = Image.new("RGB", (sheet_w, bottom + len(lines) * LINE + GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, GAP), _fitted(title, sheet_w - 2 * GAP, TITLE), INK, _font(TITLE))
    for column, header in enumerate(headers):
        draw.text((GAP + column * step_x, GAP + LINE + 4), header, INK, _font(SMALL))
    for n, cell in enumerate(cells):
        x, y = GAP + n % columns * step_x, top + n // columns * step_y
        sheet.paste(Image.fromarray(cell), (x, y))
        if captions:
            draw.text((x, y + height + 4), _fitted(captions[n], width, SMALL), FAINT, _font(SMALL))
    for n, line in enumerate(lines):
        _draw_line(sheet, line, bottom + n * LINE)
    return sheet


def _wrapped(legend: Sequence[Entry], width: int) -> list[list[Entry]]:
    """Breaks a legend into lines."""
    lines, left = [], 0
    for entry in legend:
        entry = entry._replace(name=_fitted(entry.name, width - SWATCH - 6, SMALL))
        if not lines or _advance(entry) > left:
            lines.append([])
            left = width + 20  # Nothing follows the last one.
        lines[-1].append(entry)
        left -= _advance(entry)
    return lines


def _draw_line(sheet: Image.Image, line: Sequence[Entry], y: int) -> None:
    draw, x = ImageDraw.Draw(sheet), GAP
    for entry in line:
        sheet.paste(Image.fromarray(entry.swatch), (x, y + 3))
        draw.rectangle((x - 1, y + 2, x + SWATCH, y + 3 + SWATCH), outline=FAINT)  # Black ones.
        draw.text((x + SWATCH + 6, y + 2), entry.name, INK, _font(SMALL))
        x += _advance(entry)


def _advance(entry: Entry) -> int:
    return SWATCH + 6 + int(_font(SMALL).getlength(entry.name)) + 20


def _fitted(text: str, width: int, size: int) -> str:
    """The text, without its middle where it is too long: names often differ at their ends."""
    font, short, kept = _font(size), text, len(text)
    while kept and font.getlength(short) > width:
        kept -= 1
        short = text[: kept - kept // 2] + "…" + text[len(text) - kept // 2 :]
    return short


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """Matplotlib's, which has several alphabets; Pillow's own has not even the sign ×."""
    import matplotlib  # Slow to import, and only needed here.

    path = Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf")
    return ImageFont.truetype(path, size)

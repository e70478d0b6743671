"""What the documentation shows is what it prints."""

import contextlib
import io
import re
from pathlib import Path

import jax
import pytest

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"^```(python|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

ROUNDING = (
    (r"\d\.\de-1[3-9]|exact", "~"),  # Errors that depend on the order of sums, so on the machine.
    (r"\d+%", "~"),  # A share of a distance that is rounding itself.
    (r"(?m)✗ [\d.]+e-\d+$", "✗ ~"),  # In float32, the column at the end, rounding is part of it.
    (r"[ ─]+", " "),  # Columns are as wide as their numbers.
)


def blocks(text: str) -> list[tuple[str, str]]:
    """(code, what it prints) of each example."""
    found = BLOCK.findall(text)
    return [
        (code, found[i + 1][1] if i + 1 < len(found) and found[i + 1][0] == "text" else "")
        for i, (kind, code) in enumerate(found)
        if kind == "python"
    ]


def printed(code: str, names: dict) -> str:
    """What the code prints, its tests included; users have JAX as it is, not as tests have it."""
    out, before = io.StringIO(), set(names)
    with contextlib.redirect_stdout(out), jax.numpy_rank_promotion("allow"):
        exec(compile(code, "<example>", "exec"), names)
        for name in set(names) - before:
            if name.startswith("test_"):
                names[name]()
    return out.getvalue()


def comparable(text: str) -> list[str]:
    for pattern, replacement in ROUNDING:
        text = re.sub(pattern, replacement, text)
    return [line.strip() for line in text.strip().splitlines()]


@pytest.mark.parametrize("name", ["parity_for_your_model.md"])
def test_examples_print_what_is_shown(name: str) -> None:
    examples, names = blocks((DOCS / name).read_text()), {"__name__": "example"}
    assert len(examples) > 1
    for code, expected in examples:
        assert comparable(printed(code, names)) == comparable(expected), code


def test_an_example_that_prints_something_else_is_seen() -> None:
    assert comparable("error 1.4e-05, 43%") != comparable("error 1.5e-05, 43%")
    assert comparable("eval ✗ 2.0e-16") != comparable("eval 2.0e-16")
    assert comparable("✗ 2.0e-6 ✗ 2.1e-6") == comparable("✗ 2.0e-6 ✗ 2.2e-6")
    assert comparable("eval   2.0e-16  43%") == comparable("eval 1.1e-15 7%")

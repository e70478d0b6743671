"""JSON files that may have been damaged."""

import json
from pathlib import Path
from typing import Any


def read_json(path: Path) -> Any:
    """What the file holds.

    Raises:
      ValueError: It is not JSON; the message names it.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: damaged: {error}") from None


def read_json_lines(path: Path) -> list[Any]:
    """What each line holds, but for half a line at the end, which a killed process leaves.

    Raises:
      ValueError: One of them is not JSON; the message names the file and the line.
    """
    found = []
    try:
        for line in path.read_text("utf-8").splitlines(keepends=True):
            if line.endswith("\n"):
                found.append(json.loads(line))
    except ValueError as error:
        raise ValueError(f"{path}: line {len(found) + 1} is damaged: {error}") from None
    return found

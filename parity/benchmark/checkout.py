"""Another checkout of this project, whose code takes part in a race."""

import contextlib
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

UNDERSTOOD = "import pickle, sys; sys.path.insert(0, sys.argv[1]); pickle.load(sys.stdin.buffer)"


@contextlib.contextmanager
def imported_from(checkout: Path | None) -> Iterator[None]:
    """A process that is spawned in here looks for modules in this folder first."""
    before = sys.path
    if checkout is not None:
        sys.path = [str(checkout), *before]
    try:
        yield
    finally:
        sys.path = before


def check(checkout: Path, make: Callable[[], Any]) -> None:
    """Whether its code knows all that a contestant is made of here.

    Args:
      checkout: Its folder.
      make: Builds the contestant.

    Raises:
      ValueError: It does not: the two are too far apart.
    """
    process = subprocess.run(
        [sys.executable, "-c", UNDERSTOOD, str(checkout)],
        input=pickle.dumps(make),
        capture_output=True,
        check=False,
    )
    if process.returncode:
        said = process.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise ValueError(f"--checkouts: {checkout} cannot take part in this one's race: {said[-1]}")


def commit(checkout: Path) -> str | None:
    """As `git describe --always --dirty` has it, but for changes of docs; None where that fails.

    Files that git does not know change nothing.

    Args:
      checkout: Its folder; one inside another checkout is none.
    """
    if not (checkout / ".git").exists():
        return None
    git = ["git", "-C", str(checkout)]
    asked = (["describe", "--always"], ["diff", "--name-only", "HEAD", "--", ":!docs"])
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        name, changed = (
            subprocess.run([*git, *rest], capture_output=True, text=True, timeout=30, check=True)
            for rest in asked
        )
        return name.stdout.strip() + ("-dirty" if changed.stdout else "")
    return None

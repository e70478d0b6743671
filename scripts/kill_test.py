"""Kills runs at random moments, and resumes them: `python scripts/kill_test.py --help`."""

import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from unet_jax.cli import needs_torch, parse_args


@dataclass(frozen=True, kw_only=True)
class Options:
    """A small run is trained to its end; then others like it are killed (SIGKILL) at moments drawn
    at random, and resumed. Each must end with the same state, to the last bit."""

    points: int = 20
    """Runs that are killed, of each framework."""

    frameworks: tuple[Literal["jax", "torch"], ...] = ("jax", "torch")
    """Which frameworks train them."""

    seed: int = 0
    """Draws the moments."""

    out: Path | None = None
    """JSON file for what came of each."""


def main() -> int:
    options = parse_args(Options)
    # Slow to import: only when the command line is known to be right.
    with needs_torch():
        from parity.kill import KillTest

    points = []
    for framework in options.frameworks:
        with tempfile.TemporaryDirectory(prefix="kill-test-") as folder:
            for point in KillTest(framework, Path(folder), options.seed).points(options.points):
                points.append(point)
                verdict = f"DIFFERENT: {', '.join(point.different)}" if point.different else "equal"
                print(
                    f"{framework}: killed {point.seconds:.3f} s after step {point.step} began"
                    + (", in the middle of saving" if point.half_written else "")
                    + f"; resumed after step {point.resumed_from}; {verdict}",
                    flush=True,
                )
    equal = sum(not point.different for point in points)
    print(f"{equal} of {len(points)} runs ended as the uninterrupted one, to the last bit")
    if options.out is not None:
        options.out.write_text(json.dumps([asdict(point) for point in points], indent=1))
    return 0 if equal == len(points) else 1


if __name__ == "__main__":
    sys.exit(main())

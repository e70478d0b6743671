"""Measures speed: `python scripts/benchmark.py --help`."""

from parity.benchmark.options import parse
from unet_jax.cli import needs_torch


def main() -> int:
    options, config = parse(
        description="Measures speed, each contender against the others in one run."
    )
    # Slow to import: only when the command line is known to be right.
    with needs_torch():
        from parity.benchmark.run import benchmark

        return benchmark(options, config)


if __name__ == "__main__":
    raise SystemExit(main())

"""Measures speed: `python scripts/benchmark.py --help`."""

from parity.benchmark.options import parse


def main() -> int:
    options, config = parse(
        description="Measures speed, each contender against the others in one run."
    )
    # Slow to import: only when the command line is known to be right.
    from parity.benchmark.run import benchmark

    return benchmark(options, config)


if __name__ == "__main__":
    raise SystemExit(main())

"""Measures speed: `python scripts/benchmark.py --help`."""


def main() -> int:
    # Here, since the processes that it starts import this file, some with another checkout's code.
    from parity.benchmark.options import parse
    from unet_jax.cli import needs_torch

    options, config = parse(
        description="Measures speed, each contender against the others in one run."
    )
    # Slow to import: only when the command line is known to be right.
    with needs_torch():
        from parity.benchmark.run import benchmark

        return benchmark(options, config)


if __name__ == "__main__":
    raise SystemExit(main())

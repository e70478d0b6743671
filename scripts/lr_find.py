"""Looks for a learning rate: `python scripts/lr_find.py --help`."""

from unet_jax.range_test_options import parse_range_test


def main() -> int:
    options, config = parse_range_test(
        description="Looks for a learning rate: trains with ever larger ones, and plots the loss."
    )
    # Slow to import: only when the command line is known to be right.
    from unet_jax.compiled import keep_compiled
    from unet_jax.onednn.cores import share_cores
    from unet_jax.range_test import range_test

    keep_compiled()
    share_cores(config.largest_layer, config.train.precision, trained=True)
    return range_test(options, config)


if __name__ == "__main__":
    raise SystemExit(main())

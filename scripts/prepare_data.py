"""Prepares a data set ahead of training: `python scripts/prepare_data.py --help`."""

from unet_jax.prepare_options import parse_prepare


def main() -> int:
    options, config = parse_prepare(
        description="Prepares a data set ahead of training, and shows how it was understood."
    )
    # Slow to import: only when the command line is known to be right.
    from unet_jax.prepare import prepare

    return prepare(options, config)


if __name__ == "__main__":
    raise SystemExit(main())

"""Predicts with a trained U-Net: `python scripts/predict.py --help`."""

from unet_jax.prediction.predict_options import parse_predict


def main() -> int:
    options, config = parse_predict(description="Predicts with a trained U-Net.")
    # Slow to import: only when the command line is known to be right.
    from unet_jax.compiled import keep_compiled
    from unet_jax.onednn.cores import share_cores
    from unet_jax.prediction.predict import predict
    from unet_jax.trained import largest_layer

    keep_compiled()
    place = options.run or options.weights
    assert place is not None
    values = largest_layer(place, config.tile or config.size)
    share_cores(values and options.batch_size * values, trained=False)
    return predict(options, config)


if __name__ == "__main__":
    raise SystemExit(main())

"""Evaluates trained U-Nets: `python scripts/evaluate.py --help`."""

from unet_jax.evaluation.evaluate_options import parse_evaluate


def main() -> int:
    options, config = parse_evaluate(description="Evaluates trained U-Nets, of either framework.")
    # Slow to import: only when the command line is known to be right, and PyTorch if it is needed.
    from unet_jax.compiled import keep_compiled
    from unet_jax.evaluation.evaluate import evaluate
    from unet_jax.onednn.cores import share_cores
    from unet_jax.trained import values

    def in_torch():
        from parity.torch_predictor import TorchPredictor, read_torch

        return read_torch, TorchPredictor

    keep_compiled()
    places = (*options.run, *options.weights)
    most = max(values(place, config.tile or config.size) for place in places)
    share_cores(options.batch_size * most)
    return evaluate(options, config, in_torch)


if __name__ == "__main__":
    raise SystemExit(main())

"""Evaluates trained U-Nets: `python scripts/evaluate.py --help`."""

from unet_jax.evaluation.evaluate_options import parse_evaluate


def main() -> int:
    options, config = parse_evaluate(description="Evaluates trained U-Nets, of either framework.")
    # Slow to import: only when the command line is known to be right, and PyTorch if it is needed.
    from unet_jax.compiled import keep_compiled
    from unet_jax.evaluation.evaluate import evaluate
    from unet_jax.onednn.cores import share_cores
    from unet_jax.trained import largest_layer

    def in_torch():
        from parity.torch_predictor import TorchPredictor, read_torch

        return read_torch, TorchPredictor

    keep_compiled()
    # Networks are evaluated at the size that they were trained at, whatever else they are shown.
    values = [largest_layer(place) for place in (*options.run, *options.weights)]
    known = [options.batch_size * each for each in values if each is not None]
    share_cores(max(known) if len(known) == len(values) else None, trained=False)
    return evaluate(options, config, in_torch)


if __name__ == "__main__":
    raise SystemExit(main())

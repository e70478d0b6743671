"""Exports a trained U-Net: `python scripts/export.py --help`."""

from unet_jax.exporting.export_options import parse_export


def main() -> int:
    options = parse_export(
        description="Exports a trained U-Net, reads each file back, and compares what it gives."
    )
    # Slow to import: only when the command line is known to be right.
    from unet_jax.exporting.artefact import SAFETENSORS
    from unet_jax.exporting.export import export
    from unet_jax.exporting.stablehlo import STABLEHLO

    formats = {"stablehlo": STABLEHLO, "safetensors": SAFETENSORS}
    if {"pt2", "onnx"} & set(options.format):
        from parity.exporting.onnx import ONNX
        from parity.exporting.pt2 import PT2

        formats |= {"pt2": PT2, "onnx": ONNX}
    return export(options, {name: formats[name] for name in options.format})


if __name__ == "__main__":
    raise SystemExit(main())

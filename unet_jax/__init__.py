"""A residual U-Net for semantic segmentation in Flax.

`unet_jax.load("runs/my-run").predict("image.jpg")` predicts with a trained one.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unet_jax.prediction.predictor import load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    # Command lines import this package, and are to answer before JAX has loaded.
    if name == "load":
        from unet_jax.prediction.predictor import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

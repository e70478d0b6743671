"""What a network says of images, as probabilities: the same for predicting and for exporting."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from unet_jax.augment import Normalisation, normalise
from unet_jax.models import UNet


def float_variables(variables: Mapping[str, Any], dtype: Any = np.float32) -> dict[str, Any]:
    """Variables as NumPy arrays, floating ones of one dtype: weights may be stored in float16, in
    which a group norm's mean over many pixels would be 0.

    Args:
      variables: `{"params": …, "batch_stats": …}`.
      dtype: Of all floating arrays; others, such as counters, keep theirs.
    """
    return jax.tree.map(
        lambda leaf: leaf.astype(dtype) if np.issubdtype(leaf.dtype, np.floating) else leaf,
        jax.tree.map(np.asarray, dict(variables)),
    )


def probabilities(
    variables: Mapping[str, Any],
    images: Any,
    *,
    model: UNet,
    mean_std: Normalisation,
    dtype: Any = np.float32,
    each_class: bool,
) -> jax.Array:
    """Probabilities [B, H, W, K] of images.

    Args:
      variables: As `float_variables` gives them, of `dtype`.
      images: uint8 or floating [B, H, W, 3], values from 0 to 255.
      model: The network.
      mean_std: What images in 0..1 are normalised by.
      dtype: What is computed in.
      each_class: Whether a single logit gives two probabilities, one for each class, and not the
        foreground's alone.
    """
    logits = model.apply(variables, normalise(images, mean_std, dtype))
    assert isinstance(logits, jax.Array)
    if logits.shape[-1] > 1:
        return jax.nn.softmax(logits)
    # Of both signs: 1 - p would lose the digits of a small one.
    return jax.nn.sigmoid(jnp.concatenate([-logits, logits], -1) if each_class else logits)

"""Losses of each pixel: [B, H, W, K] logits against [B, H, W] class ids."""

import jax
import optax


def pixel_loss(logits: jax.Array, mask: jax.Array) -> jax.Array:
    """Binary cross-entropy for one logit a pixel, cross-entropy for several.

    Args:
      logits: float [B, H, W, K].
      mask: integer [B, H, W]; 0 or 1 if K is 1, else below K.

    Returns:
      The loss of each pixel, [B, H, W], in nats.
    """
    if logits.shape[-1] == 1:
        return optax.sigmoid_binary_cross_entropy(logits[..., 0], mask.astype(logits.dtype))
    return optax.softmax_cross_entropy_with_integer_labels(logits, mask.astype("int32"))

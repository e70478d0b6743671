"""What two implementations of a layer or an optimiser usually differ in."""

from torch import nn, optim

from parity.pairs.judgement import is_step

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
MAX_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
AVERAGE_POOLS = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)

Hints = dict[tuple[type, ...], str]

FORWARD: Hints = {
    (nn.Linear,): (
        "kernel not transposed (PyTorch [out, in], Flax [in, out]); a bias left out; after a "
        "flatten, features in another order (C, H, W against H, W, C)"
    ),
    CONVOLUTIONS: (
        "padding (Flax's SAME pads unevenly at stride 2, PyTorch evenly); stride, dilation, "
        "groups; a bias left out"
    ),
    TRANSPOSED: (
        "kernel flipped in space (Flax's ConvTranspose takes it the other way round); padding, "
        "which means another crop; in and out axes swapped"
    ),
    BATCH_NORMS: (
        "eps (1e-5 in PyTorch and Flax); running mean and variance mapped wrongly; batch "
        "statistics in place of running ones, or the other way round"
    ),
    (nn.LayerNorm, nn.GroupNorm): (
        "eps (1e-5 in PyTorch, 1e-6 in Flax); the axes or groups that are normalised; scale or "
        "bias left out"
    ),
    (nn.RMSNorm,): "eps (PyTorch's default is the dtype's, Flax's 1e-6)",
    (nn.GELU,): (
        "exact or tanh (jax.nn.gelu approximates unless told otherwise, torch.nn.GELU does not)"
    ),
    (nn.LeakyReLU, nn.ELU, nn.CELU): "negative slope or alpha",
    (nn.Softmax, nn.LogSoftmax): "the axis",
    MAX_POOLS: "padding (-inf in PyTorch); ceil_mode; window and stride",
    AVERAGE_POOLS: "padding counted or not (count_include_pad); window and stride",
    (nn.Upsample,): "align_corners; half-pixel centres; antialiasing",
    (nn.Embedding,): "another table or padding index; ids out of range",
    (nn.Dropout, nn.Dropout2d): "random in train mode: set p to 0 to compare",
    (nn.MultiheadAttention,): "scale by 1/sqrt(head size); order of heads and of q, k, v; mask",
}
"""What to look at where a layer's output differs, and that of the layer before it does not."""

STATISTICS: Hints = {
    BATCH_NORMS: (
        "momentum (PyTorch's 0.1 is Flax's 0.9; Flax's default is 0.99); variance (PyTorch keeps "
        "the unbiased one, Flax the biased)"
    ),
}

OPTIMISERS: Hints = {
    (optim.AdamW,): "weight decay (PyTorch 1e-2, Optax 1e-4); eps (1e-8); betas; a decay mask",
    (optim.Adam,): (
        "eps in or outside of the root; decay as part of the gradient: add_decayed_weights before "
        "scale_by_adam"
    ),
    (optim.RMSprop,): (
        "decay (PyTorch's alpha is 0.99, Optax's 0.9); eps_in_sqrt=False; the learning rate "
        "outside of the momentum"
    ),
    (optim.SGD,): "momentum, Nesterov; weight decay before momentum",
}
"""AdamW comes before Adam, which it derives from."""

GRADIENTS = "stop_gradient; the gradient at ties and kinks (max, relu at 0, abs, norm of 0)"
LOSS = "mean or sum; what is masked, weighted or smoothed"

OUTPUT_ALONE = (
    'no layer was captured: return (output, {"intermediates": {name: array}}), or use Linen\'s'
    " capture_intermediates, to see which one it is"
)


def hint(stage: str, layer: nn.Module | None, optimizer: type | None) -> str | None:
    """Likely causes of a divergence.

    Args:
      stage: Where it is first seen.
      layer: PyTorch's, that the tensor belongs to.
      optimizer: PyTorch's.
    """
    if is_step(stage):
        return _of(OPTIMISERS, optimizer)
    if stage == "loss":
        return LOSS
    if stage == "gradients":
        return GRADIENTS
    return _of(STATISTICS if stage == "statistics" else FORWARD, type(layer))


def _of(table: Hints, kind: type | None) -> str | None:
    return next((text for kinds, text in table.items() if kind and issubclass(kind, kinds)), None)

"""Runs both networks from the same weights on the same batch, and measures how far they part."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax.traverse_util import flatten_dict
from torch import nn

from parity.cases import MEAN_STD, Case
from parity.convert import Variables, module_path, to_flax, to_torch
from parity.device import arithmetic, compiled_quickly, torch_device
from parity.row import Row, first_divergence, relative_error, ulps
from unet_jax.augment import Normalisation
from unet_jax.augment import normalise as normalise_jax
from unet_jax.batch import IGNORED, Batch
from unet_jax.gradients import loss_and_grads
from unet_jax.losses import Loss
from unet_jax.models import build_model as build_flax
from unet_torch_ref.augment import normalise as normalise_torch
from unet_torch_ref.batch import to_tensors
from unet_torch_ref.losses import Loss as TorchLoss
from unet_torch_ref.models import build_model as build_torch

__all__ = ["Row", "compare", "first_divergence", "relative_error"]

Quantity = tuple[str, str]
"""(stage, name): stage is parameters, eval, train, statistics, loss or gradients."""

Quantities = dict[Quantity, np.ndarray]

POOLED = ("eval", "train", "statistics", "gradients")
"""Stages of many tensors."""


DRAWS = 8
"""Batches. On one, the float32 distance of a tensor of few entries is a single draw of rounding
noise, by luck several times its usual size; both frameworks' are taken over all of these."""

PARAMETERS = 0.0
"""Weights are carried across without arithmetic, so without error."""

FLOAT64 = 1e-12
"""Sums of many products in another order: on these cases the worst tensor, a gradient, is 2e-14
apart."""

FLOAT32 = 2.0
"""JAX's distance to PyTorch's float64 result, as a multiple of PyTorch's own float32 distance.

It holds for each stage as a whole (the root mean square over its tensors, the row "all"), and for
each tensor against PyTorch's worst of the stage, in the norm and in units of the last place; for
the loss, a mean that errors cancel in, against its logits, too."""


ENOUGH = 1000
"""Values, of all batches together, of a tensor that is judged in ULPs. Their 99th percentile leaves
out the ten or more largest, of which some are beside a truth of nearly 0."""


def make_batch(case: Case, seed: int = 0) -> Batch:
    """Random pixels and classes, one in ten ignored; of two or more images, the last is padding."""
    rng = np.random.default_rng(seed)
    height, width = case.size
    classes = max(case.num_classes, 2)
    image = rng.integers(0, 256, (case.batch, height, width, 3), dtype=np.uint8)
    mask = rng.integers(0, classes, (case.batch, height, width), dtype=np.uint8)
    mask[rng.random(mask.shape) < 0.1] = IGNORED
    valid = np.ones(case.batch, bool)
    valid[1:] = np.arange(1, case.batch) < case.batch - 1
    return Batch(image, mask, valid)


def make_torch(case: Case, seed: int = 0) -> nn.Module:
    """The PyTorch network in float64, its norms' weights and statistics away from 0 and 1."""
    torch.manual_seed(seed)
    model = build_torch(
        case.model.architecture, num_classes=case.num_classes, **case.model.arguments()
    ).double()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.5, 0.5)
            if isinstance(module, nn.BatchNorm2d):
                module.get_buffer("running_mean").uniform_(-0.5, 0.5)
                module.get_buffer("running_var").uniform_(0.5, 1.5)
    return model


def torch_state(model: nn.Module) -> dict[str, np.ndarray]:
    return {name: value.detach().cpu().numpy() for name, value in model.state_dict().items()}


def run_torch(model: nn.Module, batch: Batch, mean_std: Normalisation = MEAN_STD) -> Quantities:
    """Everything there is to compare, from the PyTorch side. The running statistics change."""
    found: Quantities = {}
    stage = "eval"

    def note(name: str, module: nn.Module, output: torch.Tensor) -> None:
        found[stage, name] = output.detach().permute(0, 2, 3, 1).cpu().numpy()

    hooks = []
    for name, module in model.named_modules():
        if not isinstance(module, nn.ModuleList | nn.Identity):
            label = "/".join(module_path(name)) or "logits"
            hooks.append(
                module.register_forward_hook(lambda m, _, out, label=label: note(label, m, out))
            )
    weight = next(model.parameters())
    tensors = to_tensors(batch, weight.device)
    image = normalise_torch(tensors.image, mean_std, weight.dtype)

    found |= {("parameters", n): v for n, v in _by_path(to_flax(torch_state(model), model))}
    with torch.no_grad():
        model.eval()(image)
    stage = "train"
    loss = TorchLoss()
    mean_loss = loss.total(loss.sums(model.train()(image), tensors.mask, tensors.valid))
    grads = torch.autograd.grad(mean_loss, list(model.parameters()))
    for hook in hooks:
        hook.remove()

    after = to_flax(torch_state(model), model)
    found |= {("statistics", n): v for n, v in _by_path({"": after.get("batch_stats", {})})}
    found["loss", "mean loss"] = mean_loss.detach().cpu().numpy()
    names = [name for name, _ in model.named_parameters()]
    gradients = torch_state(model) | {n: g.cpu().numpy() for n, g in zip(names, grads, strict=True)}
    found |= {("gradients", n): v for n, v in _by_path({"": to_flax(gradients, model)["params"]})}
    return found


def run_flax(
    case: Case, variables: Mapping[str, Any], batches: Sequence[Batch]
) -> list[Quantities]:
    """Everything there is to compare on each batch, from the JAX side, compiled once."""
    model, loss = build_flax(case.model, case.num_classes), Loss()
    variables = jax.tree.map(jnp.asarray, dict(variables))
    params, batch_stats = variables["params"], variables.get("batch_stats", {})
    dtype = jax.tree.leaves(params)[0].dtype
    options = compiled_quickly() if dtype == jnp.float64 else None

    @partial(jax.jit, compiler_options=options)
    def run(params: Any, batch_stats: Any, batch: Batch) -> tuple[Any, ...]:
        variables = {"params": params, "batch_stats": batch_stats}
        image = normalise_jax(batch.image, case.mean_std, dtype)
        _, evaluated = model.apply(variables, image, capture_intermediates=True)
        _, trained = model.apply(
            variables,
            image,
            train=True,
            mutable=["batch_stats", "intermediates"],
            capture_intermediates=True,
        )
        stepped = loss_and_grads(
            model, loss, params, batch_stats, batch, mean_std=case.mean_std, fill=IGNORED
        )
        return evaluated["intermediates"], trained["intermediates"], stepped

    results = []
    for batch in batches:
        evaluated, trained, (gradients, sums, after) = run(params, batch_stats, batch)
        found: Quantities = {("parameters", n): v for n, v in _by_path(variables)}
        found |= {("eval", n): v for n, v in _calls(evaluated)}
        found |= {("train", n): v for n, v in _calls(trained)}
        found |= {("statistics", n): v for n, v in _by_path({"": after})}
        found["loss", "mean loss"] = np.asarray(loss.total(sums))
        found |= {("gradients", n): v for n, v in _by_path({"": gradients})}
        results.append(found)
    return results


def _by_path(tree: Mapping[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    for path, leaf in flatten_dict(dict(tree)).items():
        yield "/".join(part for part in path if part), np.asarray(leaf)


def _calls(intermediates: Mapping[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    for path, outputs in flatten_dict(dict(intermediates)).items():
        [output] = outputs  # type: ignore[misc]  # Every layer is called once.
        yield "/".join(path[:-1]) or "logits", np.asarray(output)


def compare(
    case: Case,
    change: Callable[[Variables], None] | None = None,
    precisions: Sequence[str] = ("float64", "float32"),
    seed: int = 0,
    *,
    draws: int = DRAWS,
    model: nn.Module | None = None,
    extra: Sequence[Batch] = (),
) -> list[Row]:
    """Compares the two networks in float64, then in float32.

    Args:
      case: The configuration.
      change: Plants a fault in the Flax side's weights, to see it found.
      precisions: Which comparisons; float64, the truth for the others, comes first.
      seed: Draws weights and batches.
      draws: Random batches.
      model: The PyTorch network, of the case's configuration; None: one with random weights.
      extra: Batches beside the random ones, of the same shape.

    Returns:
      A row for each tensor, in the order in which they are computed.
    """
    batches = [*extra, *(make_batch(case, seed + draw) for draw in range(draws))]
    rows, truth = [], None
    for precision in precisions:
        given = copy.deepcopy(model) if model is not None else make_torch(case, seed)
        twin = given.to(torch_device(), torch.float64 if precision == "float64" else torch.float32)
        variables = to_flax(torch_state(twin), twin)
        if change is not None:
            change(variables)
        with arithmetic(precision):
            ours = run_flax(case, variables, batches)
            theirs = [run_torch(copy.deepcopy(twin), batch, case.mean_std) for batch in batches]
        truth = truth or theirs
        judged = _float64 if precision == "float64" else _float32
        rows += [
            Row(case.name, precision, *quantity, *measures)
            for quantity, measures in judged(ours, theirs, truth).items()
        ]
    return rows


Measures = dict[Quantity, tuple[Any, ...]]
"""A row's fields from `error` on."""


def _float64(ours: Sequence[Quantities], theirs: Sequence[Quantities], _: Any) -> Measures:
    return {
        quantity: (
            _error(ours, theirs, quantity),
            PARAMETERS if quantity[0] == "parameters" else FLOAT64,
        )
        for quantity in _either(ours, theirs)
    }


def _float32(
    ours: Sequence[Quantities], theirs: Sequence[Quantities], truth: Sequence[Quantities]
) -> Measures:
    names = _either(ours, theirs)
    # Parameters are compared with PyTorch's own; what follows from them with the truth.
    errors = {
        name: _error(ours, theirs if name[0] == "parameters" else truth, name) for name in names
    }
    own = {name: _error(theirs, truth, name) for name in names}
    limits, places = _limits(own), _ulps_limits(theirs, truth, names)
    found: Measures = {}
    for name in names:
        found[name] = errors[name], limits[name]
        if name[0] != "parameters":
            usual, largest = _ulps(ours, truth, name)
            found[name] += usual, places.get(name), largest
    for stage in dict.fromkeys(stage for stage, _ in names if stage in POOLED):
        found[stage, "all"] = _pool(errors, stage), FLOAT32 * _pool(own, stage)
    return found


def _either(ours: Sequence[Quantities], theirs: Sequence[Quantities]) -> list[Quantity]:
    return list(theirs[0] | ours[0])


def _both(
    sides: Sequence[Quantities], references: Sequence[Quantities], quantity: Quantity
) -> tuple[np.ndarray, np.ndarray] | None:
    """All batches' tensors together; None if a side has none."""
    if quantity not in sides[0] or quantity not in references[0]:
        return None
    a, b = (np.stack([batch[quantity] for batch in side]) for side in (sides, references))
    return a, b


def _error(
    sides: Sequence[Quantities], references: Sequence[Quantities], quantity: Quantity
) -> float:
    pair = _both(sides, references, quantity)
    return float("inf") if pair is None else relative_error(*pair)


def _ulps(
    sides: Sequence[Quantities], references: Sequence[Quantities], quantity: Quantity
) -> tuple[float, float]:
    pair = _both(sides, references, quantity)
    return (float("inf"), float("inf")) if pair is None else ulps(*pair)


def _pool(errors: Mapping[Quantity, float], stage: str) -> float:
    """Root mean square over a stage's tensors."""
    squares = [error**2 for (own, _), error in errors.items() if own == stage]
    return float(np.sqrt(np.mean(squares)))


def _limits(own: Mapping[Quantity, float]) -> dict[Quantity, float]:
    """How far each tensor of JAX's may be from the truth, given how far PyTorch's are."""
    worst: dict[str, float] = {}
    for (stage, _), error in own.items():
        worst[stage] = max(worst.get(stage, 0.0), error if np.isfinite(error) else 0.0)
    worst["loss"] = max(worst["loss"], own["train", "logits"])
    worst["parameters"] = PARAMETERS
    return {(stage, name): FLOAT32 * worst[stage] for stage, name in own}


def _ulps_limits(
    theirs: Sequence[Quantities], truth: Sequence[Quantities], names: Sequence[Quantity]
) -> dict[Quantity, float]:
    """Of those tensors that have enough values."""
    counted = [n for n in names if n in theirs[0] and len(theirs) * theirs[0][n].size >= ENOUGH]
    worst: dict[str, float] = {}
    for stage, name in counted:
        worst[stage] = max(worst.get(stage, 0.0), _ulps(theirs, truth, (stage, name))[0])
    return {(stage, name): FLOAT32 * worst[stage] for stage, name in counted}


def round_trip(case: Case, seed: int = 0) -> bool:
    """Whether PyTorch -> Flax -> PyTorch gives back every entry to the byte."""
    model = make_torch(case, seed)
    state = torch_state(model)
    back = to_torch(to_flax(state, model), model)
    return list(back) == list(state) and all(
        back[name].dtype == state[name].dtype and back[name].tobytes() == state[name].tobytes()
        for name in state
    )


def scale_entry(variables: Variables, name: str, factor: float) -> None:
    """Multiplies the largest entry of the Flax parameter `name` by `factor`, in place.

    Raises:
      ValueError: There is no such parameter.
    """
    flat: dict[str, Any] = flatten_dict(variables["params"], sep="/")
    if name not in flat:
        raise ValueError(f"there is no parameter {name!r}; the network has {', '.join(flat)}")
    array = np.ravel(flat[name])  # A view: the arrays are contiguous.
    array[np.argmax(np.abs(array))] *= factor

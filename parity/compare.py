"""Runs both networks from the same weights on the same batch, and measures how far they part."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax.traverse_util import flatten_dict
from torch import nn

from parity.cases import Case
from parity.convert import Variables, module_path, to_flax, to_torch
from unet_jax.augment import normalise as normalise_jax
from unet_jax.batch import IGNORED, Batch
from unet_jax.losses import Loss
from unet_jax.models import build_model as build_flax
from unet_jax.step import loss_and_grads
from unet_torch_ref.augment import normalise as normalise_torch
from unet_torch_ref.batch import to_tensors
from unet_torch_ref.losses import Loss as TorchLoss
from unet_torch_ref.models import build_model as build_torch

MEAN_STD = ((0.49, 0.47, 0.43), (0.23, 0.24, 0.25))

Quantity = tuple[str, str]
"""(stage, name): stage is parameters, eval, train, statistics, loss or gradients."""

Quantities = dict[Quantity, np.ndarray]

POOLED = ("eval", "train", "statistics", "gradients")
"""Stages of many tensors."""


class Row(NamedTuple):
    """One tensor, compared.

    Attributes:
      case, precision: Which comparison; precision is float64 or float32.
      stage, name: Which tensor; layers come in the order in which they run.
      error: ‖a - b‖ / ‖b‖ over `DRAWS` batches together; infinite where a tensor is missing,
        misshapen or not finite.
      limit: The largest error that passes.
    """

    case: str
    precision: str
    stage: str
    name: str
    error: float
    limit: float

    @property
    def passed(self) -> bool:
        return self.error <= self.limit


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
each tensor against PyTorch's worst of the stage; for the loss, a mean that errors cancel in,
against its logits, too."""


def relative_error(a: np.ndarray, b: np.ndarray) -> float:
    """‖a - b‖ / ‖b‖ in float64 (‖a‖ if b is 0); infinite if shapes differ or it is not finite."""
    if np.shape(a) != np.shape(b):
        return float("inf")
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    error = np.linalg.norm((a - b).ravel()) / (np.linalg.norm(b.ravel()) or 1.0)
    return float(error) if np.isfinite(error) else float("inf")


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
    return {name: value.detach().numpy() for name, value in model.state_dict().items()}


def run_torch(model: nn.Module, batch: Batch) -> Quantities:
    """Everything there is to compare, from the PyTorch side. The running statistics change."""
    found: Quantities = {}
    stage = "eval"

    def note(name: str, module: nn.Module, output: torch.Tensor) -> None:
        found[stage, name] = output.detach().permute(0, 2, 3, 1).numpy()

    hooks = []
    for name, module in model.named_modules():
        if not isinstance(module, nn.ModuleList | nn.Identity):
            label = "/".join(module_path(name)) or "logits"
            hooks.append(
                module.register_forward_hook(lambda m, _, out, label=label: note(label, m, out))
            )
    tensors = to_tensors(batch)
    dtype = next(model.parameters()).dtype
    image = normalise_torch(tensors.image, MEAN_STD, dtype)

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
    found["loss", "mean loss"] = mean_loss.detach().numpy()
    names = [name for name, _ in model.named_parameters()]
    gradients = torch_state(model) | {n: g.numpy() for n, g in zip(names, grads, strict=True)}
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

    @jax.jit
    def run(params: Any, batch_stats: Any, batch: Batch) -> tuple[Any, ...]:
        variables = {"params": params, "batch_stats": batch_stats}
        image = normalise_jax(batch.image, MEAN_STD, dtype)
        _, evaluated = model.apply(variables, image, capture_intermediates=True)
        _, trained = model.apply(
            variables,
            image,
            train=True,
            mutable=["batch_stats", "intermediates"],
            capture_intermediates=True,
        )
        stepped = loss_and_grads(
            model, loss, params, batch_stats, batch, mean_std=MEAN_STD, fill=IGNORED
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
) -> list[Row]:
    """Compares the two networks in float64, then in float32.

    Args:
      case: The configuration.
      change: Plants a fault in the Flax side's weights, to see it found.
      precisions: Which comparisons; float64, the truth for float32, comes first.
      seed: Draws weights and batch.

    Returns:
      A row for each tensor, in the order in which they are computed.
    """
    batches = [make_batch(case, seed + draw) for draw in range(DRAWS)]
    rows, truth = [], None
    for precision in precisions:
        model = make_torch(case, seed).to(getattr(torch, precision))
        variables = to_flax(torch_state(model), model)
        if change is not None:
            change(variables)
        ours = run_flax(case, variables, batches)
        theirs = [run_torch(copy.deepcopy(model), batch) for batch in batches]
        truth = truth or theirs
        names = [*theirs[0], *(quantity for quantity in ours[0] if quantity not in theirs[0])]
        # Parameters are compared with PyTorch's own; what follows from them with the truth.
        errors = {
            quantity: _error(ours, theirs if quantity[0] == "parameters" else truth, quantity)
            for quantity in names
        }
        own = {quantity: _error(theirs, truth, quantity) for quantity in names}
        limits = _float64_limits(names) if precision == "float64" else _float32_limits(own)
        if precision == "float32":
            for stage in dict.fromkeys(stage for stage, _ in names if stage in POOLED):
                errors[stage, "all"] = _pool(errors, stage)
                limits[stage, "all"] = FLOAT32 * _pool(own, stage)
        rows += [
            Row(case.name, precision, *quantity, error, limits[quantity])
            for quantity, error in errors.items()
        ]
    return rows


def _error(
    sides: Sequence[Quantities], references: Sequence[Quantities], quantity: Quantity
) -> float:
    """The relative error of all batches' tensors together; infinite if a side has none."""
    if quantity not in sides[0] or quantity not in references[0]:
        return float("inf")
    a, b = (np.stack([batch[quantity] for batch in side]) for side in (sides, references))
    return relative_error(a, b)


def _pool(errors: Mapping[Quantity, float], stage: str) -> float:
    """Root mean square over a stage's tensors."""
    squares = [error**2 for (own, _), error in errors.items() if own == stage]
    return float(np.sqrt(np.mean(squares)))


def _float64_limits(names: Sequence[Quantity]) -> dict[Quantity, float]:
    return {name: PARAMETERS if name[0] == "parameters" else FLOAT64 for name in names}


def _float32_limits(own: Mapping[Quantity, float]) -> dict[Quantity, float]:
    """What each tensor of JAX's may be away from the truth, given how far PyTorch's are."""
    worst: dict[str, float] = {}
    for (stage, _), error in own.items():
        worst[stage] = max(worst.get(stage, 0.0), error if np.isfinite(error) else 0.0)
    worst["loss"] = max(worst["loss"], own["train", "logits"])
    worst["parameters"] = PARAMETERS
    return {(stage, name): FLOAT32 * worst[stage] for stage, name in own}


def first_divergence(rows: Sequence[Row]) -> Row | None:
    """The first tensor that fails: the layer to look at."""
    return next((row for row in rows if not row.passed), None)


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
        raise ValueError(f"there is no parameter {name!r}; there are {', '.join(flat)}")
    array = np.ravel(flat[name])  # A view: the arrays are contiguous.
    array[np.argmax(np.abs(array))] *= factor

"""Runs both networks from the same weights on the same batch, and measures how far they part."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax.traverse_util import flatten_dict
from torch import nn

import unet_jax.step as jax_step
import unet_torch_ref.step as torch_step
from parity.cases import Case
from parity.convert import module_path, to_flax, to_torch
from unet_jax.models import build_model as build_flax
from unet_jax.pipeline import Batch
from unet_torch_ref.models import build_model as build_torch

MEAN_STD = ((0.49, 0.47, 0.43), (0.23, 0.24, 0.25))

Quantity = tuple[str, str]
"""(stage, name): stage is parameters, eval, train, statistics, loss or gradients."""

Quantities = dict[Quantity, np.ndarray]


class Row(NamedTuple):
    """One tensor, compared.

    Attributes:
      case, precision: Which comparison; precision is float64 or float32.
      stage, name: Which tensor; layers come in the order in which they run.
      error: ‖a - b‖ / ‖b‖; infinite where a tensor is missing, misshapen or not finite.
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


LIMITS = {
    # Same weights, carried across: no arithmetic, so no error.
    "parameters": 0.0,
    # Sums of up to 10⁵ products in another order: a trial of the full-size network gave 3e-15 for
    # the logits and 9e-15 for the worst gradient. What a fault changes is 1e-8 or more.
    "float64": 1e-12,
    # JAX's distance to the float64 truth, as a multiple of PyTorch's own.
    "float32": 2.0,
    # Where PyTorch happens to be luckier than rounding allows in general: 8 units in the last
    # place of float32. Matters for scalars and tensors of a few entries, whose error is one draw.
    "float32 floor": 8 * float(np.finfo(np.float32).eps),
}


def relative_error(a: np.ndarray, b: np.ndarray) -> float:
    """‖a - b‖ / ‖b‖ in float64 (‖a‖ if b is 0); infinite if shapes differ or it is not finite."""
    if np.shape(a) != np.shape(b):
        return float("inf")
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    error = np.linalg.norm((a - b).ravel()) / (np.linalg.norm(b.ravel()) or 1.0)
    return float(error) if np.isfinite(error) else float("inf")


def make_batch(case: Case, seed: int = 0) -> Batch:
    """Random pixels and classes; of two or more images, the last is padding."""
    rng = np.random.default_rng(seed)
    height, width = case.size
    classes = max(case.num_classes, 2)
    image = rng.integers(0, 256, (case.batch, height, width, 3), dtype=np.uint8)
    mask = rng.integers(0, classes, (case.batch, height, width), dtype=np.uint8)
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
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.uniform_(-0.5, 0.5)
                module.running_var.uniform_(0.5, 1.5)
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
    tensors = torch_step.Batch(*(torch.from_numpy(array) for array in batch))
    dtype = next(model.parameters()).dtype
    image = torch_step.normalise(tensors.image, MEAN_STD, dtype)

    found |= {("parameters", n): v for n, v in _by_path(to_flax(torch_state(model), model))}
    with torch.no_grad():
        model.eval()(image)
    stage = "train"
    loss, pixels = torch_step.summed_loss(model.train()(image), tensors)
    mean_loss = loss / pixels
    grads = torch.autograd.grad(mean_loss, list(model.parameters()))
    for hook in hooks:
        hook.remove()

    after = to_flax(torch_state(model), model)
    found |= {("statistics", n): v for n, v in _by_path({"": after.get("batch_stats", {})})}
    found["loss", "mean loss"] = mean_loss.detach().numpy()
    names = [name for name, _ in model.named_parameters()]
    gradients = torch_state(model) | {n: g.numpy() for n, g in zip(names, grads, strict=True)}
    found |= {
        ("gradients", n): v for n, v in _by_path({"": to_flax(gradients, model)["params"]})
    }
    return found


def run_flax(case: Case, variables: Mapping[str, Any], batch: Batch) -> Quantities:
    """Everything there is to compare, from the JAX side, in the variables' precision."""
    model = build_flax(case.model, case.num_classes)
    variables = jax.tree.map(jnp.asarray, dict(variables))
    params, batch_stats = variables["params"], variables.get("batch_stats", {})
    dtype = jax.tree.leaves(params)[0].dtype

    @jax.jit
    def forward(params: Any, batch_stats: Any) -> tuple[Any, Any]:
        variables = {"params": params, "batch_stats": batch_stats}
        image = jax_step.normalise(jnp.asarray(batch.image), MEAN_STD, dtype)
        capture = {"capture_intermediates": True}
        _, evaluated = model.apply(variables, image, **capture)
        mutable = ["batch_stats", "intermediates"]
        _, trained = model.apply(variables, image, train=True, mutable=mutable, **capture)
        return evaluated["intermediates"], trained["intermediates"]

    evaluated, trained = forward(params, batch_stats)
    gradients, sums, batch_stats = jax.jit(
        lambda params, stats: jax_step.loss_and_grads(model, params, stats, batch, MEAN_STD)
    )(params, batch_stats)

    found: Quantities = {("parameters", n): v for n, v in _by_path(variables)}
    found |= {("eval", n): v for n, v in _calls(evaluated)}
    found |= {("train", n): v for n, v in _calls(trained)}
    found |= {("statistics", n): v for n, v in _by_path({"": batch_stats})}
    found["loss", "mean loss"] = np.asarray(sums.loss / sums.pixels)
    found |= {("gradients", n): v for n, v in _by_path({"": gradients})}
    return found


def _by_path(tree: Mapping[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    for path, leaf in flatten_dict(dict(tree)).items():
        yield "/".join(part for part in path if part), np.asarray(leaf)


def _calls(intermediates: Mapping[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    for path, outputs in flatten_dict(dict(intermediates)).items():
        yield "/".join(path[:-1]) or "logits", np.asarray(outputs[0])


def compare(case: Case, variables: Mapping[str, Any] | None = None, seed: int = 0) -> list[Row]:
    """Compares the two networks in float64, then in float32.

    Args:
      case: The configuration.
      variables: The Flax side's weights in float64, to see a fault found; the PyTorch side's by
        default.
      seed: Draws weights and batch.

    Returns:
      A row for each tensor, in the order in which they are computed.
    """
    batch = make_batch(case, seed)
    weights = torch_state(make_torch(case, seed))
    results: dict[str, tuple[Quantities, Quantities]] = {}
    for precision in ("float64", "float32"):
        model = make_torch(case, seed).to(getattr(torch, precision))
        state = {name: value.detach().numpy() for name, value in model.state_dict().items()}
        carried = to_flax(state, model) if variables is None else _cast(variables, precision)
        flax_side = run_flax(case, carried, batch)
        results[precision] = (flax_side, run_torch(model, batch))
    del weights
    truth = results["float64"][1]
    rows = []
    for precision, (flax_side, torch_side) in results.items():
        rows += [
            _row(case, precision, quantity, flax_side, torch_side, truth)
            for quantity in _order(torch_side, flax_side)
        ]
    return rows


def _order(first: Quantities, second: Quantities) -> list[Quantity]:
    return [*first, *(quantity for quantity in second if quantity not in first)]


def _row(
    case: Case,
    precision: str,
    quantity: Quantity,
    flax_side: Quantities,
    torch_side: Quantities,
    truth: Quantities,
) -> Row:
    stage, name = quantity
    if quantity not in flax_side or quantity not in torch_side:
        return Row(case.name, precision, stage, name, float("inf"), 0.0)
    ours, theirs = flax_side[quantity], torch_side[quantity]
    if stage == "parameters":
        return Row(case.name, precision, stage, name, relative_error(ours, theirs), 0.0)
    if precision == "float64":
        error = relative_error(ours, theirs)
        return Row(case.name, precision, stage, name, error, LIMITS["float64"])
    own = relative_error(theirs, truth[quantity])
    limit = max(LIMITS["float32"] * own, LIMITS["float32 floor"])
    return Row(case.name, precision, stage, name, relative_error(ours, truth[quantity]), limit)


def _cast(variables: Mapping[str, Any], precision: str) -> Any:
    def cast(leaf: np.ndarray) -> np.ndarray:
        return leaf.astype(precision) if leaf.dtype.kind == "f" else leaf

    return jax.tree.map(cast, dict(variables))


def first_divergence(rows: list[Row]) -> Row | None:
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

"""Both networks with the same weights, and all that they compute of a batch, by the same names."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax.traverse_util import flatten_dict
from torch import nn

from parity.cases import MEAN_STD, Case
from parity.convert import Variables, module_path, to_flax
from parity.device import compiled_quickly
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

Quantity = tuple[str, str]
"""(stage, name): stage is parameters, eval, train, statistics, loss or gradients."""

Quantities = dict[Quantity, np.ndarray]


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
    """The state_dict as arrays, which share a CPU's memory with it."""
    return {name: value.detach().cpu().numpy() for name, value in model.state_dict().items()}


def carried(model: nn.Module) -> Variables:
    """The twin's weights and statistics, as Flax has them."""
    return to_flax(torch_state(model), model)


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

    found |= {("parameters", n): v for n, v in _by_path(carried(model))}
    with torch.no_grad():
        model.eval()(image)
    stage = "train"
    loss = TorchLoss()
    mean_loss = loss.total(loss.sums(model.train()(image), tensors.mask, tensors.valid))
    grads = torch.autograd.grad(mean_loss, list(model.parameters()))
    for hook in hooks:
        hook.remove()

    after = carried(model)
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
        logits = model.apply(variables, image)  # Of layers that do some of each other's work.
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
        evaluated = {**evaluated["intermediates"], "__call__": (logits,)}
        return evaluated, trained["intermediates"], stepped

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

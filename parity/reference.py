"""Both networks a third time, in NumPy alone: says which framework is wrong where they differ."""

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from parity.cases import Case
from parity.convert import Variables, module_path, places, to_flax
from parity.row import Row, relative_error
from parity.sides import Quantities, make_batch, make_torch, run_flax, run_torch, torch_state
from unet_jax.batch import IGNORED, Batch

EPSILON, MOMENTUM = 1e-5, 0.1
"""Of the norms. Written down again, not read from a layer that may hold another value."""
AGREES = 1e-10
"""Relative, in float64; the worst tensor of a network is 1e-13 away, and a fault far more."""
NUDGE = 1e-6
"""How far parameters move along a gradient's difference; a difference quotient of two losses has 9
digits then."""
SLOPE_AGREES = 1e-6
"""Relative, for such a quotient."""

State = Mapping[str, np.ndarray]


class Reference:
    """A forward pass over images [B, C, H, W] in float64.

    Attributes:
      outputs: What each layer gave, [B, H, W, C], by its Flax path; `logits` is the last.
      statistics: Running statistics after it, by their PyTorch name.
    """

    def __init__(self, case: Case, state: State, image: np.ndarray, *, train: bool) -> None:
        """Args:
        case: The configuration.
        state: Of the PyTorch network.
        image: Normalised, [B, C, H, W].
        train: Whether batch norms take the batch's statistics.
        """
        self.model, self.state, self.train = case.model, state, train
        self.outputs: dict[str, np.ndarray] = {}
        self.statistics: dict[str, np.ndarray] = {}
        forward = self._residual if case.model.architecture == "residual" else self._plain
        self._note("", forward(image))

    def _note(self, name: str, output: np.ndarray) -> np.ndarray:
        self.outputs["/".join(module_path(name)) or "logits"] = output.transpose(0, 2, 3, 1)
        return output

    def _residual(self, x: np.ndarray) -> np.ndarray:
        model, size = self.model, x.shape[2:]
        unit = 2 ** len(model.channels)
        x = self._match(x, (math.ceil(size[0] / unit) * unit, math.ceil(size[1] / unit) * unit))
        skips = [x := self._conv("conv_in", x)]
        encoder = sorted({int(name.split(".")[1]) for name in self.state if "encoder." in name})
        down = [f"encoder.{n}.weight" in self.state for n in encoder]
        for n in encoder:
            x = self._conv(f"encoder.{n}", x, 2) if down[n] else self._block(f"encoder.{n}", x)
            skips.append(x)
        for n in range(model.blocks_per_stage):
            x = self._block(f"bottleneck.{n}", x)
        level = 0
        for n, doubles in enumerate([*reversed(down), False]):
            skip = skips.pop()
            joined = np.concatenate([x, skip], axis=1) if model.skip else x
            x = self._block(f"decoder.{n}", joined)
            if doubles:
                x = self._note(f"upsample.{level}", self._upsample(f"upsample.{level}.conv", x))
                level += 1
        x = self._conv("conv_out", x)
        if x.shape[2:] == size:
            return x
        if model.size_policy == "resize":
            return bilinear(x, size, align_corners=False)
        top, left = ((now - then) // 2 for now, then in zip(x.shape[2:], size, strict=True))
        return x[:, :, top : top + size[0], left : left + size[1]]

    def _block(self, name: str, x: np.ndarray) -> np.ndarray:
        y = self._conv(f"{name}.conv_1", np.maximum(self._norm(f"{name}.norm_1", x), 0))
        y = self._conv(f"{name}.conv_2", np.maximum(self._norm(f"{name}.norm_2", y), 0))
        shortcut = f"{name}.shortcut"
        kept = self._conv(shortcut, x) if f"{shortcut}.weight" in self.state else x
        return self._note(name, kept + y)

    def _upsample(self, name: str, x: np.ndarray) -> np.ndarray:
        if self.model.upsample == "transposed":
            return self._up_conv(name, x)
        return self._conv(name, bilinear(x, (2 * x.shape[2], 2 * x.shape[3]), align_corners=True))

    def _plain(self, x: np.ndarray) -> np.ndarray:
        skips = []
        for n in range(len(self.model.channels)):
            skips.append(x := self._double(f"encoder.{n}", x))
            height, width = x.shape[2] // 2, x.shape[3] // 2
            halves = x[:, :, : 2 * height, : 2 * width]
            x = halves.reshape(*x.shape[:2], height, 2, width, 2).max((3, 5))
        x = self._double("bottleneck", x)
        for n in range(len(self.model.channels)):
            if self.model.upsample == "transposed":
                x = self._up_conv(f"upsample.{n}", x)
            else:
                x = bilinear(x, (2 * x.shape[2], 2 * x.shape[3]), align_corners=True)
            skip = skips.pop()
            x = np.concatenate([skip, self._match(x, skip.shape[2:])], axis=1)
            x = self._double(f"decoder.{n}", x)
        return self._conv("conv_out", x)

    def _double(self, name: str, x: np.ndarray) -> np.ndarray:
        for n in (1, 2):
            x = self._norm(f"{name}.norm_{n}", self._conv(f"{name}.conv_{n}", x))
            x = np.maximum(x, 0)
        return self._note(name, x)

    def _match(self, x: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
        if x.shape[2:] == size:
            return x
        if self.model.size_policy == "resize":
            return bilinear(x, size, align_corners=False)
        rows, columns = (now - then for now, then in zip(size, x.shape[2:], strict=True))
        margins = ((rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2))
        return np.pad(x, ((0, 0), (0, 0), *margins))

    def _conv(self, name: str, x: np.ndarray, stride: int = 1) -> np.ndarray:
        weight, bias = self.state[f"{name}.weight"], self.state.get(f"{name}.bias", 0)
        side = weight.shape[2]
        padded = np.pad(x, ((0, 0), (0, 0), *[(side // 2, side // 2)] * 2))
        windows = sliding_window_view(padded, (side, side), axis=(2, 3))[:, :, ::stride, ::stride]
        y = np.einsum("bchwij,ocij->bohw", windows, weight, optimize=True)
        return self._note(name, y + np.reshape(bias, (1, -1, 1, 1)))

    def _up_conv(self, name: str, x: np.ndarray) -> np.ndarray:
        weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        batch, _, height, width = x.shape
        y = np.einsum("bchw,coij->bohiwj", x, weight, optimize=True)
        y = y.reshape(batch, -1, 2 * height, 2 * width)
        return self._note(name, y + bias.reshape(1, -1, 1, 1))

    def _norm(self, name: str, x: np.ndarray) -> np.ndarray:
        if self.model.norm == "none":
            return x
        scale, bias = (self.state[f"{name}.{n}"].reshape(1, -1, 1, 1) for n in ("weight", "bias"))
        if self.model.norm == "group":
            groups = x.reshape(len(x), self.model.groups, -1)
            mean, var = groups.mean(-1, keepdims=True), groups.var(-1, keepdims=True)
            normal = ((groups - mean) / np.sqrt(var + EPSILON)).reshape(x.shape)
        else:
            mean, var = self.state[f"{name}.running_mean"], self.state[f"{name}.running_var"]
            if self.train:
                batch = x.mean((0, 2, 3)), x.var((0, 2, 3), ddof=1)
                for entry, old, new in zip(("mean", "var"), (mean, var), batch, strict=True):
                    kept = (1 - MOMENTUM) * old + MOMENTUM * new
                    self.statistics[f"{name}.running_{entry}"] = kept
                mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3))
            mean, var = mean.reshape(1, -1, 1, 1), var.reshape(1, -1, 1, 1)
            normal = (x - mean) / np.sqrt(var + EPSILON)
        return self._note(name, normal * scale + bias)


def bilinear(x: np.ndarray, size: tuple[int, ...], *, align_corners: bool) -> np.ndarray:
    """[B, C, h, w] -> [B, C, *size]."""
    for axis, many in zip((2, 3), size, strict=True):
        few = x.shape[axis]
        if align_corners:
            places = np.linspace(0, few - 1, many)
        else:
            places = (np.arange(many) + 0.5) * few / many - 0.5
        one = np.stack([np.interp(places, np.arange(few), row) for row in np.eye(few)])
        x = np.moveaxis(np.moveaxis(x, axis, -1) @ one, -1, axis)
    return x


def normalised(case: Case, batch: Batch) -> np.ndarray:
    """The batch's images as `Reference` takes them, [B, C, H, W]."""
    mean, std = (np.reshape(values, (1, 1, 1, -1)) for values in case.mean_std)
    return ((batch.image / 255 - mean) / std).transpose(0, 3, 1, 2)


def mean_loss(logits: np.ndarray, batch: Batch) -> float:
    """Cross-entropy of logits [B, H, W, K], mean over the pixels that count."""
    counted = batch.valid[:, None, None] & (batch.mask != IGNORED)
    if logits.shape[-1] == 1:
        logits = np.concatenate([np.zeros_like(logits), logits], axis=-1)
    log_p = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    target = np.where(counted, batch.mask, 0)[..., None].astype(int)
    return float(-np.take_along_axis(log_p, target, axis=-1)[..., 0][counted].mean())


def third_opinion(
    case: Case,
    first: Row,
    change: Callable[[Variables], None] | None = None,
    model: Any = None,
    seed: int = 0,
) -> str:
    """Which framework is wrong about the tensor that differs first.

    Args:
      case: Its configuration.
      first: Its row.
      change: The fault that was planted in Flax's weights, as in `parity.compare.compare`.
      model: The PyTorch network; None: as `compare` makes it.
      seed: As `compare` has it.
    """
    where = f"{first.stage} at {first.name}"
    if first.stage == "parameters":
        return f"{where}: the weights themselves differ, before any arithmetic"
    if first.precision != "float64":
        return f"{where}: in float64 the two agree, so it is precision and not the arithmetic"
    twin = make_torch(case, seed) if model is None else copy.deepcopy(model)
    # Copies, for running it changes its statistics.
    state = {name: value.copy() for name, value in torch_state(twin).items()}
    batch = make_batch(case, seed)
    variables = to_flax(state, twin)
    if change is not None:
        change(variables)
    [ours] = run_flax(case, variables, [batch])
    theirs = run_torch(twin, batch, case.mean_std)
    quantity = first.stage, first.name
    if quantity not in ours or quantity not in theirs:
        missing = "PyTorch" if quantity in ours else "JAX"
        return f"{where}: {missing} has no such tensor"
    image = normalised(case, batch)

    def run(state: State, train: bool = True) -> Reference:
        return Reference(case, state, image, train=train)

    if first.stage == "gradients":
        return where + ": " + _slopes(run, state, batch, twin, ours, theirs, first.name)
    if first.stage == "loss":
        truth = np.asarray(mean_loss(run(state).outputs["logits"], batch))
    elif first.stage == "statistics":
        paths = {"/".join(p.path[1:]): p.torch_name for p in places(twin)}
        known = run(state).statistics
        if paths[first.name] not in known:
            return f"{where}: a counter, which the reference does not keep"
        truth = known[paths[first.name]]
    else:
        truth = run(state, first.stage == "train").outputs[first.name]
    a, b = (relative_error(side[quantity], truth) for side in (ours, theirs))
    return f"{where}: " + _verdict(a, b, AGREES, "NumPy's float64")


def _slopes(
    run: Callable[[State], Reference],
    state: State,
    batch: Batch,
    twin: Any,
    ours: Quantities,
    theirs: Quantities,
    name: str,
) -> str:
    """Compares both gradients along their difference with a quotient of NumPy's losses."""
    [place] = [p for p in places(twin) if "/".join(p.path[1:]) == name and p.path[0] == "params"]
    back = np.argsort(place.axes) if place.axes else None
    a, b = (side["gradients", name].transpose(back) for side in (ours, theirs))
    way = (a - b) / np.linalg.norm(a - b)

    def loss(length: float) -> float:
        moved = {**state, place.torch_name: state[place.torch_name] + length * way}
        return mean_loss(run(moved).outputs["logits"], batch)

    slope = (loss(NUDGE) - loss(-NUDGE)) / (2 * NUDGE)
    scale = max(float(np.linalg.norm(b)), abs(slope))
    ahead, behind = (abs(float(np.sum(side * way)) - slope) / scale for side in (a, b))
    return _verdict(ahead, behind, SLOPE_AGREES, "the slope of NumPy's loss")


def _verdict(ours: float, theirs: float, near: float, truth: str) -> str:
    said = f"JAX is {ours:.0e} and PyTorch {theirs:.0e} from {truth}"
    match ours <= near, theirs <= near:
        case False, True:
            return f"{said}, so JAX is wrong"
        case True, False:
            return f"{said}, so PyTorch is wrong"
        case True, True:
            return f"{said}: too near to tell"
        case _:
            return f"{said}: both are wrong, or the reference"

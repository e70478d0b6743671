"""States to be saved and recognised, in both frameworks; for tests and for their processes."""

from collections.abc import Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import jax
import numpy as np

FRAMEWORKS = ("jax", "torch")


def checkpoint_module(framework: str) -> Any:
    """The framework's checkpoints. A process that needs one framework need not load both."""
    return import_module({"jax": "unet_jax", "torch": "unet_torch_ref"}[framework] + ".checkpoint")


def numbers(step: int, width: int) -> dict[str, np.ndarray]:
    """What the state of `step` holds; random, so that damage does not go unnoticed."""
    rng = np.random.default_rng(step)
    shapes = {"kernel": (3, 3, width, width), "bias": (width,), "mean": (width,), "moment": (5, 7)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def position(step: int) -> dict[str, Any]:
    """The JSON values saved with the state of `step`."""
    return {"epoch": step, "loss": step / 3, "names": ["a", None], "more": {}}


def jax_state(step: int, width: int = 8, place: Any = None) -> Any:
    """A training state, placed by a device or a sharding."""
    from unet_jax.scale import LossScale
    from unet_jax.schedule import Plateau
    from unet_jax.state import TrainState

    n = numbers(step, width)
    # Not jnp's: what device_put makes of those for several processes has no shards (JAX 0.10).
    count: Any = partial(np.asarray, dtype=np.int32)
    number: Any = partial(np.asarray, dtype=np.float32)
    state = TrainState(
        step=count(step),
        params={"conv": {"kernel": n["kernel"], "bias": n["bias"]}},
        batch_stats={"norm": {"mean": n["mean"]}},
        opt_state=(n["moment"], ()),
        plateau=Plateau(factor=number(0.5), best=number(step / 7), bad_epochs=count(1)),
        skipped=count(2),
        skipped_in_row=count(1),
        ema={"conv": {"kernel": -n["kernel"], "bias": -n["bias"]}},
        scale=LossScale(factor=number(2.0**step), finite_steps=count(step)),
    )
    return jax.tree.map(lambda leaf: jax.device_put(leaf, place), state)


def torch_state(step: int, width: int = 8) -> dict[str, Any]:
    """What a PyTorch learner saves."""
    import torch

    n = {name: torch.from_numpy(array) for name, array in numbers(step, width).items()}
    model = {"conv.kernel": n["kernel"], "conv.bias": n["bias"], "norm.mean": n["mean"]}
    ema = {"conv.kernel": -n["kernel"], "conv.bias": -n["bias"]}
    optimizer = {"state": {0: {"moment": n["moment"]}}, "param_groups": [{"lr": 0.1}]}
    return {"step": step, "model": model, "ema": ema, "optimizer": optimizer}


def make_state(framework: str, step: int, width: int, place: Any = None) -> Any:
    return jax_state(step, width, place) if framework == "jax" else torch_state(step, width)


class Store:
    """The checkpoints in a folder, used as a run uses them.

    Attributes:
      said: What was told about damaged checkpoints.
    """

    def __init__(
        self, framework: str, folder: Path, *, metric: str = "dice", width: int = 8, **options: Any
    ) -> None:
        self.framework, self.folder, self.width = framework, folder, width
        self.said: list[str] = []
        made = checkpoint_module(framework).Checkpoints
        self.checkpoints = made(folder, metric, say=self.said.append, **options)

    def save(
        self, step: int, metrics: Mapping[str, float] | None = None, place: Any = None
    ) -> None:
        state = make_state(self.framework, step, self.width, place)
        self.checkpoints.save(state, position(step), metrics)

    def template(self, width: int | None = None, place: Any = None) -> Any:
        state = make_state(self.framework, 0, width or self.width, place)
        if self.framework == "torch":
            return {part: state[part] for part in ("model", "ema")}
        return state

    def restored(self, *, best: bool = False, place: Any = None) -> int | None:
        """The step whose state is restored, every bit of it; None if there is none."""
        restore = self.checkpoints.restore_best if best else self.checkpoints.restore
        found = restore(self.template(place=place))
        if found is None:
            return None
        state, where = found
        step = int(state["step"] if self.framework == "torch" else state.step)
        assert where == position(step)
        assert content(state) == content(make_state(self.framework, step, self.width))
        return step

    def close(self) -> None:
        self.checkpoints.close()

    def names(self) -> set[str]:
        """What lies in the folder, whole or not."""
        return {path.name.removesuffix(".pt") for path in self.folder.iterdir()}


def content(state: Any) -> dict[str, Any]:
    """Type, shape and bytes of each entry of a state."""
    leaves = ((jax.tree_util.keystr(p), np.asarray(v)) for p, v in jax.tree.leaves_with_path(state))
    return {place: (leaf.dtype, leaf.shape, leaf.tobytes()) for place, leaf in leaves}

"""Where steps run: one device, the devices of this host, or those of many; the only such file."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, Protocol

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec
from jax.stages import Wrapped

from unet_jax.batch import Batch
from unet_jax.config import Config
from unet_jax.models.convolution import xla_alone
from unet_jax.models.platforms import for_default_device, traced_in

AXIS = "devices"
Mode = Literal["auto", "jit", "pmap", "shard"]
Step = Callable[..., Any]


class Parallel(Protocol):
    """A way to run pure steps. State is the same on all devices; batches are divided.

    Attributes:
      devices: How many take part, on all hosts.
      axis_name: What steps and batch norms are to sum over themselves; None if the compiler does.
    """

    devices: int
    axis_name: str | None

    def train(self, step: Step) -> Wrapped:
        """(state, batch) -> (state, metrics), compiled; the given state is used up."""
        ...

    def evaluate(self, step: Step) -> Step:
        """(state, batch) -> (sums, predicted [B, H, W] of this host's images), compiled."""
        ...

    def replicate(self, tree: Any) -> Any:
        """Puts arrays on every device."""
        ...

    def divide(self, batch: Batch) -> Batch:
        """Divides this host's share of a batch among its devices."""
        ...

    def take(self, held: Any, index: np.ndarray) -> Any:
        """Takes rows of replicated arrays, divided among the devices as a batch is."""
        ...


class Jit:
    """One device."""

    devices, axis_name = 1, None

    def train(self, step: Step) -> Wrapped:
        return jax.jit(for_default_device(step), donate_argnums=0)

    def evaluate(self, step: Step) -> Step:
        return jax.jit(for_default_device(step))

    def replicate(self, tree: Any) -> Any:
        return jax.device_put(tree)

    def divide(self, batch: Batch) -> Batch:
        return batch

    def take(self, held: Any, index: np.ndarray) -> Any:
        return _take(held, index)


class Pmap:
    """All devices of this host: each runs the step on its images, and sums with the others."""

    axis_name = AXIS

    def __init__(self) -> None:
        self.devices = jax.local_device_count()
        self._take = jax.pmap(_rows, in_axes=(None, 0))

    def train(self, step: Step) -> Wrapped:
        return self._map(step, out_axes=None, donate_argnums=0)

    def evaluate(self, step: Step) -> Step:
        mapped = self._map(step, out_axes=(None, 0))

        def run(state: Any, batch: Batch) -> tuple[Any, Any]:
            sums, predicted = mapped(state, batch)
            return sums, predicted.reshape(-1, *predicted.shape[2:])

        return run

    def _map(self, step: Step, **options: Any) -> Wrapped:
        return jax.pmap(for_default_device(step), axis_name=AXIS, in_axes=(None, 0), **options)

    def replicate(self, tree: Any) -> Any:
        return jax.device_put(tree, NamedSharding(_mesh(jax.local_devices()), PartitionSpec()))

    def divide(self, batch: Batch) -> Batch:
        return jax.tree.map(self._split, batch)

    def take(self, held: Any, index: np.ndarray) -> Any:
        return self._take(held, self._split(index))

    def _split(self, x: Any) -> Any:
        return x.reshape(self.devices, -1, *x.shape[1:]) if isinstance(x, np.ndarray) else x


class Shard:
    """All devices of all hosts: one program, which the compiler divides by the batch.

    It is XLA's alone, which cannot divide a library's work.
    """

    axis_name = None

    def __init__(self) -> None:
        self.devices = jax.device_count()
        self._mesh = _mesh(jax.devices())
        self._same = NamedSharding(self._mesh, PartitionSpec())
        self._divided = NamedSharding(self._mesh, PartitionSpec(AXIS))
        self._take = jax.jit(_rows, out_shardings=self._divided)

    def _traced(self, step: Step) -> Step:
        return traced_in(xla_alone, for_default_device(step))

    def train(self, step: Step) -> Wrapped:
        return jax.jit(
            self._traced(step),
            donate_argnums=0,
            in_shardings=(self._same, self._divided),
            out_shardings=self._same,
        )

    def evaluate(self, step: Step) -> Step:
        placed = (self._same, self._divided)
        compiled = jax.jit(self._traced(step), in_shardings=placed, out_shardings=placed)

        def run(state: Any, batch: Batch) -> tuple[Any, Any]:
            sums, predicted = compiled(state, batch)
            return sums, multihost_utils.global_array_to_host_local_array(
                predicted, self._mesh, self._divided.spec
            )

        return run

    def replicate(self, tree: Any) -> Any:
        return jax.tree.map(partial(jax.make_array_from_process_local_data, self._same), tree)

    def divide(self, batch: Batch) -> Batch:
        return jax.tree.map(self._place, batch)

    def take(self, held: Any, index: np.ndarray) -> Any:
        return self._take(held, self._place(index))

    def _place(self, x: Any) -> Any:
        if isinstance(x, jax.Array):
            return x
        return jax.make_array_from_process_local_data(self._divided, x)


def connect(coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Joins the other processes, before anything else asks JAX for its devices.

    Args:
      coordinator: HOST:PORT where process 0 listens; None: SLURM, Kubernetes, MPI or the TPU's own
        environment tells, as `jax.distributed.initialize` has it.
      processes: How many there are; likewise.
      process: Which one this is; likewise.

    Raises:
      ValueError: Nothing tells.
    """
    try:
        jax.distributed.initialize(coordinator, processes, process)
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"--distributed: {error}; give --coordinator, --processes and --process"
        ) from error


def named(devices: int) -> str:
    """So many devices by their kind: `8 × NVIDIA H100`."""
    return f"{devices} × " * (devices > 1) + jax.devices()[0].device_kind


def all_well(well: bool) -> bool:
    """Whether all hosts say so; each of them has to ask."""
    return bool(multihost_utils.process_allgather(np.asarray(well)).all())


def choose(mode: Mode, config: Config) -> Parallel:
    """The way that `mode` names; auto: jit on a single device, else shard.

    Args:
      mode: As of `--parallel`.
      config: Says how many images a step has, and in how many micro-batches.

    Raises:
      ValueError: It cannot reach all hosts, or the batch does not divide among the devices.
    """
    if mode == "auto":
        mode = "jit" if jax.device_count() == 1 else "shard"
    if mode != "shard" and jax.process_count() > 1:
        raise ValueError(
            f"parallel: {mode} reaches one host, and there are {jax.process_count()} processes; "
            "use shard"
        )
    parallel = {"jit": Jit, "pmap": Pmap, "shard": Shard}[mode]()
    reason = undivided(config, parallel.devices)
    if reason is not None:
        raise ValueError(f"{reason}; --parallel jit takes one device")
    return parallel


def undivided(config: Config, devices: int) -> str | None:
    """Why a step's images cannot be divided among so many devices; None if they can."""
    batch_size, accumulate = config.batch_size, config.train.accumulate
    if batch_size % (devices * accumulate) == 0:
        return None
    few = f" with overfit {config.data.overfit}" if config.data.overfit else ""
    parts = f" × {accumulate} micro-batches" if accumulate > 1 else ""
    return f"batch_size: {batch_size}{few} does not divide among {devices} devices{parts}"


@jax.jit
def _take(held: Any, index: np.ndarray) -> Any:
    return _rows(held, index)


def _rows(held: Any, index: jax.Array | np.ndarray) -> Any:
    return jax.tree.map(lambda array: array[index], held)


def _mesh(devices: Sequence[Any]) -> jax.sharding.Mesh:
    return jax.sharding.Mesh(np.asarray(devices), AXIS)

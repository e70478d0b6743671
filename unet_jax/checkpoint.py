"""Saving and restoring a run's state: the only file that knows Orbax.

A checkpoint is a folder named by its step. It holds `state`, and `facts`: the position in the data,
the metrics, and form and checksum of every entry of the state. Orbax checks its indices only, and
hands out damaged values as they are.
"""

import json
import logging
import re
import shutil
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from unet_jax.entries import checksums, differences, forms
from unet_jax.retention import Retention, Saved, new_name, order
from unet_jax.state import TrainState

# What fails in Orbax is raised here, and said once; it would log a page for each of its threads.
logging.getLogger("absl").addFilter(lambda record: "orbax" not in Path(record.pathname).parts)

Restored = tuple[TrainState, dict[str, Any]]


class CheckpointError(OSError):
    """A state could not be saved; the checkpoints before it are as they were."""


class DifferentState(ValueError):
    """A checkpoint is whole, but of another network or optimiser."""


class Checkpoints:
    """A folder that keeps the latest states, and the best by a validation metric.

    One run may write to it; reading changes nothing, and may go on beside. Several processes call
    each method together, and write one checkpoint.
    """

    def __init__(
        self,
        folder: Path,
        metric: str,
        *,
        lowest: bool = False,
        keep: int = 1,
        say: Callable[[str], object] = print,
    ) -> None:
        """Args:
        folder: Made at the first save.
        metric, lowest, keep: As in `unet_jax.retention`, `keep` being `latest` there.
        say: Told of each checkpoint that is damaged.
        """
        self.folder = folder.absolute()
        self._retention, self._say = Retention(metric, lowest, keep), say
        registry = ocp.handlers.local_registry()
        registry.add(ocp.handlers.JsonHandler, checkpointable_name="facts")
        self._context = ocp.Context()
        self._context.checkpointables.registry = registry
        names = sorted((path.name for path in _complete(self.folder)), key=order)
        self._saved = [Saved(name, self._metrics(name)) for name in names]
        self._used = set(names)
        self._waiter = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[list[Saved]] | None = None

    def save(
        self, state: TrainState, position: Mapping[str, Any], metrics: Mapping[str, float] | None
    ) -> None:
        """Starts to save the state as it is now: the next step may already have it donated.

        Args:
          state: The same on all devices.
          position: Where in the data the run is; JSON values.
          metrics: Validation metrics, if the state has been validated.

        Raises:
          CheckpointError: This save could not start, or the one before could not be finished.
        """
        self._wait()
        new = Saved(new_name(int(state.step), self._used), metrics and dict(metrics))
        self._used.add(new.name)
        facts = {
            "position": dict(position),
            "metrics": new.metrics,
            "forms": forms(state),
            "checksums": checksums(state),
        }
        facts["checksum"] = _checksum(facts)
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._sweep()
            with self._context:
                writing = ocp.save_checkpointables_async(
                    str(self.folder / new.name), {"state": state, "facts": facts}
                )
        except Exception as error:  # Orbax passes on whatever its storage raises.
            raise self._failure(new, size, error) from error
        kept = self._retention.kept([*self._saved, new])
        self._pending = self._waiter.submit(self._finish, writing, new, size, kept)

    def restore(self, template: TrainState) -> Restored | None:
        """The last state that is whole, and its position; None if nothing has been saved.

        Args:
          template: A state of the same structure, shapes and types, placed as the result is to
            be; its leaves may be `jax.ShapeDtypeStruct`.

        Raises:
          ValueError: The checkpoint is of another network, optimiser or framework, or none is
            whole.
        """
        self._wait()
        self._refuse_others()
        found = self._first_whole(reversed(self._saved), template)
        if found is None:
            return None
        whole, restored = found
        # Those after it are damaged: the next save removes them.
        self._saved = self._saved[: self._saved.index(whole) + 1]
        return restored

    def restore_best(self, template: TrainState) -> Restored | None:
        """As `restore`, but the best state; None if none has been validated."""
        self._wait()
        found = self._first_whole(self._retention.best_first(self._saved), template)
        return found and found[1]

    def close(self) -> None:
        """Waits for what is being written.

        Raises:
          CheckpointError: It could not be finished.
        """
        try:
            self._wait()
        finally:
            self._waiter.shutdown()

    def _finish(
        self, writing: ocp.AsyncResponse[None], new: Saved, size: int, kept: list[Saved]
    ) -> list[Saved]:
        """Waits until `new` is complete, and only then removes all that are not to be kept."""
        try:
            writing.result()
        except Exception as error:
            raise self._failure(new, size, error) from error
        if jax.process_index() == 0:
            for path in _complete(self.folder):
                if path.name not in {saved.name for saved in kept}:
                    shutil.rmtree(path, ignore_errors=True)
        return kept

    def _wait(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            self._saved = pending.result()

    def _refuse_others(self) -> None:
        """Raises `ValueError` if the folder holds something, and none of it is ours."""
        paths = self.folder.iterdir() if self.folder.is_dir() else ()
        others = sorted(path.name for path in paths if path.suffix != ".orbax-checkpoint-tmp")
        if others and not self._saved:
            raise ValueError(f"{self.folder} holds no checkpoint of JAX: {', '.join(others)}")

    def _sweep(self) -> None:
        """Removes what was half-written when a process was killed or the disk was full."""
        for _ in range(20):  # Threads of a save that failed may still be writing into it.
            left = [*self.folder.glob("*.orbax-checkpoint-tmp")]
            if jax.process_index() or not left:
                return
            for path in left:
                shutil.rmtree(path, ignore_errors=True)
            time.sleep(0.05)

    def _failure(self, new: Saved, size: int, error: Exception) -> CheckpointError:
        message = f"{self.folder}: checkpoint {new.name} could not be written: {_line(error)}"
        if self.folder.exists():
            self._sweep()
            free = shutil.disk_usage(self.folder).free
            message += f"; it takes up to {size / 1e6:,.1f} MB, {free / 1e6:,.1f} MB are free"
        return CheckpointError(message)

    def _first_whole(
        self, candidates: Iterable[Saved], template: TrainState
    ) -> tuple[Saved, Restored] | None:
        """Raises `ValueError` if there are candidates, but none is whole."""
        abstract, tried = jax.tree.map(_abstract, template), []
        for one in candidates:
            restored, problem = None, "another process found it so"
            try:
                restored = self._load(one.name, abstract)
            except DifferentState:
                raise
            except Exception as error:  # What reading damaged files raises, nobody lists.
                problem = _line(error)
            # If one process went back further than another, their states would differ.
            if multihost_utils.process_allgather(np.asarray(restored is not None)).all():
                return one, cast(Restored, restored)
            self._say(f"{self.folder / one.name} is damaged and not used: {problem}")
            tried.append(one.name)
        if tried:
            raise ValueError(f"{self.folder}: all checkpoints are damaged: {', '.join(tried)}")
        return None

    def _load(self, name: str, abstract: TrainState) -> Restored:
        facts = self._facts(name)
        different = differences(facts["forms"], forms(abstract))
        if different:
            raise DifferentState(
                f"{self.folder / name} is of another network or optimiser:\n  "
                + "\n  ".join(different)
            )
        state = cast(TrainState, self._read(name, "state", abstract))
        found = checksums(state)
        for path, checksum in facts["checksums"].items():
            if found[path] != checksum:
                raise ValueError(f"the checksum of {path} is wrong")
        return state, facts["position"]

    def _facts(self, name: str) -> dict[str, Any]:
        facts = cast(dict[str, Any], self._read(name, "facts", None))
        if facts.pop("checksum") != _checksum(facts):
            raise ValueError("the checksum of its facts is wrong")
        return facts

    def _metrics(self, name: str) -> Mapping[str, float] | None:
        try:
            return self._facts(name)["metrics"]
        except Exception:  # It is damaged: `restore` will say so, if it gets there.
            return None

    def _read(self, name: str, item: str, abstract: Any) -> Any:
        with self._context:
            return ocp.load_checkpointables(str(self.folder / name), {item: abstract})[item]


def _complete(folder: Path) -> list[Path]:
    paths = folder.iterdir() if folder.is_dir() else ()
    return [path for path in paths if re.fullmatch(r"\d+(\.\d+)?", path.name)]


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    sharding = leaf.sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _checksum(facts: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(facts, sort_keys=True).encode())


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:400]}"

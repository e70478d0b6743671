"""Saving and restoring a run's state.

A checkpoint is what `torch.save` makes of `state`, `position` and `metrics`: a zip archive, named
by its step. The archive has a checksum of each part, which `torch.load` does not look at.
"""

import io
import os
import re
import shutil
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from unet_torch_ref.entries import differences, forms, tensors
from unet_torch_ref.retention import Retention, Saved, new_name, order

Restored = tuple[dict[str, Any], dict[str, Any]]


class CheckpointError(OSError):
    """A state could not be saved; the checkpoints before it are as they were."""


class DifferentState(ValueError):
    """A checkpoint is whole, but of another network or optimiser."""


class Checkpoints:
    """A folder that keeps the latest states, and the best by a validation metric.

    One run may write to it; reading changes nothing, and may go on beside.
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
        metric, lowest, keep: As in `unet_torch_ref.retention`, `keep` being `latest` there.
        say: Told of each checkpoint that is damaged.
        """
        self.folder = folder.absolute()
        self._retention, self._say = Retention(metric, lowest, keep), say
        names = sorted((path.stem for path in _complete(self.folder)), key=order)
        self._saved = [Saved(name, self._metrics(name)) for name in names]
        self._used = set(names)

    def save(
        self,
        state: Mapping[str, Any],
        position: Mapping[str, Any],
        metrics: Mapping[str, float] | None,
    ) -> None:
        """Saves a state.

        Args:
          state: `step`, and whatever else `torch.load(weights_only=True)` reads.
          position: Where in the data the run is; JSON values.
          metrics: Validation metrics, if the state has been validated.

        Raises:
          CheckpointError: It could not be written.
        """
        new = Saved(new_name(state["step"], self._used), metrics and dict(metrics))
        self._used.add(new.name)
        content = {"state": dict(state), "position": dict(position), "metrics": new.metrics}
        draft = self._path(new.name).with_suffix(".pt.part")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._sweep()
            archive = io.BytesIO()  # Writing to a file, torch hides what the disk said.
            torch.save(content, archive)
            with draft.open("wb") as file:
                file.write(archive.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, self._path(new.name))
        except Exception as error:
            raise self._failure(new.name, state, error) from error
        self._saved = self._retention.kept([*self._saved, new])
        for path in _complete(self.folder):
            if path.stem not in {saved.name for saved in self._saved}:
                path.unlink(missing_ok=True)

    def restore(self, expected: Mapping[str, Any]) -> Restored | None:
        """The last state that is whole, and its position; None if nothing has been saved.

        Args:
          expected: The parts of the state whose tensors have to be of the same types and shapes as
            those saved, as in `{"model": model.state_dict()}`.

        Returns:
          As given to `save`, on the CPU.

        Raises:
          ValueError: The checkpoint is of another network, optimiser or framework, or none is
            whole.
        """
        self._refuse_others()
        found = self._first_whole(reversed(self._saved), expected)
        if found is None:
            return None
        whole, restored = found
        # Those after it are damaged: the next save removes them.
        self._saved = self._saved[: self._saved.index(whole) + 1]
        return restored

    def restore_best(self, expected: Mapping[str, Any]) -> Restored | None:
        """As `restore`, but the best state; None if none has been validated."""
        found = self._first_whole(self._retention.best_first(self._saved), expected)
        return found and found[1]

    def close(self) -> None:
        """Nothing is under way between calls."""

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.pt"

    def _refuse_others(self) -> None:
        """Raises `ValueError` if the folder holds something, and none of it is ours."""
        paths = self.folder.iterdir() if self.folder.is_dir() else ()
        others = sorted(path.name for path in paths if not path.name.endswith(".pt.part"))
        if others and not self._saved:
            raise ValueError(f"{self.folder} holds no checkpoint of PyTorch: {', '.join(others)}")

    def _sweep(self) -> None:
        """Removes what was half-written when a process was killed or the disk was full."""
        for path in self.folder.glob("*.pt.part"):
            path.unlink()

    def _failure(self, name: str, state: Mapping[str, Any], error: Exception) -> CheckpointError:
        message = f"{self.folder}: checkpoint {name} could not be written: {_line(error)}"
        if self.folder.exists():
            self._sweep()
            size = sum(tensor.nbytes for _, tensor in tensors(state))
            free = shutil.disk_usage(self.folder).free
            message += f"; it takes up to {size / 1e6:,.1f} MB, {free / 1e6:,.1f} MB are free"
        return CheckpointError(message)

    def _first_whole(
        self, candidates: Iterable[Saved], expected: Mapping[str, Any]
    ) -> tuple[Saved, Restored] | None:
        """Raises `ValueError` if there are candidates, but none is whole."""
        tried = []
        for one in candidates:
            try:
                return one, self._load(one.name, expected)
            except DifferentState:
                raise
            except Exception as error:  # What reading damaged files raises, nobody lists.
                self._say(f"{self._path(one.name)} is damaged and not used: {_line(error)}")
            tried.append(one.name)
        if tried:
            raise ValueError(f"{self.folder}: all checkpoints are damaged: {', '.join(tried)}")
        return None

    def _load(self, name: str, expected: Mapping[str, Any]) -> Restored:
        path = self._path(name)
        with zipfile.ZipFile(path) as archive:
            wrong = archive.testzip()
        if wrong is not None:
            raise ValueError(f"the checksum of {wrong} is wrong")
        saved = torch.load(path, map_location="cpu", weights_only=True)
        state = saved["state"]
        compared = {part: state.get(part, {}) for part in expected}
        different = differences(forms(compared), forms(expected))
        if different:
            raise DifferentState(
                f"{path} is of another network or optimiser:\n  " + "\n  ".join(different)
            )
        return state, saved["position"]

    def _metrics(self, name: str) -> Mapping[str, float] | None:
        try:
            with zipfile.ZipFile(self._path(name)) as archive:
                archive.read("archive/data.pkl")  # Which raises if the checksum is wrong.
            return torch.load(self._path(name), mmap=True, weights_only=True)["metrics"]
        except Exception:  # It is damaged: `restore` will say so, if it gets there.
            return None


def _complete(folder: Path) -> list[Path]:
    paths = folder.iterdir() if folder.is_dir() else ()
    return [path for path in paths if re.fullmatch(r"\d+(\.\d+)?\.pt", path.name)]


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:400]}"

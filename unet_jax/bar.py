"""Progress bars: of a training run, and of what comes before it."""

from collections.abc import Callable, Iterable
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn, track

from unet_jax.host_memory import free_host_memory

T = TypeVar("T")

Watch = Callable[[Iterable[T]], Iterable[T]]


def watched(console: Console, what: str, total: int) -> Watch[Any]:
    """Passes things on, and shows how many of `total` have gone by, as long as they do."""
    return partial(track, description=what, total=total, console=console, transient=True)


class Bar:
    """Shows where a run is, how fast it goes, and what it waits for."""

    def __init__(self, console: Console, epochs: int, steps: int) -> None:
        """Args:
        console: Where it is drawn.
        epochs, steps: Of the run; of an epoch.
        """
        self.epochs, self.steps = epochs, steps
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[facts]}"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task("", total=epochs * steps, facts="")

    def __enter__(self) -> "Bar":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(
        self,
        epoch: int,
        batch: int,
        *,
        loss: float,
        speed: float,
        wait: float,
        free: int | None,
    ) -> None:
        """Moves on.

        Args:
          epoch: The current one, from 0.
          batch: Steps taken in it.
          loss: Mean of the epoch.
          speed: Images a second.
          wait: Share of the time spent waiting for data.
          free: Free bytes of the accelerator; None where the device uses the host's memory.
        """
        memory = free if free is not None else free_host_memory()
        self._progress.update(
            self._task,
            completed=epoch * self.steps + batch,
            description=f"epoch {epoch + 1}/{self.epochs}",
            facts=f"loss {loss:.4f}  {speed:.1f} images/s  {wait:.0%} waiting for data  "
            f"{memory / 2**30:.1f} GiB free",
        )

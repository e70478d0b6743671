"""An object in a process of its own, whose methods are called one after another."""

import contextlib
import os
import re
import signal
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

from parity.benchmark.checkout import imported_from
from parity.benchmark.stopped import Stopped
from unet_jax.heap import keep_step_memory
from unet_jax.onednn.threads import keep_awake

LONGEST_REASON = 160
LOGGED = re.compile(r"[IWEF]\d{4} \S+ +\d+ \S+\] ")
"""What a line of XLA's log begins with: severity and date, time, thread, file."""
GRACE = 10.0
"""Seconds that an idle process has to end by itself."""


class Failed(Stopped):
    """The object cannot go on; the message says why in a few words."""


class Worker:
    """The process. Nothing that it has started is left after `close`."""

    def __init__(self, make: Callable[[], Any], log: Path, checkout: Path | None = None) -> None:
        """Args:
        make: Builds the object, there; can be pickled.
        log: Where all goes that the process prints.
        checkout: Another checkout of this project, whose code it is to be, but for what
          is set before a process starts (`unet_jax.onednn.threads`); None: this one's.
        """
        keep_awake()  # Of both frameworks; they read it as they are loaded.
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make, log))
        # Ctrl-C reaches every process of the terminal; this one alone is to answer it.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            with imported_from(checkout):
                self._process.start()
        finally:
            signal.signal(signal.SIGINT, before)
        theirs.close()
        self._log = log
        self._busy = True

    def ask(self, method: str, seconds: float, *args: Any) -> Any:
        """Calls a method of the object.

        Args:
          method: Its name.
          seconds: How long to wait for it.
          args: Its arguments.

        Raises:
          Failed: It raised an exception, took longer, or the process has ended.
        """
        self._busy = True
        with contextlib.suppress(BrokenPipeError):
            self._pipe.send((method, args))
        if not self._pipe.poll(seconds):
            raise Failed(f"not done after {seconds:.0f} s")
        try:
            well, answer = self._pipe.recv()
        except (EOFError, ConnectionResetError):
            self._process.join(10)
            raise Failed(ended(self._process.exitcode, self._log)) from None
        self._busy = False
        if not well:
            raise Failed(answer)
        return answer

    def close(self) -> None:
        """Ends the process, and all that it has started; may be called again."""
        if self._pipe.closed:
            return
        if not self._busy:  # What it has opened, it closes.
            with contextlib.suppress(BrokenPipeError):
                self._pipe.send(None)
            self._process.join(GRACE)
        own = []
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self._process.pid)
            own = [*process.children(recursive=True), process]
        for each in own:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        self._process.join()
        self._pipe.close()


def _serve(pipe: Connection, make: Callable[[], Any], log: Path) -> None:
    """Answers the parent until that ends."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    keep_step_memory()  # As training does.
    try:
        made = make()
        while (order := pipe.recv()) is not None:
            method, args = order
            pipe.send((True, getattr(made, method)(*args)))
    except EOFError:  # The parent has ended.
        return
    except BaseException as error:
        import traceback

        traceback.print_exc()
        with contextlib.suppress(OSError):
            pipe.send((False, reason(error)))


def reason(error: BaseException) -> str:
    """Why something failed, in a line."""
    text = str(error)
    memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if memory or "RESOURCE_EXHAUSTED" in text:
        return "out of memory"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return _short(f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__)


def ended(status: int | None, log: Path) -> str:
    """That a process ended by itself, and the last line that it printed, but for a stack's."""
    with contextlib.suppress(OSError):
        lines = log.read_text(errors="replace").splitlines()
        said = [line for line in lines if line.strip() and not line.startswith((" ", "*"))]
        if said:
            last = LOGGED.sub("", said[-1], count=1)
            return _short(f"its process ended, status {status}, after: {last}")
    return f"its process ended, status {status}"


def _short(line: str) -> str:
    return line if len(line) <= LONGEST_REASON else line[: LONGEST_REASON - 1] + "…"

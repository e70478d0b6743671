"""Scenes, rendered on all cores: in threads that each wait for a process of their own.

Rendering is hundreds of short calls of NumPy, between which Python's threads wait for each other:
at 64×96 two of them are slower than one. The processes are not started by `multiprocessing`, which
would have them import the script that prepares, guarded or not; and they end with the one that
started them, however it ends, because their input does.
"""

import contextlib
import math
import os
import signal
import sys
from collections.abc import Generator
from functools import partial
from queue import SimpleQueue
from subprocess import PIPE, Popen

import numpy as np

from unet_jax.datasets.errors import DataError
from unet_jax.datasets.scene import Bytes, render
from unet_jax.heap import keep_freed_memory
from unet_jax.side_by_side import side_by_side

WORTH = 9_000_000
"""Pixels that are worth a process: rendered in two seconds, where a process starts in one."""
OVERHEAD = 15_000
"""Pixels for which a scene takes as long as for what does not depend on its size."""

Scene = tuple[Bytes, Bytes]


def rendered(seed: int, count: int, size: tuple[int, int]) -> Generator[Scene, None, None]:
    """Renders the first scenes of a series, the same bytes on however many cores.

    Args:
      seed: Number of the series.
      count: How many.
      size: Height and width of each.

    Yields:
      Images, uint8 [H, W, 3], and masks of class ids, uint8 [H, W].

    Raises:
      DataError: A process that renders was killed.
    """
    pixels = count * (OVERHEAD + math.prod(size))
    processes = min(os.cpu_count() or 1, pixels // WORTH)
    if processes < 2:
        yield from (render(seed, index, *size) for index in range(count))
        return
    with contextlib.ExitStack() as stack:
        idle: SimpleQueue[Popen[bytes]] = SimpleQueue()
        for _ in range(processes):
            idle.put(stack.enter_context(_process(seed, size)))
        yield from side_by_side(partial(_render, idle, size), range(count))


def _process(seed: int, size: tuple[int, int]) -> "Popen[bytes]":
    code = f"from {__name__} import serve; serve({seed}, {size})"
    # A session of its own, because Ctrl-C in a terminal reaches a whole one.
    return Popen([sys.executable, "-c", code], stdin=PIPE, stdout=PIPE, start_new_session=True)


def _render(idle: "SimpleQueue[Popen[bytes]]", size: tuple[int, int], index: int) -> Scene:
    """Has any process render a scene."""
    process = idle.get()
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # Then there is nothing to be read, either.
            os.write(process.stdin.fileno(), b"%d\n" % index)
        content = process.stdout.read(4 * math.prod(size))
    finally:
        idle.put(process)
    if len(content) < 4 * math.prod(size):
        raise DataError("a process that renders scenes was killed: is there too little memory?")
    image, mask = np.split(np.frombuffer(content, np.uint8), [3 * math.prod(size)])
    return image.reshape(*size, 3), mask.reshape(size)


def serve(seed: int, size: tuple[int, int]) -> None:
    """Reads numbers of scenes from the standard input, and writes the bytes of each to the output.

    Args:
      seed: Number of the series.
      size: Height and width of each scene.
    """
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Ends without a word if nobody reads.
    keep_freed_memory()
    for line in sys.stdin.buffer:
        for pixels in render(seed, int(line), *size):
            sys.stdout.buffer.write(pixels.data)
        sys.stdout.buffer.flush()

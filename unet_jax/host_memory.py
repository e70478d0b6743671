"""How much memory the host has left for this process."""

from collections.abc import Iterator
from pathlib import Path

import psutil

FILES = {
    "": ("", "memory.max", "memory.current", "inactive_file"),
    "memory": ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
"""Of control groups, by what `/proc/self/cgroup` has for version 2 and for version 1's memory: the
folder below `/sys/fs/cgroup`, the limit, what is taken, and what of that gives way."""


def free_host_memory(root: Path = Path("/")) -> int:
    """Free bytes of the machine, or of the container that this process may not leave.

    Args:
      root: Of the file system that tells.
    """
    return min([psutil.virtual_memory().available, *_left(root)])


def _left(root: Path) -> Iterator[int]:
    """What each of the control groups that this process is in may still take, if it has a limit."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # There are none but on Linux.
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        kind = next((kind for kind in controllers.split(",") if kind in FILES), None)
        if kind is None:
            continue
        below, limit, taken, cached = FILES[kind]
        top = root / "sys/fs/cgroup" / below
        group = top / path.strip("/")  # Seen from a container, it may not be there.
        for folder in (group, *group.parents[: len(group.parts) - len(top.parts)]):
            try:
                most = (folder / limit).read_text().strip()
                used = int((folder / taken).read_text())
                rows = dict(map(str.split, (folder / "memory.stat").read_text().splitlines()))
            except OSError:
                continue
            if most != "max":
                yield max(int(most) - used + int(rows.get(cached, 0)), 0)

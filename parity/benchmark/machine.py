"""What a measurement was taken on, and with."""

import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from parity.benchmark.checkout import commit
from parity.pages.findings import count
from unet_jax.onednn.cores import cores
from unet_jax.versions import versions

PROJECT = Path(__file__).resolve().parents[2]
PACKAGES = ("jax", "jaxlib", "flax", "torch", "numpy")
VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2"}
"""Linux' flags of a CPU that say how wide it computes, widest first, and the usual names."""
QUERY = "name,driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.limit,temperature.gpu"


def facts() -> dict[str, Any]:
    """Versions, commit, machine, date, command; clocks and driver where `nvidia-smi` tells."""
    found: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "command": command(),
        "versions": versions(PACKAGES),
        "commit": commit(PROJECT),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": cpu(),
        "cores": cores(),
        "load": round(os.getloadavg()[0], 2),
    }
    gpus = nvidia()
    return found | {"gpus": gpus} if gpus else found


def device(gpu: bool) -> str:
    """The name of the device that is measured."""
    if gpu:
        found = nvidia()
        return found[0]["name"] if found else "GPU"
    return f"{cpu()}, {count(cores(), 'core')}"


def command() -> str:
    """As it was typed, from the repository's root."""
    return shlex.join(["python", "scripts/benchmark.py", *sys.argv[1:]])


def cpu(info: Path = Path("/proc/cpuinfo")) -> str:
    """Its model's name, and how wide it computes: rented ones of several kinds share a name.

    Args:
      info: Linux' file about each core.
    """
    said: dict[str, str] = {}
    for line in info.read_text().splitlines() if info.is_file() else []:
        key, _, value = line.partition(":")
        said.setdefault(key.strip(), value.strip())
    name = said.get("model name") or platform.processor() or platform.machine()
    flags = said.get("flags", "").split()
    vectors = next((known for flag, known in VECTORS.items() if flag in flags), None)
    return f"{name}, {vectors}" if vectors else name


def clock() -> str | None:
    """Of the first GPU's multiprocessors, as it is now; None without a GPU."""
    gpus = nvidia()
    return gpus[0]["clocks.sm"] if gpus else None


def nvidia() -> list[dict[str, str]]:
    """What `nvidia-smi` says of each GPU; nothing if there is none."""
    if shutil.which("nvidia-smi") is None:
        return []
    try:
        lines = subprocess.run(
            ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        ).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return []
    names = QUERY.split(",")
    return [dict(zip(names, line.split(", "), strict=False)) for line in lines]

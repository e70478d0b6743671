"""What a device can do at most: as published, or as measured here."""

import time
from collections.abc import Callable, Mapping

import torch

from parity.benchmark.contender import Precision
from parity.benchmark.roofline import Peaks

PUBLISHED: Mapping[str, tuple[float, float, float, float]] = {
    "NVIDIA H100 80GB HBM3": (66.9, 494.7, 989.4, 3350),
    "NVIDIA H100 PCIe": (51.2, 378, 756, 2000),
    "NVIDIA H200": (66.9, 494.7, 989.4, 4800),
    "NVIDIA A100-SXM4-40GB": (19.5, 156, 312, 1555),
    "NVIDIA A100-SXM4-80GB": (19.5, 156, 312, 2039),
    "NVIDIA A100-PCIE-40GB": (19.5, 156, 312, 1555),
    "NVIDIA A100 80GB PCIe": (19.5, 156, 312, 1935),
    "NVIDIA L4": (30.3, 60, 121, 300),
}
"""TFLOP/s in float32, in TF32, in bfloat16 and float16 (dense), and GB/s, from NVIDIA's data
sheets; by the name that the driver gives."""
MATRIX, COPY = 1536, 2**26
"""Rows of the matrices that are multiplied, and numbers that are copied, far more than a cache
holds."""
TRIES = 20
DTYPES: Mapping[Precision, torch.dtype] = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def published(device: str) -> Peaks | None:
    """Those of a device of this name, if they are known."""
    if device not in PUBLISHED:
        return None
    full, tf32, half, bandwidth = PUBLISHED[device]
    flops: dict[Precision, float] = {
        "float32": 1e12 * full,
        "tf32": 1e12 * tf32,
        "bfloat16": 1e12 * half,
        "float16": 1e12 * half,
    }
    return Peaks(flops, 1e9 * bandwidth, "published")


class Gauge:
    """`measured`, for a process of its own."""

    def peaks(self) -> Peaks:
        return measured()


def measured() -> Peaks:
    """The best of a few products of large matrices, and of a few large copies, in PyTorch."""
    where = "cuda" if torch.cuda.is_available() else "cpu"
    flops: dict[Precision, float] = {}
    for precision, dtype in DTYPES.items():
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        rows = MATRIX if where == "cpu" else 4 * MATRIX
        a = torch.ones(rows, rows, dtype=dtype, device=where)
        seconds = _best(lambda a=a: torch.mm(a, a), longest=2.0)
        flops[precision] = 2 * rows**3 / seconds
    for precision in ("bfloat16", "float16"):
        # Where a device has no units for it, what it can do is what it does in float32.
        flops[precision] = max(flops[precision], flops["float32"])
    source = torch.ones(COPY, device=where)
    target = torch.empty_like(source)
    seconds = _best(lambda: target.copy_(source), longest=2.0)
    return Peaks(flops, 2 * source.nbytes / seconds, "measured: a product, a copy")


def _best(run: Callable[[], object], longest: float) -> float:
    """Seconds of the fastest try; no more tries begin when `longest` seconds are over."""
    run()
    best, begun = float("inf"), time.perf_counter()
    for _ in range(TRIES):
        at = time.perf_counter()
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - at)
        if time.perf_counter() - begun > longest:
            break
    return best

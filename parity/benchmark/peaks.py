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
TRIES, LONGEST = 20, 1.0
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
    rows = MATRIX if where == "cpu" else 4 * MATRIX
    flops: dict[Precision, float] = {}
    for precision, dtype in DTYPES.items():
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        # Where a device has no units for it, it is far slower, and float32 is what it can do.
        tried = _product(dtype, rows // 8, where)
        full = flops.get("float32", 0.0)
        flops[precision] = max(full, _product(dtype, rows, where) if 4 * tried > full else 0.0)
    source = torch.ones(COPY, device=where)
    target = torch.empty_like(source)
    seconds = _best(lambda: target.copy_(source))
    return Peaks(flops, 2 * source.nbytes / seconds, "measured: a product, a copy")


def _product(dtype: torch.dtype, rows: int, where: str) -> float:
    """Multiply-adds a second, counted twice, of two square matrices."""
    a = torch.ones(rows, rows, dtype=dtype, device=where)
    return 2 * rows**3 / _best(lambda: torch.mm(a, a))


def _best(run: Callable[[], object]) -> float:
    """Seconds of the fastest try; no more begin when `LONGEST` seconds are over."""
    run()
    best, begun = float("inf"), time.perf_counter()
    for _ in range(TRIES):
        at = time.perf_counter()
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - at)
        if time.perf_counter() - begun > LONGEST:
            break
    return best

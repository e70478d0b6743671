"""What a measurement says of its machine."""

import platform
from pathlib import Path

import pytest

from parity.benchmark import machine


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        pytest.param("fma avx2 avx512f", "A CPU, AVX-512", id="the widest counts"),
        pytest.param("fma avx avx2", "A CPU, AVX2", id="older"),
        pytest.param("sse2 avx", "A CPU", id="neither"),
    ],
)
def test_a_cpu_is_named_with_how_wide_it_computes(flags: str, name: str, tmp_path: Path):
    core = f"processor\t: 0\nmodel name\t: A CPU\nflags\t\t: fpu {flags}\n\n"
    info = tmp_path / "cpuinfo"
    info.write_text(core + core.replace("A CPU", "Another"))
    assert machine.cpu(info) == name


def test_without_linux_file_a_cpu_has_the_systems_name(tmp_path: Path):
    assert machine.cpu(tmp_path / "none") in (platform.processor(), platform.machine())

"""What a measurement says of its machine."""

import platform
import subprocess
from pathlib import Path

import pytest

from parity.benchmark import machine
from parity.benchmark.checkout import commit


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


def test_a_checkout_says_of_which_commit_its_code_is(tmp_path: Path):
    def git(*arguments: str) -> str:
        settings = ("user.name=A", "user.email=a@example.org", "commit.gpgsign=false")
        options = [word for setting in settings for word in ("-c", setting)]
        command = ["git", "-C", str(tmp_path), *options, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    (tmp_path / "docs").mkdir()
    (tmp_path / "code.py").touch()
    (tmp_path / "docs" / "rows.json").touch()
    assert commit(tmp_path) is None
    git("init")
    git("add", ".")
    git("commit", "-m", "All")
    known = git("rev-parse", "--short", "HEAD")
    (tmp_path / "docs" / "rows.json").write_text("1")  # As a suite of several cases does.
    assert commit(tmp_path) == known
    (tmp_path / "code.py").write_text("1")
    assert commit(tmp_path) == f"{known}-dirty"
    assert commit(tmp_path / "docs") is None

"""Free memory is what the container leaves, not the machine."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from unet_jax import host_memory
from unet_jax.host_memory import free_host_memory


def write(root: Path, files: dict[str, object]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n")
    return root


def group(folder: str, most: object, used: int, cached: int = 0) -> dict[str, object]:
    """A control group of version 2."""
    stat = f"anon 7\ninactive_file {cached}\nfile 9"
    return {
        f"{folder}/memory.max": most,
        f"{folder}/memory.current": used,
        f"{folder}/memory.stat": stat,
    }


def old_group(folder: str, most: int, used: int) -> dict[str, object]:
    """A control group of version 1."""
    return {
        f"{folder}/memory.limit_in_bytes": most,
        f"{folder}/memory.usage_in_bytes": used,
        f"{folder}/memory.stat": "inactive_file 3\ntotal_inactive_file 5",
    }


CGROUP = "sys/fs/cgroup"
OWN, FOREIGN = {"proc/self/cgroup": "0::/"}, {"proc/self/cgroup": "0::/pods/one"}
OLD = {"proc/self/cgroup": "11:cpu,cpuacct:/a\n4:memory:/docker/one\n0::/"}


@pytest.mark.parametrize(
    ("files", "free"),
    [
        pytest.param({}, 1000, id="no control groups"),
        pytest.param(OWN | group(CGROUP, "max", 10), 1000, id="no limit"),
        pytest.param(OWN | group(CGROUP, 500, 100), 400, id="a limit"),
        pytest.param(OWN | group(CGROUP, 500, 100, cached=60), 460, id="cached files give way"),
        pytest.param(OWN | group(CGROUP, 500, 600), 0, id="more than the limit"),
        pytest.param(OWN | group(CGROUP, 5000, 100), 1000, id="a limit above the machine's"),
        pytest.param(FOREIGN | group(CGROUP, 500, 100), 400, id="the host's path in a container"),
        pytest.param(
            FOREIGN | group(f"{CGROUP}/pods", 300, 90) | group(f"{CGROUP}/pods/one", 900, 80),
            210,
            id="a limit further up",
        ),
        pytest.param(OLD | old_group(f"{CGROUP}/memory", 500, 100), 405, id="version 1"),
        pytest.param(
            OLD | old_group(f"{CGROUP}/memory/docker/one", 1 << 63, 100), 1000, id="none in 1"
        ),
    ],
)
def test_free_is_what_a_container_leaves(
    files: dict[str, object], free: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    available = SimpleNamespace(available=1000)
    monkeypatch.setattr(host_memory.psutil, "virtual_memory", lambda: available)
    assert free_host_memory(write(tmp_path, files)) == free

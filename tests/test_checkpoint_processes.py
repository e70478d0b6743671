"""Checkpoints and processes: killed ones, several at once, and ones with other devices."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from saving import FRAMEWORKS, Store

TESTS = Path(__file__).parent

# Forks a process that saves one state after the other, kills it at some moment, and again.
KILL = """
import json, os, random, signal, sys, time
from pathlib import Path
from saving import Store

framework, folder, rounds = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
WIDTH = 160  # 0.9 MB, so that writing takes about as long as all the rest.

def run(expected, pipe):
    store = Store(framework, folder, width=WIDTH, keep=2)
    step = store.restored() or 0
    assert step >= expected and not store.said, (step, expected, store.said)
    while True:
        step += 1
        store.save(step, {"dice": 1 / step})
        # When save returns, JAX has finished the one before, PyTorch this one.
        os.write(pipe, b"%d\\n" % (step - (framework == "jax")))

def writing_one():
    return any("part" in path.name or "tmp" in path.name for path in folder.iterdir())

rng = random.Random(5)
done, half_written = 0, 0
for turn in range(rounds):
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            run(done, writing)
        finally:
            os._exit(1)
    os.close(writing)
    output = b""
    while done >= int((output.split() or [0])[-1]):  # It is to get further than the one before.
        output += os.read(reading, 100)
    time.sleep(rng.uniform(0, 0.15))
    while turn % 2 and not writing_one():  # Every other one is to die in the middle of saving.
        pass
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "it ended by itself"
    while more := os.read(reading, 1000):
        output += more
    os.close(reading)
    done = int(output.split()[-1])
    half_written += writing_one()
print(json.dumps([done, half_written]))
"""

# Saves and restores on eight virtual devices what one device saved and is to restore.
EIGHT = """
import sys
from pathlib import Path
import jax
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
from jax.sharding import NamedSharding, PartitionSpec
from saving import Store

replicated = NamedSharding(jax.make_mesh((8,), ("batch",)), PartitionSpec())
store = Store("jax", Path(sys.argv[1]))
state, _ = store.checkpoints.restore(store.template(place=replicated))
assert all(leaf.sharding == replicated for leaf in jax.tree.leaves(state))
assert len(state.params["conv"]["bias"].addressable_shards) == 8
assert store.restored(place=replicated) == 1
store = Store("jax", Path(sys.argv[2]))
store.save(2, place=replicated)
store.close()
"""

# One of two processes that save together, and restore together.
TWO = """
import shutil, sys
from pathlib import Path
import jax
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 1)
jax.config.update("jax_cpu_collectives_implementation", "gloo")
folder, index, port = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
jax.distributed.initialize(f"127.0.0.1:{port}", 2, index)
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec
from saving import Store

replicated = NamedSharding(jax.make_mesh((2,), ("batch",)), PartitionSpec())
assert jax.process_count() == jax.device_count() == 2
store = Store("jax", folder, keep=2)
for step in (1, 2, 3):
    store.save(step, {"dice": -step}, place=replicated)
store.close()
assert store.restored(place=replicated) == 3
assert store.restored(place=replicated, best=True) == 1

damaged = folder.parent / "damaged"
if index == 0:
    shutil.copytree(folder, damaged)
    (damaged / "3" / "facts" / "data.json").write_text("{}")
multihost_utils.sync_global_devices("damaged")
store = Store("jax", damaged, keep=2)
assert store.restored(place=replicated) == 2
assert len(store.said) == 1
store.close()
"""


def start(code: str, *arguments: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    """What a process printed, once it has ended well."""
    try:
        output, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    return output


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_process_killed_while_saving_loses_no_finished_checkpoint(framework: str, tmp_path: Path):
    rounds = 8
    done, half_written = json.loads(finish(start(KILL, framework, tmp_path, rounds)))
    assert half_written >= rounds // 4  # Of the half that was to be; few are done before they die.
    store = Store(framework, tmp_path, width=160, keep=2)
    step = store.restored()
    assert step is not None
    assert step >= done
    assert store.restored(best=True) == 1
    assert store.said == []
    store.save(step + 1)
    store.close()
    assert store.names() == {"1", str(step), str(step + 1)}


def test_another_number_of_devices_restores(tmp_path: Path):
    store = Store("jax", tmp_path / "one")
    store.save(1)
    store.close()
    finish(start(EIGHT, tmp_path / "one", tmp_path / "eight"))
    assert Store("jax", tmp_path / "eight").restored() == 2


def test_two_processes_save_one_checkpoint_and_one_restores_it(tmp_path: Path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = [start(TWO, tmp_path / "both", index, port) for index in (0, 1)]
    for process in processes:
        finish(process)
    store = Store("jax", tmp_path / "both", keep=2)
    assert store.restored() == 3
    assert store.restored(best=True) == 1
    assert store.names() == {"1", "2", "3"}

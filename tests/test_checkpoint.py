"""Checkpoints of both frameworks: which are kept, and that none is lost, or damaged unnoticed."""

import filecmp
import math
import os
import random
import resource
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from orbax.checkpoint import v1 as ocp
from saving import FRAMEWORKS, Store, checkpoint_module, content, jax_state, position, torch_state

import unet_jax.retention
import unet_torch_ref.retention
from unet_jax.checkpoint import CheckpointError, Checkpoints
from unet_jax.entries import LISTED
from unet_torch_ref.checkpoint import Checkpoints as TorchCheckpoints


@pytest.fixture(params=FRAMEWORKS)
def framework(request: pytest.FixtureRequest) -> str:
    return request.param


# Which are kept.


@pytest.mark.parametrize(
    ("values", "lowest", "keep", "kept", "best"),
    [
        pytest.param((0.5, 0.9, 0.7, 0.8), False, 1, {2, 4}, 2, id="highest"),
        pytest.param((0.5, 0.2, 0.7, 0.8), True, 1, {2, 4}, 2, id="lowest"),
        pytest.param((0.9, 0.2, 0.7, 0.8), False, 2, {1, 3, 4}, 1, id="two latest"),
        pytest.param((0.9, 0.2, 0.7, 0.9, 0.1), False, 1, {4, 5}, 4, id="the last of equals"),
        pytest.param((0.2, 0.9, 0.7, 0.2, 0.8), True, 1, {4, 5}, 4, id="the last of equal losses"),
        pytest.param((0.0, 0.0, 0.0), False, 1, {3}, 3, id="all equal"),
        pytest.param((math.nan, 0.1, math.nan, 0.2), True, 1, {2, 4}, 2, id="NaN is never best"),
        pytest.param((0.1, None, None, None), False, 2, {1, 3, 4}, 1, id="not all validated"),
        pytest.param((None, None, None), False, 2, {2, 3}, None, id="none validated"),
    ],
)
def test_the_latest_and_the_best_are_kept(
    framework: str,
    values: tuple[float | None, ...],
    lowest: bool,
    keep: int,
    kept: set[int],
    best: int | None,
    tmp_path: Path,
):
    saves = [(step, value) for step, value in enumerate(values, 1)]
    for part in (saves[:2], saves[2:]):  # The run is resumed in between.
        store = Store(framework, tmp_path / "checkpoints", metric="iou", lowest=lowest, keep=keep)
        for step, value in part:
            store.save(step, None if value is None else {"dice": 1 / step, "iou": value})
        store.close()
    store = Store(framework, tmp_path / "checkpoints", metric="iou", lowest=lowest, keep=keep)
    assert store.names() == {str(step) for step in kept}
    assert store.restored() == len(values)
    assert store.restored(best=True) == best
    assert store.said == []


def test_both_packages_keep_the_same():
    """Neither may import the other, so the rules are there twice."""
    files = (unet_jax.retention.__file__, unet_torch_ref.retention.__file__)
    assert filecmp.cmp(*files, shallow=False)


def test_an_empty_folder_restores_nothing(framework: str, tmp_path: Path):
    store = Store(framework, tmp_path / "none")
    assert store.restored() is None
    assert store.restored(best=True) is None
    assert not store.folder.exists()


def test_a_folder_with_a_half_written_checkpoint_alone_restores_nothing(
    framework: str, tmp_path: Path
):
    """A process that is killed in its first save leaves no more."""
    store = Store(framework, tmp_path)
    store.save(1)
    store.close()
    [path] = tmp_path.iterdir()
    path.rename(tmp_path / {"jax": "1.orbax-checkpoint-tmp", "torch": "1.pt.part"}[framework])
    assert Store(framework, tmp_path).restored() is None


def test_what_another_framework_saved_is_an_error(framework: str, tmp_path: Path):
    other = {"jax": "torch", "torch": "jax"}[framework]
    store = Store(other, tmp_path)
    store.save(1)
    store.close()
    [path] = tmp_path.iterdir()
    title = {"jax": "JAX", "torch": "PyTorch"}[framework]
    with pytest.raises(ValueError, match=rf"no checkpoint of {title}: {path.name}$"):
        Store(framework, tmp_path).restored()


def test_saving_a_step_again_overwrites_nothing(framework: str, tmp_path: Path):
    """As before an epoch's validation, and after it."""
    store = Store(framework, tmp_path, keep=2)
    store.save(9, {"dice": 0.5})
    store.save(10)
    store.save(10, {"dice": 0.4})
    store.close()
    assert store.names() == {"9", "10", "10.2"}
    for step, names in ((10, {"9", "10.2", "10.3"}), (11, {"9", "10.3", "11"})):
        store = Store(framework, tmp_path, keep=2)
        assert store.restored() == 10
        store.save(step, {"dice": 0.3})
        store.close()
        assert store.names() == names
    assert Store(framework, tmp_path).restored() == 11
    assert Store(framework, tmp_path).restored(best=True) == 9


def test_steps_are_ordered_as_numbers(framework: str, tmp_path: Path):
    store = Store(framework, tmp_path, keep=3)
    for step in (8, 9, 10):
        store.save(step)
    store.close()
    assert Store(framework, tmp_path).restored() == 10


# Reading.


def test_reading_disturbs_no_writer(framework: str, tmp_path: Path):
    """What is half-written belongs to a run that may be under way, until this one saves."""
    store = Store(framework, tmp_path, keep=1)
    store.save(1)
    store.close()
    half = tmp_path / {"jax": "2.orbax-checkpoint-tmp", "torch": "2.pt.part"}[framework]
    if framework == "jax":
        shutil.copytree(tmp_path / "1", half)
    else:
        shutil.copy(tmp_path / "1.pt", half)
    store = Store(framework, tmp_path, keep=1)
    assert store.restored() == 1
    assert half.exists()
    store.save(3)
    store.close()
    assert store.names() == {"3"}


def test_all_kinds_of_arrays_come_back(tmp_path: Path):
    state = jax_state(3).replace(
        params={
            "key": jax.random.key(7),
            "half": jnp.arange(6, dtype=jnp.bfloat16).reshape(2, 3),
            "flag": jnp.asarray(True),
        }
    )
    checkpoints = Checkpoints(tmp_path, "dice")
    checkpoints.save(state, position(3), None)
    found = checkpoints.restore(state)
    checkpoints.close()
    assert found is not None
    params = found[0].params
    assert jax.random.key_data(params.pop("key")).tolist() == [0, 7]
    del state.params["key"]
    assert content(params) == content(state.params)


def test_a_template_needs_no_arrays(tmp_path: Path):
    store = Store("jax", tmp_path)
    store.save(4)
    found = store.checkpoints.restore(jax.eval_shape(lambda: store.template()))
    store.close()
    assert content(found[0]) == content(jax_state(4))


# Another network.


def test_a_checkpoint_of_another_network_lists_what_differs(framework: str, tmp_path: Path):
    store = Store(framework, tmp_path)
    store.save(1)
    store.save(2)
    template = store.template()
    conv = template.params["conv"] if framework == "jax" else template["model"]
    kernel, bias = ("kernel", "bias") if framework == "jax" else ("conv.kernel", "conv.bias")
    conv[kernel] = (
        conv[kernel][:, :, :4].astype("float16")
        if framework == "jax"
        else (conv[kernel][:, :, :4].half())
    )
    conv["scale"] = conv.pop(bias)
    with pytest.raises(ValueError, match="another network") as error:
        store.checkpoints.restore(template)
    store.close()
    place = {"jax": "params/conv/", "torch": "model/"}[framework]
    name = {"jax": "2", "torch": "2.pt"}[framework]
    first, *lines = str(error.value).splitlines()
    assert first == f"{tmp_path / name} is of another network or optimiser:"
    assert sorted(lines) == [
        f"  {place}{bias}: float32 [8] saved, nothing expected",
        f"  {place}{kernel}: float32 [3, 3, 8, 8] saved, float16 [3, 3, 4, 8] expected",
        f"  {place}scale: nothing saved, float32 [8] expected",
    ]
    assert store.said == []


def test_many_differences_are_counted(framework: str, tmp_path: Path):
    store = Store(framework, tmp_path)
    store.save(1)
    template = store.template()
    tree = template.params if framework == "jax" else template["model"]
    some = next(iter(tree.values())) if framework == "torch" else tree["conv"]["bias"]
    tree.update({f"layer_{n}": some for n in range(LISTED + 3)})
    with pytest.raises(ValueError, match=r"and 3 more$") as error:
        store.checkpoints.restore(template)
    store.close()
    assert len(str(error.value).splitlines()) == 1 + LISTED + 1


def test_nothing_of_another_network_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = Store("jax", tmp_path)
    store.save(1)
    store.close()
    read: list[str] = []
    load = ocp.load_checkpointables
    monkeypatch.setattr(
        ocp, "load_checkpointables", lambda path, items: read.extend(items) or load(path, items)
    )
    with pytest.raises(ValueError, match="another network"):
        store.checkpoints.restore(store.template(width=4))
    assert read == ["facts"]


# Damage.


def flipped(data: bytes, rng: random.Random) -> bytes:
    if not data:
        return b"x"
    place = rng.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]


DAMAGE: dict[str, Callable[[bytes, random.Random], bytes | None]] = {
    "one bit": flipped,
    "another bit": flipped,
    "cut short": lambda data, rng: data[: len(data) * rng.randrange(100) // 100],
    "one byte too few": lambda data, rng: data[:-1],
    "zeros": lambda data, rng: bytes(len(data)),
    "empty": lambda data, rng: b"",
    "gone": lambda data, rng: None,
}


def inflict(path: Path, kind: str, seed: int = 0) -> None:
    damaged = DAMAGE[kind](path.read_bytes(), random.Random(seed))
    if damaged is None:
        path.unlink()
    else:
        path.write_bytes(damaged)


def files(store: Store, name: str) -> list[Path]:
    """The files of one checkpoint."""
    if store.framework == "torch":
        return [store.folder / f"{name}.pt"]
    return sorted(path for path in (store.folder / name).rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Store]:
    """Checkpoints 1 and 2, the first being the best. Read-only: tests take a copy."""
    stores: dict[str, Store] = {}

    def saved(framework: str) -> Store:
        if framework not in stores:
            store = Store(framework, tmp_path_factory.mktemp(framework), keep=2, width=16)
            store.save(1, {"dice": 0.9})
            store.save(2, {"dice": 0.1})
            store.close()
            stores[framework] = store
        return stores[framework]

    return saved


def reopened(store: Store, folder: Path) -> Store:
    shutil.copytree(store.folder, folder)
    return Store(store.framework, folder, keep=2, width=store.width)


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_checkpoint_is_not_used(
    framework: str, kind: str, saved: Callable[[str], Store], tmp_path: Path
):
    """Whichever of its files it is: the newest state is restored, or else the one before."""
    original = saved(framework)
    noticed: set[str] = set()
    for seed, path in enumerate(files(original, "2") * (20 if framework == "torch" else 1)):
        place = path.relative_to(original.folder)
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        shutil.copytree(original.folder, tmp_path / "copy")
        inflict(tmp_path / "copy" / place, kind, seed)
        store = Store(framework, tmp_path / "copy", keep=2, width=16)
        step = store.restored()
        if step == 1:
            noticed.add(place.name if place.parent.name != "d" else "d")
            if (framework, kind) == ("torch", "gone"):
                continue  # Nothing is left of it that could be told about.
            [message] = store.said
            name = {"jax": "2", "torch": "2.pt"}[framework]
            assert message.startswith(f"{store.folder / name} is damaged and not used: ")
            assert "\n" not in message
        else:
            assert step == 2, (place, kind)
            assert store.said == []
    # Nothing can be restored without these, however they are damaged.
    assert noticed >= ({"2.pt"} if framework == "torch" else {"d", "data.json"})


def test_damaged_values_are_noticed(framework: str, saved: Callable[[str], Store], tmp_path: Path):
    """In the bytes of the arrays themselves, where neither Orbax nor torch.load would look."""
    original = saved(framework)
    largest = max(files(original, "2"), key=lambda path: path.stat().st_size)
    for seed in range(10):
        store = reopened(original, tmp_path / str(seed))
        path = store.folder / largest.relative_to(original.folder)
        data = bytearray(path.read_bytes())
        data[len(data) // 3 + 17 * seed] ^= 1
        path.write_bytes(data)
        assert store.restored() == 1
        assert len(store.said) == 1


def test_the_best_one_too_is_used_only_if_it_is_whole(
    framework: str, saved: Callable[[str], Store], tmp_path: Path
):
    store = reopened(saved(framework), tmp_path / "copy")
    assert store.restored(best=True) == 1
    for path in files(store, "1"):
        inflict(path, "zeros")
    assert store.restored(best=True) == 2
    assert len(store.said) == 1


def test_if_all_are_damaged_the_error_names_the_folder(
    framework: str, saved: Callable[[str], Store], tmp_path: Path
):
    store = reopened(saved(framework), tmp_path / "copy")
    for name in ("1", "2"):
        for path in files(store, name):
            inflict(path, "cut short")
    with pytest.raises(ValueError, match=r"all checkpoints are damaged: 2, 1$") as error:
        store.restored()
    assert str(error.value).startswith(f"{store.folder}: ")
    assert len(store.said) == 2


def test_a_run_goes_on_from_before_the_damage(
    framework: str, saved: Callable[[str], Store], tmp_path: Path
):
    """The damaged one counts neither as one of the latest nor as the best, and goes."""
    store = reopened(saved(framework), tmp_path / "copy")
    for path in files(store, "2"):
        inflict(path, "one byte too few")
    assert store.restored() == 1
    store.save(2, {"dice": 0.2})
    store.close()
    assert store.names() == {"1", "2.2"}
    store = Store(framework, store.folder, keep=2, width=16)
    assert store.restored() == 2
    store.save(3, {"dice": 0.3})
    store.save(4, {"dice": 0.4})
    store.close()
    assert store.names() == {"1", "3", "4"}
    assert len(store.said) == 0


# What goes wrong while saving.


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes, as if the disk were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_one_clear_error(framework: str, tmp_path: Path):
    store = Store(framework, tmp_path, width=96)  # 664 kB, and a few more.
    store.save(1)
    store.close()
    store = Store(framework, tmp_path, width=96)

    def save() -> None:
        store.save(2)
        store.close()

    with (
        largest_file(100_000),
        pytest.raises(checkpoint_module(framework).CheckpointError) as error,
    ):
        save()
    assert isinstance(error.value, OSError)
    message = str(error.value)
    assert message.startswith(f"{tmp_path}: checkpoint 2 could not be written: ")
    assert "File too large" in message  # For a disk it is "No space left on device".
    assert "it takes up to 0.7 MB" in message
    assert message.endswith(" MB are free")
    assert "\n" not in message
    assert store.names() == {"1"}
    store = Store(framework, tmp_path, width=96)
    assert store.restored() == 1
    store.save(2)
    store.close()
    assert store.restored() == 2


def test_a_folder_that_cannot_be_made_is_one_clear_error(framework: str, tmp_path: Path):
    (tmp_path / "file").write_text("")
    store = Store(framework, tmp_path / "file" / "checkpoints")
    with pytest.raises(
        checkpoint_module(framework).CheckpointError,
        match="checkpoint 1 could not be written: NotADirectory",
    ):
        store.save(1)
    store.close()


class Slow:
    """Orbax' saving, made to end only when it is let go, or to fail.

    Attributes:
      events: What happened, in order.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.events: list[str] = []
        self.go = threading.Event()
        self.error: Exception | None = None
        self._save = ocp.save_checkpointables_async
        monkeypatch.setattr(ocp, "save_checkpointables_async", self._start)

    def _start(self, path: str, items: dict[str, Any]) -> "Slow":
        self.events.append(f"start {Path(path).name}")
        self._response = self._save(path, items)
        return self

    def result(self) -> None:
        assert self.go.wait(timeout=60)
        self._response.result()
        self.events.append("end")
        if self.error is not None:
            raise self.error


def test_training_goes_on_while_a_state_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """And what is written is the state at the call, though its memory is given to later steps."""
    slow = Slow(monkeypatch)
    checkpoints = Checkpoints(tmp_path, "dice")
    train = jax.jit(lambda s: jax.tree.map(lambda x: 2 * x + 1, s), donate_argnums=0)
    first = state = jax_state(1, width=256)
    expected = content(first)
    checkpoints.save(state, position(1), None)
    for _ in range(3):
        state = train(state)
    for leaf in jax.tree.leaves(first):
        if not leaf.is_deleted():
            leaf.delete()
    assert slow.events == ["start 1"]
    slow.go.set()
    checkpoints.close()
    found = Checkpoints(tmp_path, "dice").restore(jax_state(0, width=256))
    assert found is not None
    assert content(found[0]) == expected


def test_one_state_is_written_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    slow = Slow(monkeypatch)
    store = Store("jax", tmp_path, keep=3)
    store.save(1)
    timer = threading.Timer(0.3, slow.go.set)
    timer.start()
    store.save(2)
    store.save(3)
    store.close()
    timer.join()
    assert slow.events == ["start 1", "end", "start 2", "end", "start 3", "end"]
    assert store.restored() == 3


@pytest.mark.parametrize("then", ["save", "close", "restore"])
def test_what_failed_in_the_background_is_said_once(
    then: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    slow = Slow(monkeypatch)
    slow.go.set()
    store = Store("jax", tmp_path, keep=2)
    store.save(1)
    store.checkpoints._wait()
    slow.error = RuntimeError("the disk is\non fire")
    store.save(2)
    after = {"save": lambda: store.save(3), "close": store.close, "restore": store.restored}
    with pytest.raises(CheckpointError, match=r"2 could not be written: .*: the disk is on fire;"):
        after[then]()
    slow.error = None
    if then != "close":
        store.save(4)
    store.close()


def test_nothing_is_removed_until_the_new_state_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    slow = Slow(monkeypatch)
    store = Store("jax", tmp_path, keep=1)
    slow.go.set()
    store.save(1)
    store.checkpoints._wait()
    slow.go.clear()
    store.save(2)
    assert "1" in store.names()
    slow.go.set()
    store.close()
    assert store.names() == {"2"}


def test_torch_removes_nothing_until_the_new_state_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    store = Store("torch", tmp_path, keep=1)
    store.save(1)
    seen: list[set[str]] = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda *paths: seen.append(store.names()) or replace(*paths))
    store.save(2)
    assert seen == [{"1", "2.pt.part"}]
    assert store.names() == {"2"}


def test_torch_reads_nothing_that_could_run_code(tmp_path: Path):
    checkpoints = TorchCheckpoints(tmp_path, "dice", say=lambda text: None)
    state = torch_state(1)
    state["hook"] = os.system
    checkpoints.save(state, position(1), None)
    with pytest.raises(ValueError, match="all checkpoints are damaged"):
        checkpoints.restore({"model": torch_state(1)["model"]})


def test_torch_restores_onto_the_cpu_and_shares_no_memory(tmp_path: Path):
    checkpoints = TorchCheckpoints(tmp_path, "dice")
    state = torch_state(1)
    expected = state["model"]["conv.kernel"].clone()
    checkpoints.save(state, position(1), None)
    state["model"]["conv.kernel"].zero_()
    found = checkpoints.restore({"model": state["model"]})
    assert found is not None
    kernel = found[0]["model"]["conv.kernel"]
    assert kernel.device == torch.device("cpu")
    np.testing.assert_array_equal(kernel.numpy(), expected.numpy())

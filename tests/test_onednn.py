"""oneDNN's convolutions against XLA's."""

import os
import re
import runpy
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unet_jax import onednn
from unet_jax.config import dump, load
from unet_jax.models import ResidualUNet, convolution
from unet_jax.models.convolution import convolve, xla_alone
from unet_jax.onednn import call_frame, calls, cores
from unet_jax.onednn.convolution import Convolution, Shapes, find
from unet_jax.onednn.library import FILE, SWITCH, Library
from unet_jax.onednn.library import load as load_library
from unet_jax.onednn.reordering import PIECE
from unet_jax.onednn.threads import WAITING, keep_awake
from unet_jax.parallel import Jit, Shard

pytestmark = pytest.mark.skipif(
    not onednn.available(), reason='no oneDNN here: pip install -e ".[onednn]" on x86-64 Linux'
)
ROOT = Path(__file__).parents[1]
SHAPES = (2, 9, 13, 5), (3, 3, 5, 8)
IMAGE = 64 * 96 * 8
"""Values of the largest layer of the preset `shapes`, which is the default."""
PREDICT, EVALUATE = "prediction.predict.predict", "evaluation.evaluate.evaluate"


def drawn(*shapes):
    keys = jax.random.split(jax.random.key(0), len(shapes))
    return [
        jax.random.normal(key, shape, jnp.float32) for key, shape in zip(keys, shapes, strict=True)
    ]


def exact(run, *args):
    """What `run` gives in float64, by XLA, and the same of the absolute values."""
    with jax.enable_x64(True), xla_alone():
        wide = [np.asarray(arg, np.float64) for arg in args]
        return np.asarray(run(*wide)), np.asarray(run(*map(np.abs, wide)))


@pytest.mark.parametrize("inputs", [3, 8, 17])
@pytest.mark.parametrize("size", [(8, 12), (9, 13), (7, 10)], ids=str)
@pytest.mark.parametrize(("side", "stride"), [(1, 1), (3, 1), (5, 1), (3, 2), (5, 2), (3, 3)])
def test_every_pass_is_xlas(side: int, stride: int, size: tuple[int, int], inputs: int):
    shapes = (2, *size, inputs), (side, side, inputs, 8)
    x, kernel = drawn(*shapes)
    [bias] = drawn((8,))
    y = calls.forward(x, kernel, bias, None, stride)
    g = jnp.sin(y)
    pixels = g.size // 8
    learnt = partial(calls.backward_weights, shape=kernel.shape, stride=stride)
    by_kernel = partial(convolution._kernel_by_convolution, side=side, stride=stride)
    passes = {
        "forward": (
            (x, kernel),
            partial(calls.forward, bias=None, added=None, stride=stride),
            partial(convolution._plain, stride=stride),
            side**2 * inputs,
        ),
        "forward, biased": (
            (x, kernel, bias),
            partial(calls.forward, added=None, stride=stride),
            lambda x, kernel, bias: (
                convolution._plain(x, kernel, stride) + bias.reshape(1, 1, 1, -1)
            ),
            side**2 * inputs + 1,
        ),
        "forward, added to": (
            (x, kernel, g),
            lambda x, kernel, g: calls.forward(x, kernel, None, g, stride),
            lambda x, kernel, g: convolution._plain(x, kernel, stride) + g,
            side**2 * inputs + 1,
        ),
        "forward, biased, added to": (
            (x, kernel, bias, g),
            partial(calls.forward, stride=stride),
            lambda x, kernel, bias, g: (
                convolution._plain(x, kernel, stride) + bias.reshape(1, 1, 1, -1) + g
            ),
            side**2 * inputs + 2,
        ),
        "by input": (
            (g, kernel),
            partial(calls.backward_data, shape=x.shape, stride=stride),
            partial(convolution._input_by_convolution, shape=x.shape, stride=stride),
            side**2 * 8,
        ),
        "by kernel": ((x, g), lambda x, g: learnt(x, g, biased=False)[0], by_kernel, pixels),
        "by kernel, biased": ((x, g), lambda x, g: learnt(x, g, biased=True)[0], by_kernel, pixels),
        "by bias": (
            (x, g),
            lambda x, g: learnt(x, g, biased=True)[1],
            lambda x, g: g.sum((0, 1, 2)),
            pixels,
        ),
    }
    for name, (args, ours, xlas, products) in passes.items():
        right, absolute = exact(xlas, *args)
        # A sum of n products, in any order: Higham, Accuracy and Stability, 2002, section 3.1.
        bound = products * np.finfo(np.float32).eps * absolute
        assert np.all(np.abs(np.asarray(ours(*args)) - right) <= bound), name


def test_a_convolution_of_float32_is_its():
    x, kernel = drawn(*SHAPES)

    def called(platform: str, dtype=jnp.float32) -> int:
        def total(x, kernel):
            return convolve(x, kernel).sum()

        args = x.astype(dtype), kernel.astype(dtype)
        trace = jax.jit(jax.grad(total, argnums=(0, 1))).trace(*args)
        return trace.lower(lowering_platforms=(platform,)).as_text().count("@unet_jax_onednn")

    # The forward pass of a sum leaves no trace in its gradient.
    assert called("cpu") == 2
    assert called("cuda") == called("tpu") == called("cpu", jnp.bfloat16) == 0
    with xla_alone():
        assert called("cpu") == 0
    assert called("cpu") == 2


def test_blocks_add_their_input_as_they_convolve():
    model = ResidualUNet(channels=(2, 4), groups=2)
    [image] = drawn((1, 8, 12, 3))
    variables = model.init(jax.random.key(0), image)
    run = jax.jit(model.apply)
    text = run.trace(variables, image).lower(lowering_platforms=("cpu",)).as_text()
    # Of the encoder's three blocks, the bottleneck's, and the decoder's six.
    assert text.count("_added(") == 10
    together = run(variables, image)
    apart, state = model.apply(variables, image, capture_intermediates=True)
    np.testing.assert_allclose(together, apart, atol=1e-5)  # Logits are around 1.
    seen: Any = state["intermediates"]
    before, [after] = seen["encoder_4"]["__call__"][0], seen["bottleneck_0"]["__call__"]
    [convolved] = seen["bottleneck_0"]["conv_2"]["__call__"]
    np.testing.assert_array_equal(after, before + convolved)


def test_strided_kernels_of_one_pixel_are_xlas():
    x, kernel = drawn((2, 8, 12, 3), (1, 1, 3, 8))
    trace = jax.jit(lambda x, kernel: convolve(x, kernel, stride=2)).trace(x, kernel)
    assert "onednn" not in trace.lower(lowering_platforms=("cpu",)).as_text()


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("further", [(), ("bias",), ("added",), ("bias", "added")], ids=str)
def test_gradients_pass_through(further: tuple[str, ...], stride: int):
    names = ("x", "kernel", *further)
    height, width = (-(-n // stride) for n in SHAPES[0][1:3])
    shapes = {
        **dict(zip(names, SHAPES, strict=False)),
        "bias": (8,),
        "added": (2, height, width, 8),
    }
    given = drawn(*(shapes[name] for name in names))

    def gradients(*given):
        return jax.grad(
            lambda given: jnp.sum(
                jnp.sin(convolve(**dict(zip(names, given, strict=True)), stride=stride))
            ),
        )(given)

    ours = jax.jit(gradients)(*given)
    with jax.enable_x64(True), xla_alone():
        right = gradients(*(np.asarray(each, np.float64) for each in given))
    for a, b in zip(ours, right, strict=True):
        # Sums of at most 234 products of values around 1.
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_an_axis_can_be_mapped():
    x, kernel = drawn((3, *SHAPES[0]), SHAPES[1])
    mapped = jax.vmap(lambda x: convolve(x, kernel))(x)
    np.testing.assert_array_equal(mapped, jnp.stack([convolve(each, kernel) for each in x]))


def test_threads_do_not_mix_up_their_values():
    # A kernel large enough for its copy to take a while, in which another thread can come between.
    [kernel] = drawn((3, 3, 128, 128))
    run = jax.jit(lambda x: convolve(x, kernel))
    images = [jnp.full((1, 8, 8, 128), i, jnp.float32) for i in range(32)]
    one_by_one = [np.asarray(run(x)) for x in images]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda x: np.asarray(run(x)), images * 8))
    for i, result in enumerate(together):
        np.testing.assert_array_equal(result, one_by_one[i % len(images)])


def test_a_workspace_may_move():
    x, kernel = drawn((1, 8, 8, 16), (3, 3, 16, 16))
    arrays = [np.array(x), np.array(kernel), np.zeros((1, 8, 8, 16), np.float32)]
    found = find("forward", Shapes(*(each.shape for each in arrays), stride=1))
    expected = np.asarray(convolve(x, kernel))
    for _ in range(2):
        workspace = np.zeros(found.workspace, np.uint8)
        found.run([each.ctypes.data for each in arrays], workspace.ctypes.data)
        assert workspace.any(), "the kernel's copy lies elsewhere"
        np.testing.assert_array_equal(arrays[2], expected)


@pytest.mark.parametrize("inputs", [256, 384, 200])
def test_large_kernels_are_copied_in_pieces(inputs: int, monkeypatch):
    shapes = [(1, 8, 8, inputs), (3, 3, inputs, 128), (1, 8, 8, 128)]
    x, kernel, _ = arrays = [np.array(each) for each in drawn(*shapes)]

    def made() -> tuple[int, np.ndarray]:
        """How many primitives run, and their result."""
        library = load_library()
        assert library is not None
        found = Convolution(library, "forward", Shapes(*shapes, stride=1))
        workspace = np.zeros(found.workspace, np.uint8)
        found.run([each.ctypes.data for each in arrays], workspace.ctypes.data)
        return len(found._steps), arrays[2].copy()

    steps, result = made()
    assert steps == 1 + (inputs // PIECE if inputs % PIECE == 0 else 1)
    right, absolute = exact(partial(convolution._plain, stride=1), x, kernel)
    assert np.all(np.abs(result - right) <= 9 * inputs * np.finfo(np.float32).eps * absolute)

    def refused(*_):
        raise RuntimeError("cannot be cut")

    monkeypatch.setattr(Library, "part", refused)
    steps, whole = made()
    assert steps == 2
    np.testing.assert_array_equal(result, whole)


def test_addresses_that_were_half_set_are_forgotten(monkeypatch):
    shapes = [(1, 8, 8, 16), (3, 3, 16, 16), (1, 8, 8, 16)]
    found = find("forward", Shapes(*shapes, stride=1))
    one, other = ([np.array(each) for each in drawn(*shapes)] for _ in range(2))
    other[0] += 1
    workspace = np.zeros(found.workspace, np.uint8)

    def run(arrays: list[np.ndarray]) -> np.ndarray:
        found.run([each.ctypes.data for each in arrays], workspace.ctypes.data)
        return arrays[2].copy()

    expected = run(one)
    with monkeypatch.context() as failing:
        failing.setattr(found, "_reordered_at", None)  # Images, kernel and result are set by then.
        with pytest.raises(TypeError):
            run(other)
    one[2][:] = 0
    np.testing.assert_array_equal(run(one), expected)


def test_an_error_is_the_programs(monkeypatch):
    x, kernel = drawn((1, 6, 7, 3), (3, 3, 3, 4))
    run = jax.jit(lambda x: convolve(x, kernel))
    run(x)

    def fail(*_):
        raise RuntimeError("oneDNN has had enough")

    monkeypatch.setattr(Convolution, "run", fail)
    with pytest.raises((jax.errors.JaxRuntimeError, ValueError), match="oneDNN has had enough"):
        run(x).block_until_ready()


def test_a_user_who_interrupts_it_leaves_no_result(monkeypatch):
    x, kernel = drawn((1, 6, 7, 3), (3, 3, 3, 5))
    run = jax.jit(lambda x: convolve(x, kernel))
    run(x)

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Convolution, "run", interrupted)
    with pytest.raises((jax.errors.JaxRuntimeError, ValueError), match="KeyboardInterrupt"):
        run(x).block_until_ready()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"bias": jnp.ones(7)}, "bias has shape (7,); expected (8,)"),
        (
            {"added": jnp.ones((2, 9, 13, 7))},
            "added has shape (2, 9, 13, 7); expected (2, 9, 13, 8)",
        ),
        ({"bias": jnp.ones(8, jnp.float16)}, "oneDNN is given float16; expected float32"),
    ],
    ids=["bias", "added", "type"],
)
def test_nothing_beyond_an_array_is_read(given: dict[str, jax.Array], message: str):
    x, kernel = drawn(*SHAPES)
    with pytest.raises(ValueError, match=re.escape(message)):
        calls.forward(x, kernel, **{"bias": None, "added": None, **given}, stride=1)


def test_a_program_that_xla_divides_is_its_own():
    x, kernel = drawn(*SHAPES)
    x = jnp.repeat(x, 4, axis=0)

    def lowered(parallel: Jit | Shard) -> str:
        step: Any = parallel.train(lambda kernel, x: (kernel, convolve(x, kernel)))
        return step.lower(kernel, x).as_text()

    assert "onednn" not in lowered(Shard())
    assert "onednn" in lowered(Jit())


def test_python_keeps_its_state_of_xlas_threads(monkeypatch):
    made = []

    class Counted(call_frame._KnownThread):
        def __init__(self) -> None:
            super().__init__()
            made.append(threading.get_ident())

    monkeypatch.setattr(call_frame, "_thread", Counted())
    x, kernel = drawn((1, 64, 64, 8), (3, 3, 8, 8))

    @jax.jit
    def many(x):  # Independent of each other, so that XLA's threads share them.
        return [convolve(x + i, kernel) for i in range(50)]

    for _ in range(20):
        jax.block_until_ready(many(x))
    assert len(set(made)) > 1
    assert len(made) == len(set(made))


def test_threads_of_openmp_wait_as_the_user_says(monkeypatch):
    for name in WAITING:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    keep_awake()
    assert os.environ["OMP_WAIT_POLICY"] == "passive"
    assert "GOMP_SPINCOUNT" not in os.environ
    monkeypatch.delenv("OMP_WAIT_POLICY")
    keep_awake()
    assert {name: os.environ[name] for name in WAITING} == WAITING


def test_two_cores_are_shared(monkeypatch):
    def shared(
        precision: str = "float32",
        has: int = 2,
        values: int | None = cores.LARGE_TRAINED - 1,
        trained: bool = True,
        **said: str,
    ) -> str | None:
        monkeypatch.setattr(cores, "cores", lambda: has)
        for name in (cores.THREADS, *cores.OTHERS):
            monkeypatch.setenv(name, "")  # What is written to it is taken back after the test.
            monkeypatch.delenv(name)
        for name, value in said.items():
            monkeypatch.setenv(name, value)
        cores.share_cores(values, precision, trained=trained)
        return os.environ.get(cores.THREADS)

    monkeypatch.setattr(cores, "accelerated", lambda: False)
    assert shared() == "1"
    assert shared(PJRT_NPROC="3") == "3"
    assert shared(NPROC="3") is shared(OMP_NUM_THREADS="1") is None
    assert shared("bfloat16") is shared(has=1) is shared(has=4) is None
    assert shared(values=cores.LARGE_TRAINED) is shared(values=None) is None
    assert shared(values=cores.LARGE_PREDICTED - 1, trained=False) == "1"
    assert shared(values=cores.LARGE_PREDICTED, trained=False) is None
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(cores, "accelerated", lambda: True)
        assert shared() is None
    monkeypatch.setattr(cores, "available", lambda: False)
    assert shared() is None


@pytest.mark.parametrize(
    ("arguments", "does", "asked"),
    [
        (("train_jax", "--batch-size", "16"), "train.train", [(16 * IMAGE, "float32", True)]),
        (("train_jax", "--precision", "bfloat16"), "train.train", [(8 * IMAGE, "bfloat16", True)]),
        (("train_jax", "--parallel", "shard"), "train.train", []),
        (("train_jax", "--distributed", "--workdir", "OUT"), "train.train", []),
        (("lr_find",), "range_test.range_test", [(8 * IMAGE, "float32", True)]),
        (
            ("predict", "--run", "RUN", "IMAGE", "--out", "OUT"),
            PREDICT,
            [(8 * IMAGE, "float32", False)],
        ),
        (
            ("predict", "--weights", "nothing.pt", "IMAGE", "--out", "OUT"),
            PREDICT,
            [(None, "float32", False)],  # That it is refused is said later.
        ),
        (
            ("predict", "--run", "RUN", "IMAGE", "--out", "OUT", "--size", "native"),
            PREDICT,
            [(None, "float32", False)],
        ),
        (
            ("predict", "--run", "RUN", "IMAGE", "--out", "OUT", "--tile", "32x48"),
            PREDICT,
            [(2 * IMAGE, "float32", False)],
        ),
        (
            ("evaluate", "--run", "RUN", "--out", "OUT", "--batch-size", "2", "--tile", "32x48"),
            EVALUATE,
            [(2 * IMAGE, "float32", False)],  # Beside tiles, it is shown whole images.
        ),
        (
            ("evaluate", "--run", "RUN", "--run", "SMALL", "--out", "OUT"),
            EVALUATE,
            [(8 * IMAGE, "float32", False)],
        ),
        (
            ("evaluate", "--run", "RUN", "--run", "NONE", "--out", "OUT"),
            EVALUATE,
            [(None, "float32", False)],
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_commands_share_cores(arguments, does, asked, monkeypatch, tmp_path: Path):
    config = load("shapes")
    assert config.data.size == (64, 96), "IMAGE is another"
    half = replace(config, data=replace(config.data, size=(32, 48)))
    for name, each in (("RUN", config), ("SMALL", half)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(dump(each))
    for quiet in ("compiled.keep_compiled", "parallel.connect", does):
        monkeypatch.setattr(f"unet_jax.{quiet}", lambda *_, **__: 0)
    shared = []

    def share(values: int | None, precision: str = "float32", *, trained: bool) -> None:
        shared.append((values, precision, trained))

    monkeypatch.setattr(cores, "share_cores", share)
    monkeypatch.setattr(sys, "argv", list(arguments))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROOT / f"scripts/{arguments[0]}.py"), run_name="__main__")
    assert stop.value.code == 0
    assert shared == asked


def test_xla_has_as_many_threads_as_it_is_told():
    code = """
import jax
from pathlib import Path

jax.block_until_ready(jax.jit(lambda x: x + 1)(jax.numpy.ones(3)))
names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
print(names.count("tf_XLAEigen"))
"""
    for threads in ("1", "3"):
        env = os.environ | {cores.THREADS: threads, "JAX_PLATFORMS": "cpu"}
        run = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
        )
        assert run.stdout.strip() == threads


def test_it_can_be_switched_off():
    code = "from unet_jax import onednn; print(onednn.available())"
    for value, said in (("0", "False"), ("1", "True")):
        env = os.environ | {SWITCH: value}
        run = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
        )
        assert run.stdout.strip() == said


@pytest.mark.parametrize("missing", ["package", "file", "code", "engine"])
def test_without_a_library_that_can_be_loaded_there_is_none(missing: str, monkeypatch, tmp_path):
    broken = tmp_path / FILE
    broken.touch()

    def files(_: str) -> list[Any]:
        if missing == "package":
            raise PackageNotFoundError
        return [SimpleNamespace(name=broken.name, locate=lambda: broken)] * (missing == "code")

    def make(*_):
        raise RuntimeError("oneDNN's dnnl_engine_create failed with status 1")

    if missing == "engine":
        monkeypatch.setattr(Library, "make", make)
    else:
        monkeypatch.setattr("unet_jax.onednn.library.files", files)
    assert load_library.__wrapped__() is None


def test_threads_may_meet_one_shape_together(monkeypatch):
    x, kernel = drawn((1, 5, 11, 3), (3, 3, 3, 6))
    together, made = threading.Barrier(8), []

    def make_slowly(handler: call_frame.Handler) -> Any:
        made.append(handler)
        time.sleep(0.1)  # Long enough for another thread to come.
        return call_frame.c_function(handler)

    monkeypatch.setattr(calls, "c_function", make_slowly)

    def run(_: int) -> np.ndarray:
        together.wait()
        return np.asarray(jax.jit(lambda x: convolve(x, kernel))(x))

    with ThreadPoolExecutor(8) as pool:
        first, *others = pool.map(run, range(8))
    assert len(made) == 1
    for other in others:
        np.testing.assert_array_equal(other, first)

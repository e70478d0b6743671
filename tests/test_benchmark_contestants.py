"""Both frameworks' contestants take the same steps, and their cost is counted right."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
import torch
from torch.nn import functional
from torch.nn.functional import grid_sample

from parity.benchmark import jax_contestant, jax_layer
from parity.benchmark.agreement import LIMITS, distance
from parity.benchmark.contender import REFERENCE, Contender, chosen, contenders
from parity.benchmark.convolution import Convolution
from parity.benchmark.jax_contestant import JaxInference, JaxTraining
from parity.benchmark.jax_epochs import JaxEpochs
from parity.benchmark.jax_layer import JaxLayer
from parity.benchmark.peaks import measured, published
from parity.benchmark.roofline import Peaks, bound, convolutions
from parity.benchmark.setting import set_up
from parity.benchmark.task import JAX
from parity.benchmark.torch_contestant import TorchInference, TorchTraining
from parity.benchmark.torch_epochs import TorchEpochs
from parity.benchmark.torch_layer import TorchLayer
from unet_jax.cache import Held
from unet_jax.config import AugmentConfig, Config, DataConfig, LossConfig, ModelConfig, TrainConfig
from unet_jax.describe import describe
from unet_jax.pipeline import Pipeline

FREEZING = "TORCHINDUCTOR_FREEZING"
TINY = Config(
    data=DataConfig(size=(16, 24)),
    model=ModelConfig(architecture="plain", channels=(4,), norm="batch"),
)
ALL = replace(
    TINY,
    data=DataConfig(size=(16, 24), stored_size=(20, 30)),
    augment=AugmentConfig(rotation=20.0, brightness=0.2, hue=0.05),
    loss=LossConfig(dice=1.0, border_weight=5.0, class_weights="inverse"),
    train=TrainConfig(batch_size=4, accumulate=2, ema_decay=0.9),
)


@pytest.fixture(autouse=True)
def _settings_as_they_were(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("TORCHINDUCTOR_CACHE_DIR", FREEZING, "XLA_PYTHON_CLIENT_PREALLOCATE"):
        monkeypatch.setenv(name, "")  # What contestants set is taken back.
    names = ("jax_enable_compilation_cache", "jax_default_matmul_precision")
    before = {name: jax.config.values[name] for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.mark.parametrize(
    ("config", "precision"),
    [
        pytest.param(ALL, "float32", id="all that a step can have"),
        pytest.param(TINY, "float16", id="a scaled loss"),
    ],
)
def test_training_takes_the_same_steps(config, precision, tmp_path: Path):
    task = set_up(config, 4, 6, tmp_path, 1, 0)
    reference = TorchTraining(task, REFERENCE)
    ours = JaxTraining(task, Contender(framework="jax", how="jit", precision=precision))
    start, expected = ours.start(), reference.outcomes()
    assert distance(start.outcomes, expected) < LIMITS["train"][precision]
    assert len({float(loss) for loss in expected}) == len(expected), "nothing was learnt"
    assert start.first > 0
    assert 0 < ours.sample() < start.first


@pytest.mark.parametrize(
    ("precision", "convolved"),
    [("float32", "float32"), ("tf32", "float32"), ("bfloat16", "bfloat16")],
)
def test_cores_are_shared_as_commands_do(precision, convolved, tmp_path: Path, monkeypatch):
    asked = []

    def share(values: int, precision: str, *, trained: bool) -> None:
        asked.append((values, precision, trained))

    for module in (jax_contestant, jax_layer):
        monkeypatch.setattr(module, "share_cores", share)
    contender = Contender(framework="jax", how="jit", precision=precision)
    task = set_up(TINY, 4, 6, tmp_path, 1, 0)
    JaxInference(task, contender)
    JaxTraining(task, contender)
    JaxLayer(precision, False, 7)
    largest = task.config.largest_layer
    assert asked == [
        (largest, convolved, False),
        (largest, convolved, True),
        (7, convolved, True),
    ]


def test_no_step_is_begun_before_the_last_but_one_is_done(tmp_path: Path):
    task = set_up(TINY, 8, 6, tmp_path, 1, 0)
    ours = JaxTraining(task, Contender(framework="jax", how="pmap", precision="float32"))
    ours.step()
    for _ in range(40):  # At 32, XLA hangs where there are many devices and two cores.
        before = ours.metrics["loss"]
        ours.step()
        assert before.is_ready()
    ours.wait()


@pytest.mark.parametrize("held", [False, True], ids=["from records", "from memory"])
def test_both_loaders_serve_the_same_epochs(held: bool, tmp_path: Path, monkeypatch):
    data = replace(ALL.data, scenes=12, val_fraction=0.25, prepared_dir=tmp_path / "prepared")
    plain = replace(ALL, data=data, train=TrainConfig(batch_size=4))
    task = set_up(replace(plain, loss=ALL.loss), 4, 6, tmp_path, 1, 0)
    theirs = TorchEpochs(task, REFERENCE)
    kept = []

    def hold(*args: Any, hold: Callable[..., Held] = Pipeline.hold) -> Held:
        kept.append(hold(*args))
        return kept[-1]

    monkeypatch.setattr(Pipeline, "hold", hold)
    jit = Contender(framework="jax", how="jit", precision="float32")
    ours = JaxEpochs(task, jit, held=held)
    assert len(kept) == held
    expected = theirs.outcomes()  # Of an epoch, and of the first step of the next.
    assert ours.steps == theirs.steps == 2
    assert distance(ours.outcomes(), expected) < LIMITS["train"]["float32"]


def test_a_set_that_may_not_be_held_is_no_row(tmp_path: Path):
    data = replace(TINY.data, scenes=12, prepared_dir=tmp_path / "prepared", cache="none")
    task = set_up(replace(TINY, data=data), 2, 6, tmp_path, 1, 0)
    with pytest.raises(ValueError, match=r"data\.cache: none"):
        JaxEpochs(task, Contender(framework="jax", how="jit", precision="float32"), held=True)


def test_torch_moves_pixels_in_single_precision(tmp_path: Path, monkeypatch):
    training, seen = TorchTraining(set_up(ALL, 4, 6, tmp_path, 1, 0), REFERENCE), []

    def sample(image: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        seen.append(image.dtype)
        return grid_sample(image, *args, **options)

    monkeypatch.setattr(functional, "grid_sample", sample)
    training.step()
    assert seen == [torch.float32] * 3  # Image, mask and border map.


def test_torch_averages_weights_as_its_own_average_does(tmp_path: Path):
    training = TorchTraining(set_up(ALL, 4, 6, tmp_path, 1, 0), REFERENCE)
    before = [p.detach().clone() for p in training.parameters]
    training.step()
    for old, now, average in zip(before, training.parameters, training.average, strict=True):
        torch.testing.assert_close(average, 0.9 * old + 0.1 * now)


def test_inference_gives_the_same_logits(tmp_path: Path):
    task = set_up(ALL, 2, 2, tmp_path, 1, 0)
    ours = JaxInference(task, Contender(framework="jax", how="jit", precision="float32"))
    expected = TorchInference(task, REFERENCE).outcomes()
    assert expected[0].shape == (2, 3, 1)
    assert distance(ours.outcomes(), expected) < LIMITS["infer"]["float32"]


@pytest.mark.parametrize("kind", [JaxTraining, JaxInference])
def test_a_gpus_memory_is_what_is_held_and_what_a_step_takes(
    kind, tmp_path: Path, monkeypatch, caplog
):
    task = set_up(TINY, 2, 2, tmp_path, 1, 0)
    ours = kind(task, Contender(framework="jax", how="jit", precision="float32"))
    ours.outcomes()
    assert bool(ours.variables) == (kind is JaxInference), "weights are held twice"
    held = SimpleNamespace(memory_stats=lambda: {"bytes_in_use": 7, "peak_bytes_in_use": 2**40})
    monkeypatch.setattr(jax, "local_devices", lambda: [held])
    with jax.log_compiles():
        peak = ours.peak()
    assert not caplog.records, "compiled once more"
    sizes = ours.program().memory_analysis()
    # What is given back in place of a donated state is not counted twice.
    weights = task.load(JAX).items()
    size = sum(array.nbytes for name, array in weights if name.startswith("params/"))
    donated = sizes.alias_size_in_bytes
    assert donated > 3 * size if kind is JaxTraining else donated == 0
    assert peak == 7 + sizes.temp_size_in_bytes + sizes.output_size_in_bytes - donated
    assert sizes.temp_size_in_bytes > 0


@pytest.mark.parametrize("part", ["forward", "backward"])
@pytest.mark.parametrize(
    "layer",
    [
        Convolution("conv", 3, 2, 2, 24, 32, 5, 4),
        Convolution("up_conv", 2, 2, 2, 16, 24, 5, 4),
    ],
    ids=["stride", "transposed"],
)
def test_layers_alone_compute_the_same(layer, part):
    ours, theirs = JaxLayer("float32", False, 0), TorchLayer("float32", False)
    outcomes, expected = (each.choose(layer, part).outcomes for each in (ours, theirs))
    assert distance(outcomes, expected) < 1e-5
    assert outcomes[0].size > 8
    if part == "backward":
        gradient = ours.kernel_gradient()
        assert gradient.shape == layer.arrays()[1].shape
        assert distance([gradient], [theirs.kernel_gradient()]) < 1e-5


@pytest.mark.parametrize("architecture", ["plain", "residual"])
@pytest.mark.parametrize("upsample", ["transposed", "bilinear"])
def test_arithmetic_is_counted_as_it_is_described(architecture, upsample):
    model = ModelConfig(architecture=architecture, channels=(4, 8), groups=2, upsample=upsample)
    config = replace(TINY, model=model)
    counted = sum(layer.flops for layer in convolutions(config, 6))
    assert counted == config.train.batch_size * describe(config, 6).flops


def test_a_layer_is_held_up_by_arithmetic_or_by_memory():
    layer = Convolution("conv", 1, 1, 1, 10, 10, 2, 3)
    assert layer.flops == 2 * 100 * 2 * 3
    assert layer.values == 100 * 2 + 100 * 3 + 2 * 3
    slow = Peaks({"float32": 10.0, "bfloat16": 10.0}, 1e9, "")
    assert bound([layer, layer], "float32", slow) == 2 * 1200 / 10
    narrow = Peaks({"float32": 1e9, "bfloat16": 1e9}, 4.0, "")
    assert bound([layer], "float32", narrow) == 506
    assert bound([layer], "bfloat16", narrow) == 506 / 2


def test_peaks_are_published_or_measured(monkeypatch: pytest.MonkeyPatch):
    known = published("NVIDIA H200")
    assert known is not None
    assert (known.flops["bfloat16"], known.bandwidth) == (989.4e12, 4.8e12)
    assert published("AMD EPYC") is None
    monkeypatch.setattr("parity.benchmark.peaks.MATRIX", 64)
    monkeypatch.setattr("parity.benchmark.peaks.COPY", 1000)
    found = measured()
    assert min(found.flops.values()) > 0
    assert found.bandwidth > 0


def test_contenders_are_every_dress_and_chosen_by_their_names():
    found = contenders(("float32", "tf32"), devices=2)
    assert len(found) == len({each.name for each in found}) == 2 * (2 + 3 * 2)
    assert not any(each.how == "pmap" for each in contenders(("float32",), devices=1))
    frozen = {each.name for each in contenders(("float32",), devices=1, frozen=True)}
    assert frozen - {each.name for each in found} == {
        "PyTorch compile frozen, channels_last, float32",
        "PyTorch compile frozen, contiguous, float32",
    }
    names = [each.name for each in chosen(found, ["pmap", "eager, channels"], "--contenders")]
    assert names == [
        "JAX pmap, float32",
        "JAX pmap, tf32",
        "PyTorch eager, channels_last, float32",
        "PyTorch eager, channels_last, tf32",
    ]
    with pytest.raises(ValueError, match="--contenders: 'flax' is in none of the names: JAX jit"):
        chosen(found, ["jit", "flax"], "--contenders")
    assert {each.missing(gpu=False) for each in found if each.precision == "tf32"} == {
        "needs a GPU"
    }


def test_one_dress_has_weights_that_stay(tmp_path: Path, monkeypatch):
    """PyTorch is told in the environment, which it reads when it first compiles."""
    seen = []
    monkeypatch.setattr(torch, "compile", lambda *_, **how: seen.append(os.environ[FREEZING]))
    task = set_up(TINY, 2, 2, tmp_path, 1, 0)
    for how in ("compile frozen", "compile"):
        TorchInference(task, replace(REFERENCE, how=how))
    assert seen == ["1", "0"]
    program = (
        "import sys, parity.benchmark.torch_contestant\n"
        "print('torch._inductor.config' in sys.modules)\n"
    )
    command = [sys.executable, "-c", program]
    said = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True).stdout
    assert said == "False\n"


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="this system's peaks cannot be forgotten"
)
def test_freed_memory_is_no_peak():
    """That a process was told to keep, as those that are measured are."""
    program = (
        "import numpy as np\n"
        "from parity.benchmark import memory\n"
        "from unet_jax.heap import keep_step_memory\n"
        "keep_step_memory()\n"
        "memory.forget_peak()\n"
        "before = memory.peak()\n"
        "np.ones(25_000_000)\n"
        "among = memory.peak()\n"
        "memory.forget_peak()\n"
        "print(before, among, memory.peak())\n"
    )
    command = [sys.executable, "-c", program]
    said = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True).stdout
    before, among, after = map(int, said.split())
    assert among > before + 190_000_000
    assert after < before + 10_000_000


def test_a_batch_is_the_same_for_both(tmp_path: Path):
    task = set_up(ALL, 4, 6, tmp_path, 1, 0)
    theirs, ours = TorchInference(task, REFERENCE).batch, task.load("batch.npz")
    assert set(ours) == {"image", "mask", "valid", "geometry", "colour", "border"}
    for name, array in ours.items():
        np.testing.assert_array_equal(getattr(theirs, name).numpy(), array)

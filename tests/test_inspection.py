"""`python -m parity`: what it writes and prints, and what it refuses."""

import dataclasses
import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch.nn import functional as F

import parity.variants
from parity.band import BAND, FLOAT64, judge, summary
from parity.inspection import inspect
from parity.loss_curves import plot
from parity.options import Options
from parity.recipes import compare_recipe
from parity.reduced import reduce
from parity.row import first_divergence
from parity.subject import subjects
from parity.training import EVERY, Training
from parity.trajectory import Trajectory
from parity.variants import ReorderedSums, train_variants
from unet_jax.batch import Batch
from unet_jax.config import Config, DataConfig, ModelConfig, TrainConfig, load, presets
from unet_jax.models import build_model
from unet_jax.models.norms import NormKind
from unet_jax.weights import Trained, save_weights
from unet_torch_ref.learner import TorchLearner

MODEL = ModelConfig(architecture="plain", channels=(4,), norm="batch")
TRAINED: dict[str, Any] = {
    "model": MODEL,
    "num_logits": 1,
    "classes": ("background", "car"),
    "palette": ((0, 0, 0), (255, 176, 32)),
    "mean": (0.5, 0.4, 0.3),
    "std": (0.2, 0.25, 0.3),
    "size": (12, 20),
}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    image = np.zeros((1, 8, 8, 3), np.float32)
    variables = jax.device_get(build_model(MODEL, 1).init(jax.random.key(0), image))
    path = tmp_path / "cars.safetensors"
    save_weights(Trained(variables=variables, **TRAINED), path)
    return path


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "car.png")
    return tmp_path / "car.png"


def test_a_trained_network_and_a_picture_are_compared(
    weights: Path, picture: Path, tmp_path: Path, x64: None
):
    out = tmp_path / "report"
    console = Console(width=80, record=True, file=(tmp_path / "printed").open("w"))
    options = Options(weights=weights, image=picture, out=out)
    out.mkdir()
    assert inspect(options, subjects(options), console)
    report = json.loads((out / "report.json").read_text())
    assert report["passed"]
    assert report["level"] == "quick"
    assert report["first_divergence"] is report["third_opinion"] is None
    assert {row["case"] for row in report["rows"]} == {"cars"}
    assert {row["precision"] for row in report["rows"]} == {"float64", "float32"}
    assert report["command"].startswith("python -m parity")
    assert report["device"] == {"jax": str(jax.devices()[0]), "torch": "cpu"}
    measured = [r for r in report["rows"] if r["precision"] == "float32" and "ulps" in r]
    assert {row["stage"] for row in measured} >= {"eval", "train", "gradients"}
    judged = [row for row in measured if "ulps_limit" in row]
    assert {row["stage"] for row in judged} >= {"eval", "train"}
    assert all(0 <= row["ulps"] <= row["ulps_limit"] for row in judged)
    names = ["prediction_jax.png", "prediction_torch.png", "prediction_difference.png"]
    assert report["pictures"] == names
    ours, theirs = (np.asarray(Image.open(out / name)) for name in names[:2])
    assert ours.shape == (12, 20, 3)
    assert np.array_equal(ours, theirs)
    printed = console.export_text()
    assert "every tensor agrees" in printed
    *tables, _ = printed.splitlines()  # A long path is not broken, to be copied whole.
    assert max(map(len, tables)) <= 80


def test_a_changed_weight_turns_it_red(weights: Path, tmp_path: Path, x64: None):
    options = Options(
        weights=weights, out=tmp_path / "report", break_weight="encoder_0/conv_1/kernel"
    )
    console = Console(width=100, record=True, file=(tmp_path / "printed").open("w"))
    options.out.mkdir()
    assert not inspect(options, subjects(options), console)
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["first_divergence"]["name"] == "params/encoder_0/conv_1/kernel"
    assert "the weights themselves differ" in report["third_opinion"]
    assert "the weights themselves differ" in console.export_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "shapes", "weights": Path("w")}, "--preset, --weights: give one of them"),
        ({"steps": 9}, "--steps: 9 must be 0, or 10 or more"),
        ({"mutations": True, "preset": "shapes"}, "--mutations plants its own faults"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        Options(**options).check()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--device", "gpu"], "--device gpu: JAX and PyTorch found no CUDA GPU here"),
        (["--weights", "none.safetensors"], "none.safetensors"),
        (["--break-weight", "conv"], "there is no parameter 'conv'; the network has "),
    ],
)
def test_what_is_not_there_is_said_in_one_line(flags: list[str], message: str, tmp_path: Path):
    command = [sys.executable, "-m", "parity", "--out", str(tmp_path / "out"), *flags]
    process = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert process.returncode == 2
    [line] = process.stderr.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert not (tmp_path / "out").exists()


# Trajectories.


def training(offset: float, size: int = 2 * EVERY) -> Training:
    """Losses around 1 and parameters of norm 1, each off by `offset`."""
    losses = [1.0 + offset] * size
    return Training(losses, [np.array([0.6 * (1 + offset), 0.8 * (1 + offset)])] * 2)


EXACT = Trajectory(training(0.0), training(0.0))


def trajectory(ours: float, theirs: float, *variants: float) -> Trajectory:
    own = {f"order {n}": training(variant) for n, variant in enumerate(variants)}
    return Trajectory(training(ours), training(theirs), own)


@pytest.mark.parametrize(("norm", "parts"), [("group", (1, 2)), ("batch", (1,))])
def test_the_band_is_of_all_ways_to_add_up(
    norm: NormKind, parts: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
):
    seen, orders, sums, threads = [], [], [], torch.get_num_threads()
    torch.manual_seed(0)
    pixels, kernels = torch.randn(1, 64, 3, 3), torch.randn(16, 64, 3, 3)

    def note(twin: TorchLearner, batches: list[Batch], order: Callable[[Batch], Batch]) -> Training:
        kernel = next(p for p in twin.model.parameters() if p.ndim == 4 and p.shape[1] > 1)
        last = kernel.is_contiguous(memory_format=torch.channels_last)
        seen.append((twin.accumulate, last, torch.get_num_threads()))
        orders.append([int(image[0, 0, 0]) for image in order(batches[0]).image])
        sums.append(tuple(F.conv2d(pixels, kernels).flatten().tolist()))
        return training(0.0)

    monkeypatch.setattr(parity.variants, "train_twin", note)
    model = ModelConfig(channels=(4,), groups=2, norm=norm)
    config = Config(model=model, data=DataConfig(size=(8, 12)), train=TrainConfig(batch_size=4))
    image = np.broadcast_to(np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1), (4, 8, 12, 3))
    batch = Batch(image, np.zeros((4, 8, 12), np.uint8), np.ones(4, bool))
    found = train_variants(config, [batch], ("ground", "car"))
    assert sorted(seen) == sorted(itertools.product(parts, (True, False), (1, 2)))
    assert len(found) == len(seen)
    assert all(sorted(order) == [0, 1, 2, 3] for order in orders)
    assert len({tuple(order) for order in orders}) > 1
    assert len(set(sums)) == len(sums)  # Each is 16 sums of 576 rounded products.
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("convolve", [F.conv2d, F.conv_transpose2d])
@pytest.mark.parametrize("memory", [torch.channels_last, torch.contiguous_format])
def test_sums_in_another_order_are_the_same_but_for_rounding(
    convolve: Callable[..., torch.Tensor], memory: torch.memory_format
):
    torch.manual_seed(0)
    x, kernel, bias = torch.randn(2, 32, 6, 6), torch.randn(32, 32, 3, 3), torch.randn(32)
    x, kernel = (each.to(memory_format=memory) for each in (x, kernel))

    def results(dtype: torch.dtype) -> list[torch.Tensor]:
        given = [each.to(dtype).requires_grad_() for each in (x, kernel, bias)]
        out = convolve(*given, stride=2)
        assert out.is_contiguous(memory_format=memory)
        weights = torch.linspace(-1, 1, out.numel(), dtype=dtype).reshape(out.shape)
        return [out.detach(), *torch.autograd.grad((out * weights).sum(), given)]

    for dtype, same in ((torch.float64, 1e-13), (torch.float32, 1e-5)):  # Some 500 epsilons.
        usual = results(dtype)
        with ReorderedSums(seed=1):
            other = results(dtype)
        for a, b in zip(usual, other, strict=True):
            torch.testing.assert_close(a, b, rtol=same, atol=same * float(a.abs().max()))
    # The output and the image's gradient are sums over channels.
    assert not any(torch.equal(a, b) for a, b in zip(usual[:2], other[:2], strict=True))


@pytest.mark.parametrize(
    ("ours", "passed"),
    [(1.9e-5, True), (-1.9e-5, True), (2.1e-5, False), (np.nan, False)],
)
def test_jax_may_be_twice_as_far_as_the_farthest_variant(ours: float, passed: bool):
    rows = judge({"float64": EXACT, "float32": trajectory(ours, 1e-6, -1e-5, 5e-6)})
    own = [row for row in rows if row.precision == "float32"]
    assert len(own) == 4  # Losses and parameters, after 10 and 20 steps.
    assert all(row.passed == passed for row in own)


def test_float64_has_a_limit_of_its_own():
    for offset, passed in ((0.9 * FLOAT64, True), (1.1 * FLOAT64, False)):
        rows = judge({"float64": Trajectory(training(offset), training(0.0))})
        assert all(row.passed == passed for row in rows)


def test_a_band_is_told_and_drawn(tmp_path: Path):
    found = {"float64": EXACT, "float32": trajectory(1e-6, 1e-6, -1e-5, 5e-6)}
    told = summary(found)
    assert told["float32"]["jax"] == [1 + 1e-6] * 20
    assert told["float32"]["band"]["variants"] == ["order 0", "order 1"]
    assert told["float32"]["band"]["parameters_torch"] == pytest.approx([1e-5, 1e-5])
    assert told["float32"]["band"]["factor"] == BAND
    assert "band" not in told["float64"]
    plot(found, tmp_path / "curves.png")
    assert Image.open(tmp_path / "curves.png").size[0] > 800


def test_a_recipe_agrees_by_all_that_its_file_says(x64: None):
    # Odd sizes, batch norm, Dice of the batch, RMSprop with momentum, a plateau.
    rows = compare_recipe("plain-milesial", load("plain-milesial"))
    assert first_divergence(rows) is None
    assert {"step 3", "parameters after 3 steps", "statistics after 3 steps"} <= {
        row.stage for row in rows
    }
    assert rows[-1].name == "gradients"
    assert 0 < rows[-1].error < 1e-4  # Of float32: neither exact nor coarse.


def test_a_reduced_config_has_the_size_that_is_asked_for():
    whole = load("shapes")
    odd = dataclasses.replace(whole, data=dataclasses.replace(whole.data, size=(63, 96)))
    assert reduce(whole, size=(16, 24)).data.size == (16, 24)
    assert reduce(odd, stages=2, size=(16, 24)).data.size == (15, 24)


@pytest.mark.parametrize("name", presets())
def test_a_reduced_config_keeps_its_recipe(name: str):
    whole = load(name)
    small = reduce(whole, stages=2)
    for group in ("loss", "optim", "augment", "save"):
        assert getattr(small, group) == getattr(whole, group)
    for field in ("accumulate", "precision", "ema_decay"):
        assert getattr(small.train, field) == getattr(whole.train, field)
    assert small.model.norm == whole.model.norm
    assert len(small.model.channels) == 2
    assert [s % 2 for s in small.data.size] == [s % 2 for s in whole.data.size]

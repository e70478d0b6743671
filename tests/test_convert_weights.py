"""Other people's weights: what they compute, there and back without loss, and what is refused.

R1 and R2 are written here anew from their descriptions: the originals that conversions are held to.
"""

import json
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from flax.traverse_util import flatten_dict
from safetensors.torch import save_file
from torch import Tensor, nn

import parity.porting.agreement
from parity.porting.conversion import convert
from parity.porting.finished_run import load_run
from parity.porting.foreign import network_as, recognise
from parity.porting.source import Given
from parity.porting.state_file import read_state
from parity.row import relative_error
from parity.twin import make_learner
from unet_jax.checkpoint import Checkpoints
from unet_jax.config import Config, DataConfig, ModelConfig, SaveConfig, TrainConfig, dump
from unet_jax.exporting.model_card import model_card
from unet_jax.models import build_model
from unet_jax.recipe import build_recipe
from unet_jax.weights import Trained, load_weights, save_weights

SCRIPT = Path(__file__).parents[1] / "scripts" / "convert_weights.py"
FULL = (64, 128, 256, 512)
GROUPS = 2  # Widths are small here.


class R1Block(nn.Module):
    def __init__(self, inputs: int, features: int, groups: int) -> None:
        super().__init__()
        self.groupnorm_1 = nn.GroupNorm(groups, inputs)
        self.conv_1 = nn.Conv2d(inputs, features, 3, padding=1)
        self.groupnorm_2 = nn.GroupNorm(groups, features)
        self.conv_2 = nn.Conv2d(features, features, 3, padding=1)
        changes = inputs != features
        self.residual_connection = nn.Conv2d(inputs, features, 1) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv_1(F.relu(self.groupnorm_1(x)))
        y = self.conv_2(F.relu(self.groupnorm_2(y)))
        return self.residual_connection(x) + y


class R1Upsample(nn.Module):
    def __init__(self, width: int, bilinear: bool) -> None:
        super().__init__()
        up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.upsample = (
            nn.Sequential(up, nn.Conv2d(width, width, 3, padding=1))
            if bilinear
            else nn.ConvTranspose2d(width, width, 2, stride=2)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.upsample(x)


class R1(nn.Module):
    """The residual U-Net of the Carvana and ADE20K recipes; its sides divide by 2 a stage."""

    def __init__(
        self,
        classes: int = 1,
        widths: Sequence[int] = FULL,
        blocks: int = 1,
        groups: int = 16,
        bilinear: bool = False,
        skip: bool = True,
    ) -> None:
        super().__init__()
        self.skip, self.levels = skip, len(widths)
        block = partial(R1Block, groups=groups)
        self.conv_in_proj = nn.Conv2d(3, widths[0], 3, padding=1)
        ends: list[tuple[int, int]] = []  # Channels in and out of each encoder module.
        self.encoder = nn.ModuleList()
        for i, width in enumerate(widths):
            for _ in range(blocks):
                self.encoder.append(block(width, width))
                ends.append((width, width))
            self.encoder.append(nn.Conv2d(width, width, 3, stride=2, padding=1))
            ends.append((width, width))
            if i < len(widths) - 1:
                self.encoder.append(block(width, widths[i + 1]))
                ends.append((width, widths[i + 1]))
        self.bottleneck = nn.ModuleList([block(widths[-1], widths[-1]) for _ in range(blocks)])
        times = 2 if skip else 1
        self.decoder = nn.ModuleList()
        for module, (inputs, outputs) in zip(reversed(self.encoder), reversed(ends), strict=True):
            self.decoder.append(block(times * outputs, inputs))
            if isinstance(module, nn.Conv2d):
                self.decoder.append(R1Upsample(inputs, bilinear))
        self.decoder.append(block(times * widths[0], widths[0]))
        self.conv_out_proj = nn.Conv2d(widths[0], classes, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in_proj(x)
        kept = [x]
        for module in self.encoder:
            x = module(x)
            kept.append(x)
        for module in self.bottleneck:
            x = module(x)
        for module in self.decoder:
            if isinstance(module, R1Block):
                skip = kept.pop()
                x = torch.cat([x, skip], 1) if self.skip else x
            x = module(x)
        return self.conv_out_proj(x)


class R2Double(nn.Module):
    def __init__(self, inputs: int, features: int, middle: int) -> None:
        super().__init__()
        self.double_conv = nn.Sequential(
            nn.Conv2d(inputs, middle, 3, padding=1, bias=False),
            nn.BatchNorm2d(middle),
            nn.ReLU(),
            nn.Conv2d(middle, features, 3, padding=1, bias=False),
            nn.BatchNorm2d(features),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.double_conv(x)


class R2Down(nn.Module):
    def __init__(self, inputs: int, features: int) -> None:
        super().__init__()
        self.maxpool_conv = nn.Sequential(nn.MaxPool2d(2), R2Double(inputs, features, features))

    def forward(self, x: Tensor) -> Tensor:
        return self.maxpool_conv(x)


class R2Up(nn.Module):
    def __init__(self, joined: int, features: int, bilinear: bool) -> None:
        super().__init__()
        if bilinear:
            self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
            self.conv = R2Double(joined, features, joined // 2)
        else:
            self.up = nn.ConvTranspose2d(joined, joined // 2, 2, stride=2)
            self.conv = R2Double(joined, features, features)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = self.up(x)
        rows, columns = skip.shape[2] - x.shape[2], skip.shape[3] - x.shape[3]
        left, top = columns // 2, rows // 2
        x = F.pad(x, [left, columns - left, top, rows - top])
        return self.conv(torch.cat([skip, x], 1))


class R2(nn.Module):
    """The plain U-Net, as its most used PyTorch implementation names it. Widths double."""

    def __init__(
        self, classes: int = 1, width: int = 64, levels: int = 4, bilinear: bool = False
    ) -> None:
        super().__init__()
        self.levels = levels
        widths = [width * 2**n for n in range(levels + 1)]
        self.inc = R2Double(3, width, width)
        factor = 2 if bilinear else 1
        for n, (inputs, features) in enumerate(pairwise(widths), 1):
            last = n == levels
            setattr(self, f"down{n}", R2Down(inputs, features // factor if last else features))
        for n, joined in enumerate(reversed(widths[1:]), 1):
            last = n == levels
            features = joined // 2 // (1 if last else factor)
            setattr(self, f"up{n}", R2Up(joined, features, bilinear))
        self.outc = nn.ModuleDict({"conv": nn.Conv2d(width, classes, 1)})

    def forward(self, x: Tensor) -> Tensor:
        kept = [self.inc(x)]
        for n in range(1, self.levels + 1):
            kept.append(getattr(self, f"down{n}")(kept[-1]))
        x = kept.pop()
        for n in range(1, self.levels + 1):
            x = getattr(self, f"up{n}")(x, kept.pop())
        return self.outc["conv"](x)


def small_r1(**options: Any) -> R1:
    return trained_like(R1(**{"widths": (4, 6), "groups": GROUPS, **options}))


def small_r2(**options: Any) -> R2:
    return trained_like(R2(**{"width": 4, "levels": 2, **options}))


def trained_like(model: Any) -> Any:
    """The model in float64, its norms' weights and statistics away from 0 and 1."""
    torch.manual_seed(1)
    with torch.no_grad():
        for module in model.double().eval().modules():
            if isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.5, 0.5)
            if isinstance(module, nn.BatchNorm2d):
                module.get_buffer("running_mean").uniform_(-0.5, 0.5)
                module.get_buffer("running_var").uniform_(0.5, 1.5)
                module.get_buffer("num_batches_tracked").fill_(7)
    return model


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a conversion's own check: it compiles a network, for seconds."""
    monkeypatch.setattr("parity.porting.conversion.disagreement", lambda trained: (0.0, (1, 1)))


def converted(source: Path, out: Path, to: Any = "flax", force: bool = False, **given: Any) -> str:
    """What a conversion that succeeds says."""
    said: list[Any] = []
    status = convert(source, out, to=to, given=Given(**given), force=force, say=said.append)
    assert status == 0, said
    assert out.is_file()
    return "\n".join(map(str, said))


def flax_logits(trained: Trained, image: np.ndarray) -> np.ndarray:
    """[1, K, H, W] of an image [1, 3, H, W]."""
    # What runs once is not worth optimising: that takes longer.
    quick = {"xla_backend_optimization_level": 0}
    network = jax.jit(build_model(trained.model, trained.num_logits).apply, compiler_options=quick)
    return np.asarray(network(trained.variables, image.transpose(0, 2, 3, 1))).transpose(0, 3, 1, 2)


def padded(model: R1, image: Tensor) -> Tensor:
    """R1 takes sides that divide; ours, zeros around others, more of them at bottom and right."""
    unit = 2**model.levels
    rows, columns = (-image.shape[2] % unit, -image.shape[3] % unit)
    top, left = rows // 2, columns // 2
    logits = model(F.pad(image, [left, columns - left, top, rows - top]))
    return logits[:, :, top : top + image.shape[2], left : left + image.shape[3]]


def equal_arrays(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(
        (a[k].dtype, a[k].shape, a[k].tobytes()) == (b[k].dtype, b[k].shape, b[k].tobytes())
        for k in a
    )


def arrays(state: Any) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy() for name, value in state.items()}


# Counts are the publications' (R1), and those of the implementation itself (R2).
@pytest.mark.parametrize(
    ("model", "options", "parameters"),
    [
        (R1, {}, 44_897_473),
        (R1, {"skip": False}, 35_464_833),
        (R1, {"bilinear": True}, 46_638_273),
        (R1, {"bilinear": True, "skip": False}, 37_205_633),
        (R1, {"classes": 150}, 44_983_446),
        (R1, {"classes": 150, "skip": False}, 35_550_806),
        (R1, {"classes": 150, "bilinear": True}, 46_724_246),
        (R2, {}, 31_037_633),
        (R2, {"classes": 2}, 31_037_698),
        (R2, {"bilinear": True}, 17_262_977),
        (R2, {"bilinear": True, "classes": 2}, 17_263_042),
    ],
)
def test_published_networks_are_recognised_at_full_size(model, options, parameters):
    with torch.device("meta"):
        original = model(**options)
    assert sum(p.numel() for p in original.parameters()) == parameters
    # Arrays of these shapes without any memory.
    shaped = {
        name: np.broadcast_to(np.float32(0), tuple(value.shape))
        for name, value in original.state_dict().items()
    }
    network = recognise(shaped)
    assert network.family.name == model.__name__.lower()
    assert network.num_logits == options.get("classes", 1)
    expected = {"channels": FULL, "skip": options.get("skip", True), "groups": 16}
    expected |= {"upsample": "bilinear" if options.get("bilinear") else "transposed"}
    expected |= {"norm": "group" if model is R1 else "batch", "size_policy": "pad"}
    assert {name: getattr(network.model, name) for name in expected} == expected
    assert sum(p.numel() for p in network.twin().parameters()) == parameters


ODD, EVEN = (37, 53), (16, 24)


@pytest.mark.usefixtures("x64", "unchecked")
@pytest.mark.parametrize(
    ("make", "options", "size"),
    [
        pytest.param(small_r1, {}, EVEN, id="r1"),
        pytest.param(small_r1, {}, ODD, id="r1, odd"),
        pytest.param(small_r1, {"skip": False}, ODD, id="r1, no skips"),
        pytest.param(small_r1, {"bilinear": True}, ODD, id="r1, bilinear"),
        pytest.param(small_r1, {"blocks": 2, "classes": 5}, ODD, id="r1, 2 blocks, 5 classes"),
        pytest.param(
            small_r1, {"bilinear": True, "skip": False, "classes": 2}, EVEN, id="r1, bilinear alone"
        ),
        pytest.param(small_r2, {}, ODD, id="r2"),
        pytest.param(small_r2, {"classes": 2}, EVEN, id="r2, 2 classes"),
        pytest.param(small_r2, {"bilinear": True, "levels": 3}, ODD, id="r2, bilinear"),
        pytest.param(small_r2, {"bilinear": True, "classes": 4}, ODD, id="r2, bilinear, 4 classes"),
    ],
)
def test_converted_logits_are_the_originals(make, options, size, tmp_path):
    original = make(**options)
    torch.save(original.state_dict(), tmp_path / "theirs.pth")
    groups: Any = {"groups": GROUPS} if make is small_r1 else {}
    converted(tmp_path / "theirs.pth", tmp_path / "ours.safetensors", **groups)
    image = torch.randn(1, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        theirs = padded(original, image) if make is small_r1 else original(image)
    ours = flax_logits(load_weights(tmp_path / "ours.safetensors"), image.numpy())
    assert ours.std() > 1e-3  # Something that depends on the image is compared.
    # Sums in another order; the worst here is 3e-15 apart.
    assert relative_error(ours, theirs.numpy()) <= 1e-12


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("r1", small_r1),
        ("r1", partial(small_r1, bilinear=True, skip=False, blocks=2)),
        ("r2", small_r2),
        ("r2", partial(small_r2, bilinear=True, classes=3)),
    ],
    ids=["r1", "r1, bilinear, no skips, 2 blocks", "r2", "r2, bilinear, 3 classes"],
)
def test_nothing_is_lost_there_and_back(name, make, suffix, tmp_path):
    state = make().float().state_dict()
    values = [[0, 0, 0], [255, 0, 0], [0, 0, 255]][: max(len(state[list(state)[-1]]), 2)]
    extra = {"mask_values": values} if name == "r2" else {}
    torch.save({**state, **extra}, tmp_path / "theirs.pt")
    groups: Any = {"groups": GROUPS} if name == "r1" else {}
    flax, back, twin = (tmp_path / f for f in ("1.safetensors", f"2{suffix}", f"3{suffix}"))
    converted(tmp_path / "theirs.pt", flax, **groups)
    converted(flax, back, to=name)
    converted(flax, twin, to="torch")
    saved = read_state(back)
    assert equal_arrays(saved.tensors, arrays(state))
    assert saved.mask_values == extra.get("mask_values")
    make().load_state_dict({k: torch.from_numpy(v) for k, v in saved.tensors.items()})
    # And from our twin's names, by way of a file of its own, to the very same file.
    again = tmp_path / "4.safetensors"
    converted(twin, again, **groups)
    assert equal_arrays(*(flatten_dict(load_weights(p).variables, sep="/") for p in (flax, again)))
    trained = load_weights(flax)
    assert trained.facts.get("mask_values") == extra.get("mask_values")
    if extra:
        assert [list(colour) for colour in trained.palette] == values


def prefixed(prefix: str) -> Callable[[dict], dict]:
    return lambda state: {prefix + name: value for name, value in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        prefixed("module."),
        prefixed("_orig_mod."),
        prefixed("module._orig_mod."),
        prefixed("_orig_mod.module."),
        lambda state: {"state_dict": prefixed("module.")(state), "epoch": 3},
        lambda state: {"model_state_dict": state, "optimizer_state_dict": {"state": {}}},
        lambda state: {"epoch": 1, "model": state, "loss": 0.5},
        lambda state: {"model": state, "ema": 0.999},
        lambda state: {"state_dict": state, "ema": {name: 2 * x for name, x in state.items()}},
    ],
)
@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_wrapped_and_prefixed_states_are_read(wrap, form, tmp_path):
    state = small_r2(classes=2).state_dict()
    path = tmp_path / "weights.bin"  # What it is, its content tells.
    if form == "safetensors":  # It has no place for anything but tensors, all in one row.
        wrapped = wrap({**state})
        flat = next(
            (wrapped[k] for k in ("state_dict", "model_state_dict", "model") if k in wrapped),
            wrapped,
        )
        save_file({**flat, "mask_values": torch.tensor([0, 255])}, path)
    else:
        wrapped = wrap({**state})
        wrapped["mask_values"] = [0, 255]
        torch.save(wrapped, path, _use_new_zipfile_serialization=form == "zip")
    saved = read_state(path)
    assert equal_arrays(saved.tensors, arrays(state))
    assert saved.mask_values == [0, 255]


@pytest.mark.usefixtures("unchecked")
def test_what_is_not_in_the_file_is_said_and_can_be_given(tmp_path):
    path, out = tmp_path / "r2.pth", tmp_path / "out.safetensors"
    torch.save({**small_r2(classes=2).state_dict(), "mask_values": [0, 255]}, path)
    said = converted(path, out)
    assert "r2: plain, 4-8, transposed upsampling, 2 logits" in said
    assert "mask values: 0, 255" in said
    assert (
        "assumed, since the file does not tell: --classes background foreground "
        "--mean 0.0 0.0 0.0 --std 1.0 1.0 1.0 --size 640 959"
    ) in said
    given: Any = {
        "classes": ("sky", "sea"),
        "mean": (0.5, 0.4, 0.3),
        "std": (0.2, 0.3, 0.4),
        "size": (64, 96),
    }
    said = converted(path, out, force=True, **given)
    assert "assumed" not in said
    trained = load_weights(out)
    assert {name: getattr(trained, name) for name in given} == given
    assert trained.facts["converted_from"] == {"file": "r2.pth", "names": "r2"}
    said = converted(out, out, force=True, classes=("a", "b"))
    assert replace(load_weights(out), classes=given["classes"], variables={}) == replace(
        trained, variables={}
    )
    torch.save(small_r1(widths=(16, 32), groups=16).state_dict(), path)
    said = converted(path, out, force=True)
    assert "--groups 16 --size-policy pad" in said
    assert load_weights(out).mean == (0.48897059, 0.46548275, 0.4294)
    assert "--groups 8" not in converted(path, out, force=True, groups=8, size_policy="resize")
    assert load_weights(out).model.groups == 8
    assert load_weights(out).model.size_policy == "resize"


class Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.target),)


def refusal(path: Path, **given: Any) -> str:
    """The message with which a file is refused; nothing is written."""
    out = path.parent / "out.safetensors"
    with pytest.raises(ValueError, match=re.escape(path.name)) as caught:
        convert(path, out, to="flax", given=Given(**given), say=lambda _: None)
    assert not list(path.parent.glob("out.safetensors*"))
    return str(caught.value)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_that_would_run_code_is_refused(legacy, tmp_path):
    path, ran = tmp_path / "evil.pth", tmp_path / "ran"
    state = {**small_r2().state_dict(), "mask_values": Malicious(ran)}
    torch.save(state, path, _use_new_zipfile_serialization=not legacy)
    message = refusal(path)
    assert "nothing in it was run: a pickle that asks for posix.mkdir could run any code" in message
    assert not ran.exists()
    torch.save(small_r2(), path)  # A whole model is code, too.
    assert "torch.save(model.state_dict(), …)" in refusal(path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        pytest.param(lambda p: p.unlink(), "there is no such file", id="not there"),
        pytest.param(lambda p: p.write_bytes(b""), "neither a safetensors file nor", id="empty"),
        pytest.param(
            lambda p: p.write_bytes(b"a,b\n1,2\n"), "neither a safetensors file nor", id="text"
        ),
        pytest.param(
            lambda p: p.write_bytes(p.read_bytes()[:-500]), r"or damaged \(RuntimeError", id="cut"
        ),
        pytest.param(
            lambda p: flip(p, len(p.read_bytes()) // 2), "the checksum of .* is wrong", id="flipped"
        ),
        pytest.param(
            lambda p: (save_file(torch.load(p), p), p.write_bytes(p.read_bytes()[:-500])),
            "a damaged safetensors file",
            id="safetensors, cut",
        ),
        pytest.param(lambda p: torch.save([1], p), "holds a list, not a state_dict", id="list"),
        pytest.param(
            lambda p: (p.unlink(), p.mkdir()), r"a folder, but not a run's", id="a folder"
        ),
    ],
)
def test_what_is_no_state_is_refused(spoil, message, tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(small_r2().state_dict(), path)
    spoil(path)
    assert re.search(message, refusal(path))


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def half(state: dict) -> dict:
    return {name: state[name] for name in list(state)[: len(state) // 2]}


def with_biases(state: dict) -> dict:
    """As in early versions of R2, whose convolutions had them in front of batch norms."""
    return {**state, "inc.double_conv.0.bias": torch.zeros(4)}


def grey(state: dict) -> dict:
    return state | {"inc.double_conv.0.weight": state["inc.double_conv.0.weight"][:, :1]}


def without_counters(state: dict) -> dict:
    return {name: value for name, value in state.items() if "num_batches" not in name}


@pytest.mark.parametrize(
    ("make", "change", "lines"),
    [
        pytest.param(
            small_r2,
            half,
            ["the nearest is r2, .* 4-8, transposed", r"missing: up1\.up\.weight \(16, 8, 2, 2\)"],
            id="half of r2",
        ),
        pytest.param(
            small_r1,
            half,
            [
                "the nearest is r1",
                r"missing: decoder\.2\.groupnorm_1\.bias \(12,\)",
                r"and \d+ more",
            ],
            id="half of r1",
        ),
        pytest.param(
            small_r2, with_biases, [r"unexpected: inc.double_conv.0.bias \(4,\)"], id="biases"
        ),
        pytest.param(
            small_r2,
            grey,
            [r"shape: inc.double_conv.0.weight is \(4, 1, 3, 3\), expected \(4, 3, 3, 3\)"],
            id="grey images",
        ),
        pytest.param(
            small_r2,
            without_counters,
            [r"missing: inc.double_conv.1.num_batches_tracked \(\)"],
            id="no counters",
        ),
        pytest.param(
            small_r2,
            lambda state: {f"net.{name}": value for name, value in state.items()},
            [r"none of r1 \(published residual U-Net\), r2", "unexpected: net.inc"],
            id="other names",
        ),
        pytest.param(
            small_r2,
            lambda state: {**state, "inc.double_conv.0.weight": [1.0], "epoch": 3},
            ["inc.double_conv.0.weight is a list, not a tensor", "epoch is a int, not a tensor"],
            id="not tensors",
        ),
        pytest.param(
            small_r2,
            lambda state: {name: value.bfloat16() for name, value in state.items()},
            ["inc.double_conv.0.weight is bfloat16; float16, float32 and float64"],
            id="bfloat16",
        ),
        pytest.param(
            small_r2,
            lambda state: {**state, "mask_values": [0, 1, 2]},
            [r"mask_values: \[0, 1, 2\] do not go with 1 logits"],
            id="other mask values",
        ),
        pytest.param(
            small_r2,
            lambda state: {**state, "mask_values": ["sky", "sea"]},
            ["mask_values: .* is no list of grey levels or RGB colours"],
            id="mask values that are none",
        ),
    ],
)
def test_what_does_not_match_is_listed(make, change, lines, tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(change(dict(make().state_dict())), path)
    message = refusal(path, **({"groups": GROUPS} if make is small_r1 else {}))
    for line in lines:
        assert re.search(line, message), message
    assert len(message.splitlines()) <= 34  # Of each kind, 10 and how many more.


def test_groups_that_cannot_be_are_refused(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(small_r1().state_dict(), path)
    assert "groups: 16 does not divide the width 4" in refusal(path)
    assert "groups: 3 does not divide the width 4" in refusal(path, groups=3)
    torch.save(small_r2().state_dict(), path)
    assert "groups: 2 given, but its norm is batch" in refusal(path, groups=2)
    assert "size_policy: resize has no place in r2" in refusal(path, size_policy="resize")
    assert "classes: 3 do not go with 1 logits" in refusal(path, classes=("a", "b", "c"))


def our_file(path: Path, **options: Any) -> ModelConfig:
    model = ModelConfig(**{"channels": (4, 8), "groups": GROUPS, **options})
    network = build_model(model, 1)
    variables = jax.eval_shape(network.init, jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32))
    rng = np.random.default_rng(0)
    fields: dict[str, Any] = {"mean": (0.5,) * 3, "std": (0.2,) * 3, "size": (8, 8)}
    trained = Trained(
        variables=jax.tree.map(lambda x: rng.random(x.shape).astype(x.dtype), variables),
        model=model,
        num_logits=1,
        classes=("a", "b"),
        palette=((0, 0, 0), (1, 1, 1)),
        **fields,
    )
    save_weights(trained, path)
    return model


@pytest.mark.parametrize(
    ("options", "to", "out", "given", "message"),
    [
        ({}, "r2", "x.pt", {}, "architecture: residual has no place in r2"),
        ({"norm": "batch"}, "r1", "x.pt", {}, "norm: batch has no place in r1"),
        ({"architecture": "plain"}, "r2", "x.pt", {}, "norm: group has no place in r2"),
        (
            {"architecture": "plain", "norm": "batch", "size_policy": "resize"},
            "r2",
            "x.pt",
            {},
            "size_policy: resize has no place in r2",
        ),
        ({}, "flax", "x.pt", {}, "--to flax writes files that end in .safetensors"),
        ({}, "torch", "x.npz", {}, "files that end in .pt, .pth, .bin, .safetensors"),
        ({}, "torch", "there.pt", {}, "there.pt: is there already; choose another name, or --forc"),
        ({}, "torch", "x.pt", {"mean": (0.0,) * 3}, "--mean: a state_dict has no place for it"),
        ({}, "torch", "x.pt", {"groups": 4}, "groups: 4 given, but its own is 2"),
    ],
)
def test_what_a_target_cannot_hold_is_refused(options, to, out, given, message, tmp_path):
    our_file(tmp_path / "ours.safetensors", **options)
    (tmp_path / "there.pt").write_text("mine")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ValueError, match=re.escape(message)):
        convert(tmp_path / "ours.safetensors", tmp_path / out, to=to, given=Given(**given))
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "there.pt").read_text() == "mine"


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    ("options", "to"),
    [
        ({"norm": "batch"}, "torch"),
        ({"norm": "none", "upsample": "bilinear", "blocks_per_stage": 2}, "torch"),
        ({"architecture": "plain", "norm": "none"}, "torch"),
        ({"architecture": "plain", "norm": "group", "upsample": "bilinear"}, "torch"),
        ({"skip": False, "upsample": "bilinear"}, "r1"),
        ({"architecture": "plain", "norm": "batch"}, "r2"),
    ],
)
def test_ours_goes_out_and_comes_back(options, to, suffix, tmp_path):
    source, out, back = (tmp_path / f for f in ("a.safetensors", f"b{suffix}", "c.safetensors"))
    model = our_file(source, **options)
    converted(source, out, to=to)
    groups: Any = {"groups": GROUPS} if model.norm == "group" else {}
    converted(out, back, **groups)
    before, after = load_weights(source), load_weights(back)
    ignored = {} if model.norm == "group" else {"groups": 16}
    assert after.model == replace(model, **ignored)
    assert equal_arrays(*(flatten_dict(t.variables, sep="/") for t in (before, after)))


def test_a_conversion_checks_itself(tmp_path, monkeypatch, capsys):
    path, out = tmp_path / "weights.pt", tmp_path / "out.safetensors"
    torch.save(small_r2().state_dict(), path)
    assert convert(path, out, to="flax", given=Given()) == 0
    said = capsys.readouterr().out
    found = re.search(r"logits agree to (\S+) in float64 on 13×17 pixels", said)
    assert found is not None, said
    assert float(found[1]) <= 1e-12
    out.unlink()

    def spoilt(model: ModelConfig, logits: int) -> Any:
        return build_model(replace(model, size_policy="resize"), logits)

    monkeypatch.setattr(parity.porting.agreement, "build_model", spoilt)
    assert convert(path, out, to="flax", given=Given()) == 1
    assert "more than 1e-12: nothing is written" in capsys.readouterr().out
    assert sorted(tmp_path.iterdir()) == [path]


def tiny(norm: str, ema: float) -> Config:
    channels: Any = {"channels": (4,), "norm": norm} | ({"groups": 2} if norm == "group" else {})
    return Config(
        data=DataConfig(size=(8, 12), mean=(0.5, 0.4, 0.3)),
        model=ModelConfig(architecture="plain", size_policy="resize", **channels),
        train=TrainConfig(ema_decay=ema),
        save=SaveConfig(best="dice"),
    )


def save_run(folder: Path, framework: str, config: Config) -> dict[str, Any]:
    """A run of three states whose second is best; the variables that one validates with."""
    names = ["ground", "car", "void"]
    facts: dict[str, Any] = {
        "num_classes": 3,
        "classes": 3,
        "class_weights": None,
        "steps_per_epoch": 1,
    }
    folder.mkdir()
    (folder / "config.yaml").write_text(dump(config))
    described = {"classes": names, "palette": PALETTE}
    (folder / "classes.json").write_text(json.dumps(described))
    best: dict[str, Any] = {}
    if framework == "torch":
        learner = make_learner(config, folder=folder / "checkpoints", **facts)
        for step, dice in SCORES:
            learner.step = step
            for n, tensor in enumerate(learner.model.state_dict().values()):
                tensor.copy_(torch.full(tensor.shape, step + n))
            if learner.ema is not None:
                for parameter in learner.ema.module.parameters():
                    parameter.data.copy_(-parameter - step)
            learner.save({}, {"dice": dice})
            if step == 2:
                averages = learner.model if learner.ema is None else learner.ema.module
                best = arrays(learner.model.state_dict()) | {
                    name: p.detach().numpy() for name, p in averages.named_parameters()
                }
                best = {name: array.copy() for name, array in best.items()}
        network = network_as("torch", config.model, 3)
        return network.to_flax(best)
    recipe = build_recipe(config, **facts)
    template = jax.eval_shape(partial(recipe.init, size=config.data.size), jax.random.key(0))
    state = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.5).astype(leaf.dtype), template)
    checkpoints = Checkpoints(folder / "checkpoints", "dice", keep=2)
    for step, dice in SCORES:
        state = state.replace(
            step=np.int32(step), params=jax.tree.map(lambda x: x + 1, state.params)
        )
        if state.ema is not None:
            state = state.replace(ema=jax.tree.map(lambda x: -x, state.params))
        checkpoints.save(jax.device_put(state), {}, {"dice": dice})
        if step == 2:
            best = {"params": state.evaluated}
            best |= {"batch_stats": state.batch_stats} if state.batch_stats else {}
            best = jax.tree.map(np.asarray, best)
    checkpoints.close()
    return best


SCORES = ((1, 0.5), (2, 0.9), (3, 0.7))
PALETTE = ((0, 0, 0), (255, 0, 0), (0, 0, 255))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("framework", "norm", "ema"),
    [
        ("jax", "batch", 0.0),
        ("jax", "group", 0.9),
        ("torch", "group", 0.0),
        ("torch", "batch", 0.9),
    ],
)
def test_runs_are_converted_by_their_best_state(framework, norm, ema, tmp_path):
    run, out = tmp_path / "run", tmp_path / "out.safetensors"
    config = tiny(norm, ema)
    best = save_run(run, framework, config)
    said = converted(run, out)
    assert "run: plain, 4, transposed upsampling, 3 logits" in said
    assert "assumed" not in said
    trained = load_weights(out)
    assert equal_arrays(flatten_dict(trained.variables, sep="/"), flatten_dict(best, sep="/"))
    assert trained.model == config.model
    assert trained.classes == ("ground", "car", "void")
    assert (trained.mean, trained.size) == ((0.5, 0.4, 0.3), (8, 12))
    assert trained.palette == PALETTE
    assert (trained.facts["step"], trained.facts["ema"]) == (2, ema > 0)
    if framework == "torch":  # One checkpoint of it, by the settings beside.
        single = tmp_path / "single.safetensors"
        assert "assumed" not in converted(run / "checkpoints" / "2.pt", single)
        again = load_weights(single)
        assert equal_arrays(*(flatten_dict(t.variables, sep="/") for t in (again, trained)))
        assert replace(again, variables={}, facts={}) == replace(trained, variables={}, facts={})


@pytest.mark.parametrize("framework", ["jax", "torch"])
@pytest.mark.parametrize(("last", "ema"), [(True, True), (True, False), (False, False)])
def test_another_state_of_a_run_can_be_read(framework, last, ema, tmp_path):
    """A state's kernel is its own step away from the others; its average is of the other sign."""
    run = tmp_path / "run"
    save_run(run, framework, tiny("none", 0.9))
    found = load_run(run, last=last, ema=ema)
    step = 3 if last else 2
    assert (found.facts["step"], found.facts["ema"]) == (step, ema)
    assert found.facts["state"] == ("last" if last else "best by dice")
    kernels = [leaf for leaf in jax.tree.leaves(found.variables["params"]) if leaf.ndim == 4]
    assert all((leaf < 0).all() if ema else (leaf > step - 1).all() for leaf in kernels)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("framework", ["jax", "torch"])
def test_a_converted_run_has_a_whole_card(framework, tmp_path):
    run, out = tmp_path / "my-run", tmp_path / "out.safetensors"
    save_run(run, framework, tiny("group", 0.9))
    record = {"epoch": 2, "step": 2, "dice": 0.9}
    (run / "metrics.jsonl").write_text(json.dumps(record) + "\n")
    (run / "split.json").write_text(json.dumps({"train": ["a", "b"], "validation": ["c"]}))
    converted(run, out)
    trained = load_weights(out)
    assert trained.facts["run"] == "my-run"
    assert str(tmp_path) not in str(trained.facts)
    card = model_card(trained, [], trained.size, {})
    assert "`shapes`: train 2 samples, validation 1 samples" in card
    assert "(best by dice, after epoch 2, step 2, average of the weights)" in card
    assert "| Dice | 0.9000 |" in card
    assert "The preset `shapes`, but for:" in card


def test_a_run_without_a_checkpoint_is_refused(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(dump(tiny("batch", 0.0)))
    assert "its classes are not known (no classes.json)" in refusal(run)
    classes = {"classes": ["ground", "car", "void"], "palette": PALETTE}
    (run / "classes.json").write_text(json.dumps(classes))
    assert "no state has been validated yet" in refusal(run)


def test_a_converted_network_runs_in_float32(tmp_path):
    """PyTorch counts batches in int64, which JAX has not without x64."""
    path = tmp_path / "weights.pt"
    torch.save(small_r2().float().state_dict(), path)
    converted(path, tmp_path / "out.safetensors")
    trained = load_weights(tmp_path / "out.safetensors")
    counter = trained.variables["batch_stats"]["bottleneck"]["norm_1"]["num_batches_tracked"]
    assert (counter.dtype, counter.shape, int(counter)) == (np.int64, (), 7)
    assert np.isfinite(flax_logits(trained, np.ones((1, 3, 8, 8), np.float32))).all()


def run_script(*arguments: Any) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
        return runpy.run_path(str(SCRIPT))["main"]()


@pytest.mark.usefixtures("unchecked")
def test_the_script_converts_and_says_in_a_line_what_is_wrong(tmp_path, capsys):
    source, out = tmp_path / "weights.pt", tmp_path / "new" / "out.pt"
    torch.save(small_r1().state_dict(), source)
    assert run_script(source, out, "--to", "torch", "--groups", "2") == 0
    said = capsys.readouterr().out
    assert f"wrote {out}" in said
    assert "build_model('residual', num_classes=1, channels=(4, 6), blocks_per_stage=1" in said
    assert torch.load(out, weights_only=True)["conv_in.weight"].shape == (4, 3, 3, 3)
    with pytest.raises(SystemExit) as caught:
        run_script(source, out, "--to", "torch", "--groups", "2")
    assert caught.value.code == 2
    printed = capsys.readouterr()
    assert printed.err == f"error: {out}: is there already; choose another name, or --force\n"
    with pytest.raises(ValueError, match="is there already"):
        run_script(source, out, "--to", "torch", "--debug")
    assert run_script(source, out, "--to", "r1", "--groups", "2", "--force") == 0
    assert "conv_in_proj.weight" in torch.load(out, weights_only=True)


def test_its_help_waits_for_no_framework():
    code = (
        "import runpy, sys\nsys.argv = [sys.argv[1], '--help']\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit: print('\\n#', *sys.modules)"
    )
    command = [sys.executable, "-c", code, str(SCRIPT)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    text, _, modules = output.rpartition("#")
    assert "--groups" in text
    assert sorted({"jax", "torch", "flax", "safetensors"} & set(modules.split())) == []

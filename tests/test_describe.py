"""What is printed of a network before it runs, and what its layers cost."""

import io
import math

import pytest
import torch
from rich.console import Console, RenderableType

import unet_torch_ref.describe
from unet_jax.config import Config, DataConfig, ModelConfig, TrainConfig
from unet_jax.describe import Network, describe, introduce, layer_table, parameter_table
from unet_torch_ref.models import build_model

PLAIN = ModelConfig(architecture="plain", norm="batch")
SMALL = Config(
    model=ModelConfig(channels=(4, 8), groups=2),
    data=DataConfig(size=(8, 12)),
    train=TrainConfig(batch_size=3),
)


def printed(*things: RenderableType) -> str:
    file = io.StringIO()
    for thing in things:
        Console(width=100, file=file).print(thing)
    return file.getvalue()


@pytest.mark.parametrize(
    ("model", "total"),
    [(ModelConfig(), 44_897_473), (PLAIN, 31_037_633)],
    ids=["residual", "plain"],
)
def test_rows_add_up_to_the_published_count(model: ModelConfig, total: int) -> None:
    network = describe(Config(model=model, data=DataConfig(size=(32, 48))), num_classes=1)
    text = printed(layer_table(network))
    assert f"{total:,} parameters" in text
    assert network.size == total
    counts = [line.split("│")[-2] for line in text.splitlines() if line.startswith("│")]
    assert sum(int(count.replace(",", "")) for count in counts) == total
    [last] = [line for line in text.splitlines() if "conv_out" in line]
    assert "8 × 32 × 48 × 1" in last


@pytest.mark.parametrize(
    ("model", "size", "published"),
    [
        # As published, to the last figure: both networks with one class, for one image.
        pytest.param(ModelConfig(), (256, 256), 184.0, id="residual"),
        pytest.param(PLAIN, (320, 480), 225.8, id="plain"),
    ],
)
def test_a_forward_pass_costs_what_is_published(model, size, published):
    network = describe(Config(model=model, data=DataConfig(size=size)), num_classes=1)
    assert round(network.flops / 1e9, 1) == published
    text = printed(layer_table(network))
    assert f"{network.flops / 1e9:.3f} GFLOP an image" in text
    column = [line.split("│")[-3] for line in text.splitlines() if line.startswith("│")]
    # Every row is rounded to three decimals.
    assert sum(map(float, column)) == pytest.approx(published, abs=0.05 + 0.0005 * len(column))


@pytest.mark.parametrize(
    "model",
    [
        ModelConfig(channels=(4, 8, 12), groups=2, blocks_per_stage=2),
        ModelConfig(channels=(4, 8), norm="none", upsample="bilinear", skip=False),
        ModelConfig(channels=(4, 8), norm="batch", size_policy="resize"),
        ModelConfig(channels=(4, 8, 12), norm="group", groups=2, architecture="plain"),
        ModelConfig(channels=(4, 8), norm="batch", upsample="bilinear", architecture="plain"),
    ],
    ids=["blocks", "bilinear-no-skips", "resize", "plain", "plain-bilinear"],
)
def test_both_frameworks_have_the_same_layers(model: ModelConfig):
    config = Config(model=model, data=DataConfig(size=(13, 22)), train=TrainConfig(batch_size=3))
    ours = describe(config, num_classes=5)
    with torch.device("meta"):
        twin = build_model(model.architecture, num_classes=5, **model.arguments())
    theirs = unet_torch_ref.describe.layers(twin, 3, (13, 22))
    assert [layer.name.replace("_", ".") for layer in ours.layers] == [
        layer.name.replace("_", ".") for layer in theirs
    ]
    for our, their in zip(ours.layers, theirs, strict=True):
        batch, height, width, channels = our.output
        assert (batch, channels, height, width) == their.output
        # PyTorch counts what its operators do; we count from the shapes of the layers.
        assert (our.parameters, our.flops) == (their.parameters, their.flops)
    assert ours.size == sum(p.numel() for p in twin.parameters())


def test_every_parameter_has_a_row():
    network = describe(SMALL, num_classes=1)
    rows = [line.split("│")[1:-1] for line in printed(parameter_table(network)).splitlines()]
    rows = [[cell.strip() for cell in row] for row in rows if len(row) == 3]
    assert len(rows) == len(network.parameters)
    assert ["encoder_0/conv_1/kernel", "3 × 3 × 4 × 4", "144"] in rows
    for name, shape, size in rows:
        assert math.prod(map(int, shape.split(" × "))) == int(size.replace(",", ""))
        assert network.parameters[name] == tuple(map(int, shape.split(" × ")))
    assert sum(int(size.replace(",", "")) for *_, size in rows) == network.size


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_each_level_of_verbosity_adds_to_the_last(level: int):
    calls: list[Network] = []

    def network() -> Network:
        calls.append(describe(SMALL, num_classes=1))
        return calls[-1]

    text = " ".join(printed(*introduce(level, SMALL, network)).split())
    assert len(calls) == (level >= 2)  # Tracing takes a second.
    said = [
        "network: architecture residual, channels 4 8, blocks_per_stage 1, norm group, groups 2,",
        "optimiser: optimizer adamw, learning_rate 0.001, weight_decay 0.01,",
        "encoder_0/conv_1/kernel",
    ]
    assert [line in text for line in said] == [level >= n for n in (1, 2, 3)]
    assert ("encoder_0 │ ResidualBlock" in text) == (level >= 2)

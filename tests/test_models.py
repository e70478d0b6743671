"""Both networks in both frameworks: parameter counts, names, sizes of the logits, half precision,
refusals."""

import functools
import re
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from flax.traverse_util import flatten_dict

import unet_jax.models
import unet_torch_ref.models
from parity.convert import module_path, places
from unet_jax.config import load, presets
from unet_jax.models.layers import resize_bilinear

FLAX: dict[str, type[nn.Module]] = {
    "residual": unet_jax.models.ResidualUNet,
    "plain": unet_jax.models.PlainUNet,
}
ARCHITECTURES = sorted(FLAX)
DOWNSAMPLINGS = 4
TINY = {"channels": (4, 8, 8, 12), "groups": 2}
"""Small, and every stage as deep as in the full-size networks."""

Shapes = dict[str, tuple[int, ...]]


def flax_variables(model: nn.Module, size: tuple[int, int] = (16, 16), in_channels: int = 3) -> Any:
    """The variables with shapes only; nothing is computed."""
    images = jax.ShapeDtypeStruct((1, *size, in_channels), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), images)


def flax_shapes(model: nn.Module, size: tuple[int, int] = (16, 16), in_channels: int = 3) -> Shapes:
    """Shape of every variable, by collection/path/name."""
    leaves: dict[str, Any] = flatten_dict(flax_variables(model, size, in_channels), sep="/")
    return {path: leaf.shape for path, leaf in leaves.items()}


def count(shapes: Shapes) -> int:
    """Parameters alone: running statistics are not any."""
    sizes = [torch.Size(shape).numel() for path, shape in shapes.items() if "params/" in path]
    return sum(sizes)


def torch_model(architecture: Any, **options: Any) -> torch.nn.Module:
    """The twin without storage: its weights have shapes only."""
    with torch.device("meta"):
        return unet_torch_ref.models.build_model(architecture, **options)


def torch_count(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


# Parameter counts. The numbers are those of the published networks; next to each stands the
# formula that the publication's description gives, so that neither can be mistyped alone.


def conv(k: int, inputs: int, outputs: int) -> int:
    return k * k * inputs * outputs + outputs


def block(inputs: int, outputs: int) -> int:
    """Two group norms, two 3×3 convolutions, and a 1×1 one where the width changes."""
    shortcut = conv(1, inputs, outputs) if inputs != outputs else 0
    return (
        2 * inputs + conv(3, inputs, outputs) + 2 * outputs + conv(3, outputs, outputs) + shortcut
    )


def residual_formula(num_classes: int, upsample: str, skip: bool) -> int:
    widths, sources = (64, 128, 256, 512), 2 if skip else 1
    total = conv(3, 3, 64) + block(512, 512) + block(64 * sources, 64) + conv(3, 64, num_classes)
    for width in widths:
        total += block(width, width) + conv(3, width, width)  # Encoder: block, downsampling.
        total += 2 * block(sources * width, width)  # Decoder: one block mirrors each of the two.
        total += conv(2 if upsample == "transposed" else 3, width, width)
    for narrow, wide in ((64, 128), (128, 256), (256, 512)):
        total += block(narrow, wide) + block(sources * wide, narrow)
    return total


def double(inputs: int, hidden: int, outputs: int) -> int:
    """Two 3×3 convolutions without bias, a batch norm after each."""
    return 9 * inputs * hidden + 2 * hidden + 9 * hidden * outputs + 2 * outputs


def plain_formula(num_classes: int, upsample: str) -> int:
    total = double(3, 64, 64) + double(64, 128, 128) + double(128, 256, 256)
    total += double(256, 512, 512) + 64 * num_classes + num_classes
    if upsample == "bilinear":
        total += double(512, 512, 512)
        return total + sum(double(2 * w, w, max(w // 2, 64)) for w in (512, 256, 128, 64))
    total += double(512, 1024, 1024)
    return total + sum(conv(2, 2 * w, w) + double(2 * w, w, w) for w in (512, 256, 128, 64))


@pytest.mark.parametrize(
    ("num_classes", "upsample", "skip", "published"),
    [
        pytest.param(1, "transposed", True, 44_897_473, id="1-transposed"),
        pytest.param(1, "transposed", False, 35_464_833, id="1-transposed-no-skip"),
        pytest.param(1, "bilinear", True, 46_638_273, id="1-bilinear"),
        pytest.param(1, "bilinear", False, 37_205_633, id="1-bilinear-no-skip"),
        pytest.param(150, "transposed", True, 44_983_446, id="150-transposed"),
        pytest.param(150, "transposed", False, 35_550_806, id="150-transposed-no-skip"),
        pytest.param(150, "bilinear", True, 46_724_246, id="150-bilinear"),
    ],
)
def test_residual_has_the_published_parameter_count(num_classes, upsample, skip, published):
    assert residual_formula(num_classes, upsample, skip) == published
    options = {"num_classes": num_classes, "upsample": upsample, "skip": skip}
    assert count(flax_shapes(FLAX["residual"](**options))) == published
    assert torch_count(torch_model("residual", **options)) == published


@pytest.mark.parametrize(
    ("num_classes", "upsample", "published"),
    [
        pytest.param(1, "transposed", 31_037_633, id="1-transposed"),
        pytest.param(2, "transposed", 31_037_698, id="2-transposed"),
        pytest.param(1, "bilinear", 17_262_977, id="1-bilinear"),
        pytest.param(2, "bilinear", 17_263_042, id="2-bilinear"),
    ],
)
def test_plain_has_the_published_parameter_count(num_classes, upsample, published):
    assert plain_formula(num_classes, upsample) == published
    options = {"num_classes": num_classes, "upsample": upsample}
    assert count(flax_shapes(FLAX["plain"](**options))) == published
    assert torch_count(torch_model("plain", **options)) == published


@pytest.mark.parametrize("preset", presets())
def test_the_twin_of_a_preset_has_as_many_parameters(preset):
    config = load(preset).model
    twin = torch_model(config.architecture, num_classes=3, **config.arguments())
    model = unet_jax.models.build_model(config, 3)
    assert count(flax_shapes(model, size=(64, 64))) == torch_count(twin)


@pytest.mark.parametrize("in_channels", [1, 4])
@pytest.mark.parametrize(
    ("architecture", "first"),
    [
        pytest.param("residual", "params/conv_in/kernel", id="residual"),
        pytest.param("plain", "params/encoder_0/conv_1/kernel", id="plain"),
    ],
)
def test_input_channels_change_the_first_convolution_alone(architecture, first, in_channels):
    model, width = FLAX[architecture](**TINY), TINY["channels"][0]
    three = flax_shapes(model)
    assert three[first] == (3, 3, 3, width)
    assert flax_shapes(model, in_channels=in_channels) == {
        **three,
        first: (3, 3, in_channels, width),
    }

    twins = [torch_model(architecture, in_channels=n, **TINY) for n in (3, in_channels)]
    difference = torch_count(twins[1]) - torch_count(twins[0])
    assert difference == 3 * 3 * width * (in_channels - 3)


# Names.


@pytest.mark.parametrize(
    ("name", "path"),
    [
        pytest.param("conv_in", ("conv_in",), id="no-number"),
        pytest.param("encoder.0.conv_1", ("encoder_0", "conv_1"), id="member-of-a-list"),
        pytest.param("a.0.b.12", ("a_0", "b_12"), id="two-lists"),
        pytest.param("", (), id="the-model-itself"),
    ],
)
def test_a_list_number_joins_the_name_before_it(name, path):
    assert module_path(name) == path


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        pytest.param("residual", {}, id="residual"),
        pytest.param("residual", {"upsample": "bilinear"}, id="residual-bilinear"),
        pytest.param("residual", {"skip": False}, id="residual-no-skip"),
        pytest.param("residual", {"blocks_per_stage": 2}, id="residual-two-blocks"),
        pytest.param("residual", {"norm": "batch"}, id="residual-batch-norm"),
        pytest.param("residual", {"norm": "none"}, id="residual-no-norm"),
        pytest.param("plain", {}, id="plain"),
        pytest.param("plain", {"upsample": "bilinear"}, id="plain-bilinear"),
        pytest.param("plain", {"norm": "group"}, id="plain-group-norm"),
        pytest.param("plain", {"norm": "none"}, id="plain-no-norm"),
    ],
)
def test_names_and_shapes_are_the_twins(architecture, options):
    options = {**TINY, "num_classes": 5, **options}
    twin = torch_model(architecture, **options)
    flax = flax_shapes(FLAX[architecture](**options))

    layers = [name for name, module in twin.named_modules() if list(module.parameters(False))]
    assert {path.split("/", 1)[1].rsplit("/", 1)[0] for path in flax} == {
        "/".join(module_path(name)) for name in layers
    }
    assert flax == {"/".join(place.path): place.flax_shape for place in places(twin)}


# Sizes.

SIZES = [(16, 16), (17, 23), (31, 16), (37, 51)]


def size_id(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


@functools.cache
def variables_of(architecture: str, num_classes: int, upsample: str) -> Any:
    """Neither the images' size nor what is done about it changes the weights."""
    return flax_variables(FLAX[architecture](num_classes=num_classes, upsample=upsample, **TINY))


def check_size_of_logits(
    architecture: str, batch: int, size: tuple[int, int], num_classes: int, upsample: str, **options
) -> None:
    variables = variables_of(architecture, num_classes, upsample)
    options = {**TINY, "num_classes": num_classes, "upsample": upsample, **options}
    images = jax.ShapeDtypeStruct((batch, *size, 3), jnp.float32)
    logits = jax.eval_shape(FLAX[architecture](**options).apply, variables, images)
    assert logits.shape == (batch, *size, num_classes)

    twin = torch_model(architecture, **options).eval()
    logits = twin(torch.empty(batch, 3, *size, device="meta"))
    assert logits.shape == (batch, num_classes, *size)


@pytest.mark.parametrize(("batch", "num_classes"), [(1, 1), (3, 5)])
@pytest.mark.parametrize("size", SIZES, ids=size_id)
@pytest.mark.parametrize("policy", ["pad", "resize"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_come_back_at_the_input_size(architecture, policy, size, batch, num_classes):
    check_size_of_logits(architecture, batch, size, num_classes, "transposed", size_policy=policy)


@pytest.mark.parametrize(("batch", "num_classes"), [(1, 5), (3, 1)])
@pytest.mark.parametrize("size", [(16, 16), (37, 51)], ids=size_id)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_of_bilinear_upsampling_do_too(architecture, size, batch, num_classes):
    check_size_of_logits(architecture, batch, size, num_classes, "bilinear")


@pytest.mark.parametrize("upsample", ["transposed", "bilinear"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_size_policy_is_idle_where_the_size_divides(architecture, upsample):
    """So that upsampling, and not the policy, doubles the size."""
    options = {"channels": (4, 8), "groups": 2, "upsample": upsample}
    network = FLAX[architecture](**options)
    variables = flax_variables(network)

    def program(policy: str, size: tuple[int, int]) -> str:
        images = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
        return str(jax.make_jaxpr(network.clone(size_policy=policy).apply)(variables, images))

    assert program("pad", (8, 12)) == program("resize", (8, 12))
    assert program("pad", (9, 11)) != program("resize", (9, 11))

    padding, resizing = (
        unet_torch_ref.models.build_model(architecture, size_policy=policy, **options).eval()
        for policy in ("pad", "resize")
    )
    resizing.load_state_dict(padding.state_dict())
    even, odd = torch.ones(1, 3, 8, 12), torch.ones(1, 3, 9, 11)
    assert torch.equal(padding(even), resizing(even))
    assert not torch.equal(padding(odd), resizing(odd))


# Half precision.


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("align_corners", [True, False])
def test_an_interpolation_is_rounded_once_as_in_pytorch(align_corners: bool, dtype: str):
    levels = torch.rand(2, 5, 13, 9, generator=torch.Generator().manual_seed(0)) + 0.5
    x, size = levels.to(getattr(torch, dtype)), (26, 18)
    theirs = F.interpolate(x, size, mode="bilinear", align_corners=align_corners)
    theirs = theirs.permute(0, 2, 3, 1).float().numpy()
    x = jnp.asarray(x.permute(0, 2, 3, 1).float().numpy(), dtype)
    ours = np.asarray(resize_bilinear(x, size, align_corners).astype(jnp.float32))
    # In float32 they differ by rounding, so halfway between two values one may round up.
    np.testing.assert_allclose(ours, theirs, rtol=float(jnp.finfo(dtype).eps))
    assert np.mean(ours != theirs) < 0.01


# Refusals.


def run_flax(architecture: str, shape: tuple[int, ...]) -> None:
    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    jax.eval_shape(FLAX[architecture](**TINY).init, jax.random.key(0), images)


def run_torch(architecture: str, shape: tuple[int, ...]) -> None:
    torch_model(architecture, **TINY)(torch.empty(shape, device="meta"))


@pytest.mark.parametrize("size", [(15, 40), (40, 15), (1, 1)], ids=["low", "narrow", "dot"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_too_small_an_input_is_refused_with_its_size_and_the_least(architecture, size):
    height, width = size
    message = re.escape(
        f"input is {height}×{width} pixels; {DOWNSAMPLINGS} downsamplings need at least 16×16"
    )
    with pytest.raises(ValueError, match=message):
        run_flax(architecture, (1, height, width, 3))
    with pytest.raises(ValueError, match=message):
        run_torch(architecture, (1, 3, height, width))


@pytest.mark.parametrize("shape", [(16, 16, 3), (1, 1, 16, 16, 3)], ids=["3-D", "5-D"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_input_that_is_not_a_batch_of_images_is_refused_with_its_shape(architecture, shape):
    stated = re.escape(f"input has shape {shape}; expected ")
    with pytest.raises(ValueError, match=stated + r"\[batch, height, width, channels\]"):
        run_flax(architecture, shape)
    with pytest.raises(ValueError, match=stated + r"\[batch, channels, height, width\]"):
        run_torch(architecture, shape)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_batch_norm_refuses_to_train_on_a_single_value(architecture):
    # 2×2 pixels after one downsampling are one value a channel, in the bottleneck.
    options = {"channels": (4,), "norm": "batch"}
    model = FLAX[architecture](**options)
    variables = flax_variables(model, (2, 2))

    def run(batch: int, train: bool) -> None:
        images = jax.ShapeDtypeStruct((batch, 2, 2, 3), jnp.float32)
        apply = functools.partial(model.apply, train=train, mutable=["batch_stats"])
        jax.eval_shape(apply, variables, images)

    with pytest.raises(ValueError, match=r"batch norm .* got input of shape \(1, 1, 1, \d\)"):
        run(batch=1, train=True)
    run(batch=2, train=True)
    run(batch=1, train=False)

    twin = torch_model(architecture, **options)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        twin.train()(torch.empty(1, 3, 2, 2, device="meta"))

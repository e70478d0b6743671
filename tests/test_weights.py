"""A trained network as a file: nothing is lost on the way, and what is no such file is refused."""

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import jax
import numpy as np
import pytest
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

import unet_jax.weights
from unet_jax.config import ModelConfig
from unet_jax.models import build_model
from unet_jax.trained import largest_layer
from unet_jax.weights import Trained, load_weights, save_weights

MODEL = ModelConfig(architecture="plain", channels=(4, 8), norm="batch", upsample="bilinear")


def make_trained(num_logits: int = 1, **fields: Any) -> Trained:
    network = build_model(MODEL, num_logits)
    variables = jax.device_get(network.init(jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32)))
    given = {
        "variables": variables,
        "model": MODEL,
        "num_logits": num_logits,
        "classes": ("background", "car"),
        "palette": ((0, 0, 0), (255, 176, 32)),
        "mean": (0.5, 0.4, 0.3),
        "std": (0.2, 0.25, 0.3),
        "size": (320, 480),
        "facts": {"dice": 0.5, "versions": {"jax": "1"}},
    }
    return Trained(**given | fields)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_read_is_what_was_written(dtype: Any, tmp_path: Path):
    trained = make_trained(2)
    variables = jax.tree.map(
        lambda leaf: leaf.astype(dtype) if leaf.dtype == np.float32 else leaf, trained.variables
    )
    trained = dataclasses.replace(trained, variables=variables)
    save_weights(trained, tmp_path / "model.safetensors")
    found = load_weights(tmp_path / "model.safetensors")
    names = [f.name for f in dataclasses.fields(trained) if f.name != "variables"]
    assert {n: getattr(found, n) for n in names} == {n: getattr(trained, n) for n in names}
    ours, theirs = jax.tree.leaves_with_path(found.variables), jax.tree.leaves_with_path(variables)
    assert len(ours) > 20
    for (path, a), (other, b) in zip(ours, theirs, strict=True):
        assert path == other
        assert a.dtype == b.dtype
        assert a.shape == b.shape  # That of a batch norm's counter is ().
        assert a.tobytes() == np.asarray(b).tobytes()


def test_nothing_half_written_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(path: Path, content: bytes) -> None:
        path.open("wb").write(content[:100])
        raise OSError("No space left on device")

    save_weights(make_trained(), tmp_path / "model.safetensors")
    before = (tmp_path / "model.safetensors").read_bytes()
    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="No space left"):
        save_weights(make_trained(2), tmp_path / "model.safetensors")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [before]


def test_a_file_that_is_damaged_as_it_is_read_is_named(tmp_path: Path, monkeypatch):
    save_weights(make_trained(), tmp_path / "model.safetensors")

    @contextlib.contextmanager
    def damaged(path: Path, framework: str) -> Iterator[Any]:
        with safe_open(path, framework) as file:
            broken = Mock(side_effect=SafetensorError("gone"))
            yield Mock(metadata=file.metadata, keys=file.keys, get_tensor=broken)

    monkeypatch.setattr(unet_jax.weights, "safe_open", damaged)
    with pytest.raises(ValueError, match=r"model\.safetensors: not a safetensors file, or damaged"):
        load_weights(tmp_path / "model.safetensors")


def test_the_largest_layer_is_known_before_a_network_is_read(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    save_weights(make_trained(), path)
    assert largest_layer(path) == largest_layer(str(path), (320, 480)) == 320 * 480 * 4
    assert largest_layer(path, (8, 12)) == 8 * 12 * 4
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("model: [")
    save_file({"weight": np.zeros(3, np.float32)}, tmp_path / "other.safetensors")
    for place in ("run", "other.safetensors", "missing.safetensors", "."):
        assert largest_layer(tmp_path / place) is None
    assert largest_layer(path, "native") is None


def test_other_files_are_refused_by_name(tmp_path: Path):
    path = tmp_path / "other.safetensors"
    save_file({"weight": np.zeros(3, np.float32)}, path)
    with pytest.raises(ValueError, match=r"other\.safetensors: a safetensors file, but not of"):
        load_weights(path)
    path.write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(ValueError, match=r"other\.safetensors: not a safetensors file, or damaged"):
        load_weights(path)


def test_a_file_cut_short_is_refused(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    save_weights(make_trained(), path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"model\.safetensors: not a safetensors file, or damaged"):
        load_weights(path)


def write(path: Path, change: Any) -> Path:
    """A file whose description `change` has been at."""
    save_weights(make_trained(), path)
    with safe_open(path, "numpy") as file:
        described = json.loads(file.metadata()["unet_jax"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(described, tensors)
    save_file(tensors, path, {"unet_jax": json.dumps(described)})
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d, t: d.pop("model"), "model: is missing"),
        (lambda d, t: d.update(extra=1), "extra: there is no such field"),
        (lambda d, t: d.update(classes=3), "classes: .*tuple.* got 3"),
        (lambda d, t: d.update(size=[1, "x"]), "size: .*integer.* got 'x'"),
        (lambda d, t: d.update(classes=["a", "b", "c"]), "classes: 3 do not go with 1 logits"),
        (lambda d, t: d["model"].update(norm="layer"), "norm: .* got 'layer'"),
        (lambda d, t: d["model"].update(depth=3), "depth: there is no such setting"),
        (lambda d, t: d["model"].update(channels=[]), "channels: "),
        (lambda d, t: d.clear(), "of version None"),
    ],
)
def test_a_description_that_is_wrong_is_named_with_its_file(
    change: Any, message: str, tmp_path: Path
):
    path = write(tmp_path / "model.safetensors", change)
    with pytest.raises(ValueError, match=message) as caught:
        load_weights(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_description_that_is_no_json_is_named_with_its_file(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    for text in ("{", "[1]"):
        save_file({"weight": np.zeros(3, np.float32)}, path, {"unet_jax": text})
        with pytest.raises(ValueError, match=r"model\.safetensors: damaged; its description"):
            load_weights(path)


def test_tensors_of_another_network_are_all_named(tmp_path: Path):
    def change(described: Any, tensors: Any) -> None:
        tensors["params/encoder_0/conv_9/kernel"] = np.zeros((3, 3, 4, 4), np.float32)
        del tensors["batch_stats/encoder_0/norm_1/mean"]
        tensors["params/conv_out/bias"] = np.zeros(2, np.float32)

    path = write(tmp_path / "model.safetensors", change)
    with pytest.raises(ValueError, match="not those of its architecture") as caught:
        load_weights(path)
    first, *lines = str(caught.value).splitlines()
    assert first.startswith(f"{path}: ")
    assert lines == [
        "  missing: batch_stats/encoder_0/norm_1/mean (4,)",
        "  unexpected: params/encoder_0/conv_9/kernel (3, 3, 4, 4)",
        "  shape: params/conv_out/bias is (2,), expected (1,)",
    ]


def test_a_file_of_a_later_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "model.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr(unet_jax.weights, "VERSION", 2)
        save_weights(make_trained(), path)
    with pytest.raises(ValueError, match=r"model\.safetensors: of version 2; .* reads version 1"):
        load_weights(path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"classes": ("a", "b", "c")}, "classes: 3 do not go with 1 logits a pixel"),
        ({"palette": ((0, 0, 0),)}, "palette: 1 colours for 2 classes"),
    ],
)
def test_what_does_not_fit_together_is_refused(fields: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        make_trained(**fields)

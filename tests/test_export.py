"""Exports: every file gives what its network gives, a file that does not is not kept, and the card
beside them holds true, to the code in it."""

import contextlib
import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, get_args

import jax
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import unet_jax.exporting.export
from parity.exporting.classifier import Classifier
from parity.exporting.onnx import ONNX
from parity.exporting.pt2 import PT2
from unet_jax.config import Config, DataConfig, ModelConfig, dump
from unet_jax.config import load as load_config
from unet_jax.exporting.artefact import SAFETENSORS, Format, build_function
from unet_jax.exporting.export import export, find_trained
from unet_jax.exporting.export_options import ExportOptions, parse_export
from unet_jax.exporting.licences import LICENCES
from unet_jax.exporting.model_card import Exported, model_card
from unet_jax.exporting.stablehlo import STABLEHLO
from unet_jax.exporting.verification import (
    Difference,
    Different,
    Reference,
    compare,
    distance,
    refer,
)
from unet_jax.models import build_model
from unet_jax.weights import Trained, load_weights, save_weights

SIZE = (17, 22)
"""Neither side divides by 2 at every stage."""
FORMATS = {"stablehlo": STABLEHLO, "safetensors": SAFETENSORS, "pt2": PT2, "onnx": ONNX}
AGAIN = {
    "stablehlo": "network.call(images)",
    "pt2": "network(torch.tensor(images).permute(0, 3, 1, 2)).detach().numpy()",
    "onnx": 'session.run(None, {"images": images.transpose(0, 3, 1, 2)})[0]',
}
"""How the code of the card runs another batch."""
PLAIN = ModelConfig(architecture="plain", channels=(4,), norm="batch", upsample="bilinear")


def make_trained(model: ModelConfig, num_logits: int, **fields: Any) -> Trained:
    """A network whose norms and running statistics are away from 0 and 1."""
    network = build_model(model, num_logits)
    start = jax.device_get(network.init(jax.random.key(0), np.zeros((1, *SIZE, 3), np.float32)))
    rng = np.random.default_rng(0)

    def moved(leaf: Any) -> np.ndarray:
        if leaf.ndim == 4:  # Steeper than fresh weights, so that there is something to see.
            return 3 * leaf
        shift = np.abs(rng.normal(size=leaf.shape)) if leaf.ndim == 1 else 0.0
        return np.asarray(leaf + 0.3 * shift).astype(leaf.dtype)

    variables = jax.tree.map(moved, start)
    count = max(num_logits, 2)
    given = {
        "variables": variables,
        "model": model,
        "num_logits": num_logits,
        "classes": ("road", "car", "sky")[:count],
        "palette": ((0, 0, 0), (255, 176, 32), (9, 9, 255))[:count],
        "mean": (0.5, 0.4, 0.3),
        "std": (0.2, 0.25, 0.3),
        "size": SIZE,
    }
    return Trained(**given | fields)


class Done(NamedTuple):
    """An export of every format."""

    trained: Trained
    reference: Reference
    out: Path
    printed: str


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = tmp_path_factory.mktemp("export")
    trained = make_trained(PLAIN, 1)
    save_weights(trained, folder / "model.safetensors")
    out = folder / "new" / "out"
    reference, printed = refer(trained, SIZE), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(unet_jax.exporting.export, "refer", lambda *given: reference)
        options = ExportOptions(weights=folder / "model.safetensors", out=out)
        assert export(options, FORMATS) == 0
    return Done(trained, reference, out, printed.getvalue())


def test_an_export_is_its_files_and_their_card(done: Done):
    names = ["MODEL_CARD.md", *sorted(f"model.{name}" for name in FORMATS)]
    assert [path.name for path in sorted(done.out.iterdir())] == names
    for name in FORMATS:
        assert re.search(rf"^model\.{name}: 0\.\d MB; relative error \d", done.printed, re.M)


def test_safetensors_keeps_every_bit(done: Done):
    found = load_weights(done.out / "model.safetensors")
    ours, theirs = jax.tree.leaves(found.variables), jax.tree.leaves(done.trained.variables)
    assert len(ours) > 10
    assert [a.tobytes() for a in ours] == [np.asarray(b).tobytes() for b in theirs]


def code_of(card: str, name: str) -> str:
    return re.findall(rf"`model\.{name}`:\n\n```python\n(.*?)```", card, re.DOTALL)[0]


@pytest.mark.parametrize("name", ["stablehlo", "pt2", "onnx"])
def test_the_code_of_the_card_runs_without_this_project(name: str, done: Done, tmp_path: Path):
    Image.fromarray(done.reference.images[0]).save(tmp_path / "image.png")
    (tmp_path / "image.png").rename(tmp_path / "image.jpg")  # Pillow goes by the content.
    file = tmp_path / f"model.{name}"
    file.write_bytes((done.out / file.name).read_bytes())
    code = code_of((done.out / "MODEL_CARD.md").read_text("utf-8"), name)
    absent = ["unet_jax", "unet_torch_ref", "parity", "flax"] + ["torch"] * (name != "pt2")
    absent += ["jax"] * (name != "stablehlo")
    program = (
        f"import sys\nsys.modules.update(dict.fromkeys({absent}))\n{code}\n"
        "np.save('mask.npy', mask)\nnp.save('one.npy', probabilities)\n"
        f"images = np.repeat(images, 3, axis=0)\nnp.save('three.npy', {AGAIN[name]})\n"
    )
    command = [sys.executable, "-W", "error", "-I", "-c", program]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr
    one, three, mask = (np.load(tmp_path / f"{n}.npy") for n in ("one", "three", "mask"))
    if FORMATS[name].layout == "NCHW":
        one, three = one.transpose(0, 2, 3, 1), three.transpose(0, 2, 3, 1)
    assert one.dtype == np.float32
    assert three.shape == (3, *SIZE, 2)
    # Rounding alone: swapped channels or axes, or another range of values, change it by 1e-2.
    np.testing.assert_allclose(one, done.reference.plain[:1], atol=1e-5)
    np.testing.assert_allclose(three, np.repeat(one, 3, axis=0), atol=1e-5)
    np.testing.assert_array_equal(mask, one[0].argmax(-1))
    assert one.std((1, 2)).min() > 0.01, "probabilities that are all alike show nothing"


def test_the_code_of_the_card_for_safetensors_runs(
    done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    Image.fromarray(done.reference.images[0]).save(tmp_path / "image.png")
    (tmp_path / "image.png").rename(tmp_path / "image.jpg")
    (tmp_path / "model.safetensors").write_bytes((done.out / "model.safetensors").read_bytes())
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(code_of((done.out / "MODEL_CARD.md").read_text("utf-8"), "safetensors"), names)
    # The image is of the network's size, so that nothing is resized.
    np.testing.assert_allclose(names["probabilities"], done.reference.plain[0], atol=1e-5)


def test_the_card_has_the_checksums_of_the_files(done: Done):
    card = (done.out / "MODEL_CARD.md").read_text("utf-8")
    for name in FORMATS:
        content = (done.out / f"model.{name}").read_bytes()
        assert f"{hashlib.sha256(content).hexdigest()}  model.{name}\n" in card


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "num_logits", [pytest.param(1, id="one-logit"), pytest.param(3, id="three-logits")]
)
def test_the_twin_computes_the_same_function(num_logits: int):
    trained = make_trained(PLAIN, num_logits)
    images = np.random.default_rng(1).integers(0, 256, (2, *SIZE, 3), dtype=np.uint8)
    ours = np.asarray(build_function(trained, np.float64)(images))
    twin = Classifier(trained, torch.float64).eval()
    with torch.no_grad():
        theirs = twin(torch.from_numpy(images).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
    assert ours.shape == (2, *SIZE, max(num_logits, 2))
    assert ours.std((1, 2)).min() > 0.01, "probabilities that are all alike show nothing"
    assert distance(theirs, ours) <= 1e-12  # As for every tensor of the parity check.
    np.testing.assert_allclose(ours.sum(-1), 1, atol=1e-14)


def planted(done: Done, factor: float) -> Trained:
    """The network with one number of its first kernel off."""
    variables = jax.tree.map(np.array, dict(done.trained.variables))
    variables["params"]["encoder_0"]["conv_1"]["kernel"][1, 1, 0, 0] *= factor
    return replace(done.trained, variables=variables)


def test_one_weight_off_by_a_hundredth_is_found(done: Done):
    wrong, right = build_function(planted(done, 1.01)), build_function(planted(done, 1.0))
    for format in FORMATS.values():
        with pytest.raises(Different, match=r"times as far from the float64 result as Flax"):
            compare(lambda images: np.asarray(wrong(images)), done.reference, format.times)
    assert compare(lambda images: np.asarray(right(images)), done.reference, 2.0).times > 0.5


def test_a_network_with_group_norms_is_exported_for_any_batch(tmp_path: Path):
    """For a GPU, sums are cut by how many values there are; here images are of no known number."""
    trained = make_trained(replace(PLAIN, norm="group", groups=2), 3)
    STABLEHLO.write(trained, SIZE, tmp_path / "model.stablehlo")
    run = STABLEHLO.load(tmp_path / "model.stablehlo")
    assert compare(run, refer(trained, SIZE), STABLEHLO.times).times > 0.1


def test_what_is_not_finite_or_of_another_shape_is_found(done: Done):
    plain = done.reference.plain
    for wrong in (plain * np.nan, plain[..., :1], plain.transpose(0, 3, 1, 2)):
        with pytest.raises(Different):
            compare(lambda images, wrong=wrong: wrong[: len(images)], done.reference, 4.0)


def test_a_network_that_gives_no_numbers_is_refused(done: Done):
    with pytest.raises(ValueError, match="not finite"):
        refer(planted(done, float("nan")), SIZE)


class Fake(NamedTuple):
    """A format whose files give what they are told to."""

    gives: np.ndarray

    def format(self, suffix: str, fails: str = "") -> Format:
        def load(path: Path) -> Any:
            if fails:
                raise RuntimeError(f"\n  {fails}\nand more")
            return lambda images: self.gives[: len(images)]

        return STABLEHLO._replace(
            suffix=suffix, write=lambda trained, size, path: path.write_bytes(b"new"), load=load
        )


@pytest.mark.parametrize("before", [False, True], ids=["first", "over-another"])
@pytest.mark.parametrize(
    ("fails", "message"),
    [
        ("", r"error: model\.bad is [\d.e+]+ times as far from the float64 result .* been written"),
        ("no such operator", r"error: model\.bad: RuntimeError: no such operator; --debug shows"),
    ],
    ids=["different", "unreadable"],
)
def test_a_file_that_fails_leaves_no_file(
    before: bool,
    fails: str,
    message: str,
    done: Done,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    out = tmp_path / "out"
    if before:
        out.mkdir()
        for name in ("model.good", "model.bad", "MODEL_CARD.md"):
            (out / name).write_bytes(b"old")
    monkeypatch.setattr(unet_jax.exporting.export, "refer", lambda *given: done.reference)
    plain = done.reference.plain
    formats = {
        "good": Fake(plain).format(".good"),
        "bad": Fake(plain * np.float32(1.001)).format(".bad", fails),
    }
    options = ExportOptions(weights=done.out / "model.safetensors", out=out, force=before)
    assert export(options, formats) == 1
    printed = capsys.readouterr()
    assert re.fullmatch(message + r".*\n", printed.err)
    assert "model.good" in printed.out
    assert {p.name: p.read_bytes() for p in out.glob("*")} == (
        dict.fromkeys(("model.good", "model.bad", "MODEL_CARD.md"), b"old") if before else {}
    )
    assert out.exists() == before
    if fails:
        with pytest.raises(RuntimeError, match=fails):
            export(replace(options, debug=True), formats)


def test_formats_of_an_earlier_export_go_with_it(
    done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """They are another network's than the new card speaks of."""
    monkeypatch.setattr(unet_jax.exporting.export, "refer", lambda *given: done.reference)
    out = shutil.copytree(done.out, tmp_path / "out")
    (out / "notes.txt").write_text("mine")
    weights = done.out / "model.safetensors"
    options = ExportOptions(weights=weights, out=out, force=True)
    assert export(options, {"safetensors": SAFETENSORS}) == 0
    kept = ["MODEL_CARD.md", "model.safetensors", "notes.txt"]
    assert sorted(path.name for path in out.iterdir()) == kept
    (out / "model.onnx").write_text("mine")  # The card does not know it.
    with pytest.raises(SystemExit):
        export(options, {"safetensors": SAFETENSORS})
    assert "model.onnx would lie beside the card of another network" in capsys.readouterr().err
    assert (out / "model.onnx").read_text() == "mine"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--run none --out out", "none: there is no such run or file"),
        ("--run whole.safetensors --out out", r"--run: whole\.safetensors is a file"),
        ("--weights . --out out", r"--weights: \. is a folder"),
        ("--weights torn.safetensors --out out", r"torn\.safetensors: not a safetensors file, or"),
        ("--weights whole.safetensors --out file", "--out: file is a file; a folder is needed"),
        (
            "--weights whole.safetensors --out full",
            r"--out: full/model\.stablehlo would be written over; --force does that",
        ),
        (
            "--weights whole.safetensors --out out --size 3 1",
            "--size: 3×1 is too small; at least 2×2",
        ),
    ],
)
def test_what_cannot_be_exported_is_said_in_a_line(
    line: str,
    message: str,
    done: Done,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    whole = (done.out / "model.safetensors").read_bytes()
    Path("whole.safetensors").write_bytes(whole)
    Path("torn.safetensors").write_bytes(whole[:-10])
    Path("file").touch()
    Path("full").mkdir()
    Path("full/model.stablehlo").touch()
    before = sorted(Path().rglob("*"))
    with pytest.raises(SystemExit) as status:
        export(parse_export(line.split(), description=""), {"stablehlo": STABLEHLO})
    assert status.value.code == 2
    assert re.fullmatch(rf"error: {message}.*\n", capsys.readouterr().err)
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--out O", "--run RUN or --weights FILE, one of them"),
        ("--run R --weights W --out O", "--run RUN or --weights FILE, one of them"),
        ("--run R", "--out DIR: the folder"),
        ("--run R --out O --format onnx", r'--format onnx needs onnxruntime: .*"\.\[onnx\]"'),
        ("--run R --out O --format tflite", "tflite"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_refused(
    line: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # As if it were not installed.
    with pytest.raises(SystemExit) as status:
        parse_export(line.split(), description="")
    assert status.value.code == 2
    assert re.search(message, capsys.readouterr().err)


def make_run(folder: Path, config: Config) -> None:
    """The files of a run, but for its states."""
    folder.mkdir()
    (folder / "config.yaml").write_text(dump(config))
    record = {"epoch": 1, "step": 5, "dice": 0.25, "dice_per_class": {"road": 0.5, "car": None}}
    later = record | {"epoch": 2, "step": 10, "dice": 0.125}
    (folder / "metrics.jsonl").write_text(f'{json.dumps(record)}\n{json.dumps(later)}\n{{"epo')
    split = {"content": "abc", "train": ["1", "2", "3"], "validation": ["4"]}
    (folder / "split.json").write_text(json.dumps(split))
    summary = {"best": record, "epochs": 2, "wall_seconds": 61.5, "versions": {"jax": "0.9"}}
    (folder / "summary.json").write_text(json.dumps(summary))


def test_the_card_of_a_run_says_where_it_comes_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = load_config("camvid")
    secret = tmp_path / "home"
    config = replace(
        config,
        data=replace(config.data, data_dir=secret, prepared_dir=secret),
        train=replace(config.train, epochs=2, seed=77),
    )
    folder = tmp_path / "my-run"
    make_run(folder, config)
    facts = {"run": folder.name, "state": "best by dice", "step": 5, "ema": False}
    saved = make_trained(PLAIN, 1, facts=facts)
    monkeypatch.setattr(unet_jax.exporting.export, "load_trained", lambda *args, **_: saved)
    trained = find_trained(ExportOptions(run=folder))
    assert json.loads(json.dumps(trained.facts)) == trained.facts, "safetensors keeps it as JSON"
    file = Exported("model.x", folder / "config.yaml", STABLEHLO, Difference(1e-7, 1.0, 2e-7))
    card = model_card(trained, [file], SIZE, {"jax": "0.10"})
    assert str(tmp_path) not in card + str(trained.facts)
    assert (
        "`camvid`: train 3 samples, validation 1 samples; digest of the prepared samples: `abc`"
        in card
    )
    assert "best by dice, after epoch 1, step 5" in card
    assert "| Dice | 0.2500 |" in card
    assert "| car | – | – |" in card
    assert "CC BY-NC" in card
    assert "The preset `camvid`, but for:" in card
    assert "- seed: 0 → 77\n" in card
    assert "| jax | 0.10 | 0.9 |" in card
    header = yaml.safe_load(card.split("---\n")[1])
    assert header["license"] == "other"
    (tmp_path / "again.yaml").write_text(re.findall(r"```yaml\n(.*?)```", card, re.DOTALL)[0])
    elsewhere = replace(config.data, data_dir=None, prepared_dir=DataConfig().prepared_dir)
    assert load_config(tmp_path / "again.yaml") == replace(config, data=elsewhere)


def test_a_damaged_file_of_a_run_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    make_run(tmp_path / "run", load_config("shapes"))
    (tmp_path / "run" / "split.json").write_text('{"content": ')
    saved = make_trained(PLAIN, 1, facts={"step": 5})
    monkeypatch.setattr(unet_jax.exporting.export, "load_trained", lambda *args, **_: saved)
    with pytest.raises(ValueError, match=r"run/split\.json: damaged"):
        find_trained(ExportOptions(run=tmp_path / "run"))


def test_every_data_set_has_a_licence_note():
    assert set(LICENCES) == set(get_args(DataConfig.__dataclass_fields__["dataset"].type))

"""What masks mean as a person says it, in YAML: followed, or refused with field and reason."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from drawing import (
    BLACK,
    GREEN,
    IDS,
    NAMES,
    NATIVE,
    RED,
    Save,
    levels,
    masks,
    open_folder,
    painted,
    palette,
    refused_folder,
    save_image,
    write_folder,
)

from unet_jax.datasets.description import read_description


def described(tmp_path: Path, **fields: object) -> Path:
    path = tmp_path / "description.yaml"
    path.write_text(yaml.safe_dump(fields))
    return path


@pytest.mark.parametrize(
    ("save", "fields", "ids"),
    [
        pytest.param(levels(0, 1, 2), {}, [0, 1, 2], id="0 1 2"),
        pytest.param(levels(50, 7, 9), {"values": [7, 9, 50]}, [2, 0, 1], id="values"),
        pytest.param(
            levels(0, 1, 2), {"classes": ["x", "y"], "ignore": [2]}, [0, 1, 255], id="ignored"
        ),
        pytest.param(
            levels(0, 9, 700, dtype="u2"), {"values": [0, 9, 700]}, [0, 1, 2], id="16 bits"
        ),
        pytest.param(palette(BLACK, RED, GREEN), {"values": [2, 1, 0]}, [2, 1, 0], id="indices"),
        pytest.param(
            palette(BLACK, RED, GREEN), {"colours": [[255, 0, 0], [0, 255, 0], [0, 0, 0]]},
            [2, 0, 1], id="palette by colours",
        ),
        pytest.param(
            painted(BLACK, RED, GREEN), {"colours": [[255, 0, 0], [0, 255, 0], [0, 0, 0]]},
            [2, 0, 1], id="colours",
        ),
        pytest.param(
            painted(BLACK, RED, GREEN),
            {"classes": ["x", "y"], "colours": [[255, 0, 0], [0, 255, 0]], "ignore": [[0, 0, 0]]},
            [255, 0, 1], id="ignored colour",
        ),
    ],
)  # fmt: skip
def test_what_masks_mean_may_be_told(
    save: Save, fields: dict[str, object], ids: list[int], tmp_path: Path
):
    fields = {"classes": ["x", "y", "z"], **fields}
    data = write_folder(tmp_path / "data", save=save)
    builder = open_folder(data, tmp_path, description=described(tmp_path, **fields))
    assert builder.facts.classes == fields["classes"]
    assert builder.facts.note == ""
    for name, mask in masks(builder).items():
        np.testing.assert_array_equal(mask, np.array(ids)[IDS[name]])


def test_the_given_colours_are_the_palette(tmp_path: Path):
    data = write_folder(tmp_path / "data", save=painted(BLACK, RED, GREEN))
    fields = {"classes": ["x", "y", "z"], "colours": [list(GREEN), list(RED), list(BLACK)]}
    builder = open_folder(data, tmp_path, description=described(tmp_path, **fields))
    assert builder.facts.palette == fields["colours"]


def test_a_value_that_was_not_told_is_refused(tmp_path: Path):
    description = described(tmp_path, classes=["x", "y"])
    message = refused_folder(write_folder(tmp_path / "data"), tmp_path, description=description)
    for name in NAMES:
        assert f"masks/{name}.png: holds the values 2; allowed: 0, 1" in message


def test_white_is_what_it_is_told_to_be(tmp_path: Path):
    data = write_folder(tmp_path / "data")
    for path in (data / "images").iterdir():
        save_image(np.full(NATIVE, 4095, np.uint16), path)
    description = described(tmp_path, classes=["x", "y", "z"], white=4095)
    for record in open_folder(data, tmp_path, description=description).records():
        assert (record["image"] == 255).all()


def test_another_description_is_another_set(tmp_path: Path):
    data = write_folder(tmp_path / "data")
    for names in (["x", "y", "z"], ["p", "q", "r"]):
        description = described(tmp_path, classes=names)
        assert open_folder(data, tmp_path, description=description).facts.classes == names


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "Input should be"),
        ("[1, 2]", "Input should be"),
        ("{", "not YAML"),
        ("classes: [a, 2020-13-45]", "not YAML"),
        ("classes: [a, 0b_]", "not YAML"),
        ("[" * 2000, "not YAML"),
        ("classes: [a]", "classes: "),
        ("classes: [a, a]", "classes: one of them stands there twice"),
        ("classes: [a, b]\nnames: [c]", "names: "),
        ("classes: [a, b]\nvalues: [0]", "values: 1 for 2 classes"),
        ("classes: [a, b]\nvalues: [0, 0]", "stands there twice"),
        ("classes: [a, b]\nvalues: [0, x]", "values.1: "),
        ("classes: [a, b]\nvalues: [0, -1]", "values.1: "),
        ("classes: [a, b]\nvalues: [0, 70000]", "values.1: "),
        ("classes: [a, b]\ncolours: [[0, 0, 0], [0, 0, 256]]", "colours.1.2: "),
        ("classes: [a, b]\ncolours: [[0, 0, 0], [0, 0]]", "colours.1"),
        ("classes: [a, b]\nvalues: [0, 1]\ncolours: [[0, 0, 0], [0, 0, 1]]", "only one of them"),
        ("classes: [a, b]\nignore: [1]", "stands there twice"),
        ("classes: [a, b]\nignore: [[0, 0, 0]]", "must be a value"),
        ("classes: [a, b]\nwhite: 0", "white: "),
        ("classes: [a, b]\nwhite: {", "not YAML"),
    ],
)
def test_a_description_that_cannot_be(text: str, complaint: str, tmp_path: Path):
    path = tmp_path / "description.yaml"
    path.write_text(text)
    message = refused_folder(write_folder(tmp_path / "data"), tmp_path, description=path)
    assert str(path) in message
    assert complaint in message


@pytest.mark.parametrize("kind", ["missing", "a folder", "binary"])
def test_a_description_that_cannot_be_read(kind: str, tmp_path: Path):
    path = tmp_path / "description.yaml"
    if kind == "a folder":
        path.mkdir()
    elif kind == "binary":
        path.write_bytes(bytes(range(256)))
    message = refused_folder(write_folder(tmp_path / "data"), tmp_path, description=path)
    assert str(path) in message
    assert "cannot be read" in message


def test_the_description_in_its_own_docstring_can_be_read(tmp_path: Path):
    text = """
        classes: [background, cell, nucleus]
        values: [0, 128, 255]
        ignore: [7]
        white: 4095
    """
    (tmp_path / "description.yaml").write_text(text)
    described = read_description(tmp_path / "description.yaml")
    assert described.encoding().ids == {0: 0, 128: 1, 255: 2, 7: 255}

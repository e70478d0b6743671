"""A file is replaced by a whole one, or not at all."""

from pathlib import Path

import pytest

from unet_jax.draft import draft


def test_a_file_is_replaced_when_all_is_written(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with draft(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_stays_as_it_was_if_writing_fails(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail() -> None:
        with draft(path) as part:
            part.write_text("ne")
            raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space left"):
        fail()
    assert path.read_text() == "old"

"""Folders and zips: what is in them, and which are not to be trusted."""

import io
import os
import struct
import zipfile
from pathlib import Path

import pytest

from unet_jax.config import DataConfig
from unet_jax.datasets import DataError, archive
from unet_jax.datasets.archive import Files, broken, cut, find_root, open_files, read_text, unpack
from unet_jax.datasets.folder import Folder

Members = dict[str, bytes]


def packed(members: Members, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, content in members.items():
            file.writestr(zipfile.ZipInfo(name), content, method)
    return buffer.getvalue()


def put(path: Path, members: Members, method: int = zipfile.ZIP_DEFLATED) -> Path:
    path.write_bytes(packed(members, method))
    return path


def everything(files: Files) -> Members:
    return {path: entry.read() for path, entry in files.items()}


def refused(place: Path) -> str:
    with pytest.raises(DataError) as caught:
        open_files(place)
    return str(caught.value)


def test_a_folder_is_listed_with_what_its_zips_hold(tmp_path: Path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.txt").write_bytes(b"a")
    put(tmp_path / "loose.zip", {"b.txt": b"b", "deep/c.txt": b"c"})
    put(tmp_path / "topped.zip", {"topped/d.txt": b"d"})
    assert everything(open_files(tmp_path)) == {
        "sub/a.txt": b"a",
        "loose/b.txt": b"b",
        "loose/deep/c.txt": b"c",
        "topped/d.txt": b"d",
    }


def test_what_is_unpacked_goes_before_its_zip(tmp_path: Path):
    put(tmp_path / "set.zip", {"a.txt": b"old"})
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.txt").write_bytes(b"new")
    assert open_files(tmp_path)["set/a.txt"].read() == b"new"


@pytest.mark.parametrize(
    "method",
    [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA],
    ids=["stored", "deflate", "bzip2", "lzma"],
)
def test_every_method_is_read(method: int, tmp_path: Path):
    place = put(tmp_path / "set.zip", {"a.txt": b"content" * 99}, method)
    assert everything(open_files(place)) == {"a.txt": b"content" * 99}


def test_hidden_files_and_those_of_macos_are_left_out(tmp_path: Path):
    names = (".hidden", "__MACOSX/a.txt", "sub/.DS_Store", "a.txt")
    assert list(open_files(put(tmp_path / "set.zip", dict.fromkeys(names, b"")))) == ["a.txt"]
    for name in names:
        (tmp_path / "set" / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / "set" / name).write_bytes(b"")
    assert list(open_files(tmp_path / "set")) == ["a.txt"]


def test_links_are_followed_but_not_in_a_circle(tmp_path: Path):
    (tmp_path / "data").mkdir()
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "a.txt").write_bytes(b"a")
    (tmp_path / "data" / "there").symlink_to(tmp_path / "else")
    (tmp_path / "else" / "back").symlink_to(tmp_path / "data")
    assert list(open_files(tmp_path / "data")) == ["there/a.txt"]


def test_pipes_are_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "a.png")
    assert open_files(tmp_path) == {}


def test_a_folder_that_may_not_be_read_is_not_taken_for_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Permissions do not bind root, who may run the tests."""
    (tmp_path / "locked").mkdir()
    scandir = os.scandir

    def deny(place: str):
        if str(place).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(place))
        return scandir(place)

    monkeypatch.setattr(os, "scandir", deny)
    config = DataConfig(dataset="folder", data_dir=tmp_path, prepared_dir=tmp_path / "p")
    with pytest.raises(DataError, match=f"Permission denied: '{tmp_path / 'locked'}'"):
        Folder(config)


def test_a_zip_inside_a_zip(tmp_path: Path):
    inner = packed({"a.txt": b"a", "deep/b.txt": b"b"})
    files = open_files(put(tmp_path / "outer.zip", {"images.zip": inner, "c.txt": b"c"}))
    assert everything(unpack(files, "images.zip", "outer.zip")) == {
        "c.txt": b"c",
        "images/a.txt": b"a",
        "images/deep/b.txt": b"b",
    }


def test_what_is_unpacked_goes_before_a_zip_inside_a_zip(tmp_path: Path):
    inner = packed({"a.txt": b"old", "b.txt": b"b"})
    files = open_files(put(tmp_path / "outer.zip", {"set.zip": inner, "set/a.txt": b"new"}))
    unpacked = everything(unpack(files, "set.zip", "outer.zip"))
    assert unpacked == {"set/a.txt": b"new", "set/b.txt": b"b"}


@pytest.mark.parametrize("name", ["../a.txt", "a/../../b.txt", "/etc/a.txt", "C:/a", "..\\a.txt"])
def test_members_that_would_escape_are_refused(name: str, tmp_path: Path):
    message = refused(put(tmp_path / "set.zip", {"fine.txt": b"", name: b""}))
    assert f"{tmp_path / 'set.zip'} is not safe to read:" in message
    assert "points outside of the zip" in message
    assert "fine.txt" not in message


def test_members_that_would_escape_from_a_zip_inside_are_refused(tmp_path: Path):
    files = open_files(put(tmp_path / "outer.zip", {"in.zip": packed({"../a": b""})}))
    with pytest.raises(DataError, match=r"outer.zip/in.zip is not safe to read:\n  ../a: points"):
        unpack(files, "in.zip", "outer.zip")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name_are_refused(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as file:
        file.writestr("a.txt", b"one")
        file.writestr("a.txt", b"another")
    assert "a.txt: is in it twice" in refused(tmp_path / "set.zip")


@pytest.mark.parametrize("name", [".", "./", "\0.png"], ids=["dot", "folder", "NUL"])
def test_a_member_without_a_name_is_passed_over(name: str, tmp_path: Path):
    place = put(tmp_path / "set.zip", {"?" * len(name): b"", "a.txt": b"a"})
    place.write_bytes(place.read_bytes().replace(b"?" * len(name), name.encode()))
    assert list(open_files(place)) == ["a.txt"]


def test_a_member_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A real bomb has more than `LARGEST` bytes; here that is less, to spare the machine."""
    monkeypatch.setattr(archive, "LARGEST", 1000)
    kept, bomb = os.urandom(1000), bytes(1_000_000)
    assert list(open_files(put(tmp_path / "kept.zip", {"a.png": kept}))) == ["a.png"]
    message = refused(put(tmp_path / "bomb.zip", {"a.png": kept, "b.png": bomb}))
    assert f"{tmp_path / 'bomb.zip'} is not safe to read:" in message
    assert "b.png: unpacks to 1,000,000 bytes" in message
    assert "a.png" not in message


def test_a_bomb_in_a_zip_inside_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    inner = packed({"a.png": bytes(1_000_000)})
    files = open_files(put(tmp_path / "outer.zip", {"in.zip": inner}, zipfile.ZIP_STORED))
    monkeypatch.setattr(archive, "LARGEST", 100_000)
    with pytest.raises(DataError, match=r"a\.png: unpacks to 1,000,000 bytes"):
        unpack(files, "in.zip", "outer.zip")


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(archive, "LARGEST", 1000)
    put(tmp_path / "set.zip", {"a": os.urandom(1001)})
    with pytest.raises(OSError, match="unpacks to more than 1,000 bytes"):
        open_files(tmp_path / "set.zip")["a"].read()


def test_a_member_that_says_it_is_small_does_not_unpack_to_more(tmp_path: Path):
    place = put(tmp_path / "set.zip", {"a.png": bytes(1_000_000)})
    content = place.read_bytes()
    lying = content.replace(struct.pack("<L", 1_000_000), struct.pack("<L", 10))
    assert lying != content
    place.write_bytes(lying)
    with pytest.raises(OSError, match="CRC-32"):
        open_files(place)["a.png"].read()


def test_an_encrypted_member_cannot_be_read(tmp_path: Path):
    place = put(tmp_path / "set.zip", {"a.png": b"secret"})
    content = bytearray(place.read_bytes())
    content[6] |= 1
    content[content.index(b"PK\1\2") + 8] |= 1
    place.write_bytes(content)
    with pytest.raises(OSError, match="encrypted"):
        open_files(place)["a.png"].read()


@pytest.mark.parametrize("content", [b"", b"<html>Please log in</html>"], ids=["empty", "HTML"])
def test_a_zip_that_is_none_is_named(content: bytes, tmp_path: Path):
    (tmp_path / "set.zip").write_bytes(content)
    message = refused(tmp_path / "set.zip")
    assert str(tmp_path / "set.zip") in message
    assert "download it again" in message


@pytest.mark.parametrize(
    "content", [b"", packed({"../a": b""})], ids=["broken", "with unsafe members"]
)
def test_a_zip_in_a_folder_that_cannot_be_used_stays_a_file(content: bytes, tmp_path: Path):
    (tmp_path / "a.txt").write_bytes(b"a")
    (tmp_path / "set.zip").write_bytes(content)
    put(tmp_path / "whole.zip", {"b.txt": b"b"})
    files = open_files(tmp_path)
    assert everything(files) == {"a.txt": b"a", "set.zip": content, "whole/b.txt": b"b"}
    assert broken(files) == {"set": refused(tmp_path / "set.zip")}


def test_a_zip_inside_a_zip_that_is_none_is_named(tmp_path: Path):
    files = open_files(put(tmp_path / "outer.zip", {"in.zip": b"cut off"}))
    with pytest.raises(DataError, match=r"place/in.zip: .*; download it again"):
        unpack(files, "in.zip", "place")


def test_a_zip_inside_a_zip_that_is_damaged_is_named(tmp_path: Path):
    place = put(tmp_path / "outer.zip", {"in.zip": packed({"a.txt": os.urandom(99)})})
    content = bytearray(place.read_bytes())
    content[30 + len("in.zip")] |= 0b111  # Block type 3, which DEFLATE reserves.
    place.write_bytes(content)
    with pytest.raises(DataError, match=r"place/in.zip: .*; download it again"):
        unpack(open_files(place), "in.zip", "place")


@pytest.mark.parametrize("damage", ["checksum", "compressed stream"])
def test_a_damaged_member_cannot_be_read(damage: str, tmp_path: Path):
    """The directory at the end of the zip is whole, so only reading the file finds it."""
    place = put(tmp_path / "set.zip", {"a.png": os.urandom(99) + bytes(99), "b.png": b"b"})
    content = bytearray(place.read_bytes())
    start = 30 + len("a.png")
    if damage == "checksum":
        content[start + 50] ^= 1
    else:
        content[start] |= 0b111  # Block type 3, which DEFLATE reserves.
    place.write_bytes(content)
    files = open_files(place)
    assert files["b.png"].read() == b"b"
    with pytest.raises(OSError, match=r"CRC-32|invalid"):
        files["a.png"].read()


@pytest.mark.parametrize("content", [b"\xff\xfe", b"\x80"], ids=["UTF-16", "Latin-1"])
def test_a_text_that_is_none_is_named(content: bytes, tmp_path: Path):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(DataError, match=r"^a\.txt: cannot be read"):
        read_text(open_files(tmp_path), "a.txt")


def test_a_byte_order_mark_is_no_text(tmp_path: Path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfname")
    assert read_text(open_files(tmp_path), "a.txt") == "name"


def test_the_shallowest_folder_with_all_names_is_the_root(tmp_path: Path):
    names = ("half/images/a", "one/two/images/a", "one/two/masks.zip", "one/x/y/images/a")
    members = dict.fromkeys([*names, "one/x/y/masks/a", "one/two/other/a"], b"")
    files = open_files(put(tmp_path / "set.zip", members))
    root = find_root(files, ("images", "masks"))
    assert root == "one/two/"
    assert sorted(cut(files, root, ("images", "masks"))) == ["images/a", "masks.zip"]
    assert find_root(files, ("images", "labels")) is None


def test_a_place_that_is_not_there_is_named(tmp_path: Path):
    assert str(tmp_path / "nowhere") in refused(tmp_path / "nowhere")

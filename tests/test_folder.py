"""Anyone's folders: where images and masks lie is found out, and whether they belong together."""

import os
from pathlib import Path

import numpy as np
import pytest
from drawing import (
    IDS,
    NAMES,
    NATIVE,
    contents,
    draw,
    draw_classes,
    masks,
    nearest,
    open_folder,
    open_set,
    refused_folder,
    save_image,
    write_folder,
    zipped,
)
from PIL import Image


@pytest.mark.parametrize(
    ("images", "masks", "suffix"),
    [
        ("images/{}.png", "masks/{}.png", ""),
        ("image/{}.png", "label/{}.png", ""),
        ("imgs/{}.png", "annotations/{}.png", ""),
        ("Images/{}.PNG", "Masks/{}.PNG", ""),
        ("some/where/images/{}.png", "some/where/masks/{}.png", ""),
        ("images/{}.png", "masks/{}_seg.png", "_seg"),
        ("{}.png", "{}_mask.png", "_mask"),
        ("all/{}.png", "all/{}_mask.png", "_mask"),
        ("images/deep/{}.png", "masks/deep/{}.png", ""),
        ("{}.png", "masks/{}.png", ""),
        ("{}.png", "masks/{}_mask.png", "_mask"),
    ],
)
def test_pairs_without_splits_are_found(images: str, masks: str, suffix: str, tmp_path: Path):
    data = write_folder(tmp_path / "data", images, masks)
    facts = open_folder(data, tmp_path, mask_suffix=suffix).facts
    assert [Path(name).name for name in facts.names] == list(NAMES)
    assert facts.splits == ["", "", ""]


@pytest.mark.parametrize(
    ("images", "masks", "suffix"),
    [
        ("{split}/images/{{}}.png", "{split}/masks/{{}}.png", ""),
        ("images/{split}/{{}}.png", "masks/{split}/{{}}.png", ""),
        ("{split}_images/{{}}.png", "{split}_masks/{{}}.png", ""),
        ("{split}/{{}}.png", "{split}_masks/{{}}.png", ""),
        ("{split}/{{}}.png", "{split}/{{}}_mask.png", "_mask"),
        ("{split}_images/{{}}.png", "{split}_masks/{{}}_mask.png", "_mask"),
        ("data/{split}/images/{{}}.png", "data/{split}/masks/{{}}.png", ""),
        ("{split}/{{}}.png", "{split}/masks/{{}}.png", ""),
    ],
)
@pytest.mark.parametrize("spelling", [("train", "val"), ("training", "validation")], ids=str)
def test_published_splits_are_found(
    spelling: tuple[str, str], images: str, masks: str, suffix: str, tmp_path: Path
):
    data = tmp_path / "data"
    for split, names in zip(spelling, ("ab", "c"), strict=True):
        write_folder(data, images.format(split=split), masks.format(split=split), names=names)
    facts = open_folder(data, tmp_path, mask_suffix=suffix).facts
    assert facts.names == ["train/a", "train/b", "val/c"]
    assert facts.splits == ["train", "train", "val"]


def test_a_test_set_is_kept_apart(tmp_path: Path):
    data = tmp_path / "data"
    for split, name in zip(("train", "val", "test"), NAMES, strict=True):
        write_folder(data, f"{split}/images/{{}}.png", f"{split}/masks/{{}}.png", names=name)
    assert open_folder(data, tmp_path).facts.splits == ["train", "val", "test"]


def test_a_test_set_without_masks_is_left_out(tmp_path: Path):
    data = write_folder(tmp_path / "data", "train/images/{}.png", "train/masks/{}.png")
    save_image(draw(0)[0], data / "test" / "images" / "t.png")
    assert open_folder(data, tmp_path).facts.splits == ["train"] * 3


@pytest.mark.parametrize("lost", ["images", "masks"])
def test_a_split_that_has_only_half_is_refused(lost: str, tmp_path: Path):
    data = write_folder(tmp_path / "data", "train/images/{}.png", "train/masks/{}.png")
    kept = "masks" if lost == "images" else "images"
    save_image(draw(0)[1], data / "val" / kept / "v.png")
    assert f"val/{kept}: has no {lost}" in refused_folder(data, tmp_path)


@pytest.mark.parametrize("suffix", [".jpg", ".bmp", ".tif", ".webp", ".ppm"])
def test_images_may_have_another_suffix_than_masks(suffix: str, tmp_path: Path):
    data = write_folder(tmp_path / "data", f"images/{{}}{suffix}")
    assert open_folder(data, tmp_path).facts.names == list(NAMES)


@pytest.mark.parametrize("top", ["train/", "all/", ""])
def test_a_test_set_without_masks_is_left_out_where_masks_lie_beside_images(
    top: str, tmp_path: Path
):
    data = write_folder(tmp_path / "data", f"{top}{{}}.png", f"{top}{{}}_mask.png")
    save_image(draw(0)[0], data / "test" / "t.png")
    facts = open_folder(data, tmp_path, mask_suffix="_mask").facts
    assert facts.splits == ["train" if top == "train/" else ""] * 3


def test_a_test_set_without_masks_is_left_out_below_images_of_no_split(tmp_path: Path):
    data = write_folder(tmp_path / "data")
    save_image(draw(0)[0], data / "images" / "test" / "t.png")
    assert open_folder(data, tmp_path).facts.names == list(NAMES)


def test_a_test_set_that_lacks_one_mask_is_refused(tmp_path: Path):
    data = write_folder(tmp_path / "data", "train/{}.png", "train/{}_mask.png", names="ab")
    write_folder(data, "test/{}.png", "test/{}_mask.png", names="c")
    save_image(draw(0)[0], data / "test" / "t.png")
    assert "test/t.png: has no mask" in refused_folder(data, tmp_path, mask_suffix="_mask")


@pytest.mark.parametrize(
    ("images", "masks", "below", "suffix"),
    [
        ("", "", "{split}/", "_mask"),
        ("images/", "masks/", "{place}{split}/", ""),
        ("images/", "masks/", "{split}/{place}", ""),
    ],
    ids=["masks beside images", "splits below", "splits beside"],
)
def test_images_outside_of_the_splits_folders_are_refused(
    images: str, masks: str, below: str, suffix: str, tmp_path: Path
):
    data = tmp_path / "data"
    for name, split in (("a", ""), ("b", "train"), ("c", "val")):
        places = [below.format(place=p, split=split) if split else p for p in (images, masks)]
        write_folder(data, f"{places[0]}{{}}.png", f"{places[1]}{{}}{suffix}.png", names=name)
    folders = [below.format(place=images, split=split).strip("/") for split in ("train", "val")]
    message = refused_folder(data, tmp_path, mask_suffix=suffix)
    assert f"{images}a.png lies outside of {', '.join(folders)}: " in message


def test_a_test_set_beside_images_of_no_split_is_kept_apart(tmp_path: Path):
    data = write_folder(tmp_path / "data", names="ab")
    write_folder(data, "test/images/{}.png", "test/masks/{}.png", names="c")
    assert open_folder(data, tmp_path).facts.splits == ["", "", "test"]


def test_a_test_set_below_images_of_no_split_is_refused(tmp_path: Path):
    data = write_folder(tmp_path / "data", "{}.png", "{}_mask.png", names="ab")
    write_folder(data, "test/{}.png", "test/{}_mask.png", names="c")
    message = refused_folder(data, tmp_path, mask_suffix="_mask")
    assert "a.png lies outside of test" in message


def test_no_file_is_in_two_pairs(tmp_path: Path):
    data = write_folder(tmp_path / "data", "train/{}.png", "train/{}_mask.png", names="ab")
    write_folder(data, "train/images/{}.png", "train/images/{}_mask.png", names="c")
    message = refused_folder(data, tmp_path, mask_suffix="_mask")
    assert "in two pairs" in message
    assert "train/images/c.png" in message


def test_a_zip_reads_as_the_folder(tmp_path: Path):
    data = write_folder(tmp_path / "data")
    (tmp_path / "mine.zip").write_bytes(zipped(data))
    expected = contents(open_folder(data, tmp_path))
    assert contents(open_folder(tmp_path / "mine.zip", tmp_path)) == expected


@pytest.mark.parametrize(
    ("name", "top"), [("notes", ""), ("images", ""), ("notes", "train/"), ("train", "train/")]
)
def test_a_broken_zip_that_is_not_needed_does_not_matter(name: str, top: str, tmp_path: Path):
    data = write_folder(tmp_path / "data", top + "images/{}.png", top + "masks/{}.png")
    (data / f"{name}.zip").write_bytes(b"broken")
    assert len(open_folder(data, tmp_path).records()) == len(NAMES)


@pytest.mark.parametrize("name", ["val", "train_masks", "test"])
def test_a_broken_zip_of_a_folder_that_is_not_there_is_refused(name: str, tmp_path: Path):
    data = write_folder(tmp_path / "data")
    (data / f"{name}.zip").write_bytes(b"broken")
    message = refused_folder(data, tmp_path)
    assert message == f"{data / name}.zip: File is not a zip file; download it again"


def test_broken_zips_are_named_where_no_pairs_are_found(tmp_path: Path):
    save_image(draw(0)[0], tmp_path / "data" / "preview.png")
    (tmp_path / "data" / "mine.zip").write_bytes(b"broken")
    message = refused_folder(tmp_path / "data", tmp_path)
    assert message.startswith("no pairs in ")
    assert f"\n  {tmp_path / 'data' / 'mine.zip'}: File is not a zip file" in message


def test_every_unpaired_file_is_named(tmp_path: Path):
    data = write_folder(tmp_path / "data")
    (data / "images" / "a.png").unlink()
    (data / "masks" / "b.png").unlink()
    message = refused_folder(data, tmp_path)
    assert "masks/a.png: has no image" in message
    assert "images/b.png: has no mask" in message
    assert "2 files" in message


def test_two_files_of_one_name_are_named(tmp_path: Path):
    data = write_folder(tmp_path / "data")
    save_image(draw(0)[0], data / "images" / "a.jpg")
    assert "images/a.png: has the same name as images/a.jpg" in refused_folder(data, tmp_path)


def test_two_folders_that_could_both_be_meant_are_named(tmp_path: Path):
    data = write_folder(write_folder(tmp_path / "data"), "more/images/{}.png", "more/masks/{}.png")
    assert "both images and more/images could be" in refused_folder(data, tmp_path)


def test_a_stray_picture_at_the_top_is_named_so(tmp_path: Path):
    data = write_folder(tmp_path / "data")
    save_image(draw(0)[0], data / "preview.png")
    assert "both the top and images could be" in refused_folder(data, tmp_path)


@pytest.mark.parametrize("kind", ["empty", "no pictures", "images alone"])
def test_a_folder_without_pairs(kind: str, tmp_path: Path):
    data = tmp_path / "data"
    data.mkdir()
    if kind == "no pictures":
        (data / "notes.txt").write_text("")
    elif kind == "images alone":
        save_image(draw(0)[0], data / "images" / "a.png")
    message = refused_folder(data, tmp_path)
    named = "named images, image, imgs, img, and masks in masks, mask, labels"  # In this order.
    for part in (f"no pairs in {data}", named, "--mask-suffix"):
        assert part in message


def test_no_data_dir(tmp_path: Path):
    assert "--data-dir" in refused_folder(None, tmp_path)
    assert str(tmp_path / "nowhere") in refused_folder(tmp_path / "nowhere", tmp_path)
    assert "~nobody-of-this-name" in refused_folder(Path("~nobody-of-this-name/x"), tmp_path)


@pytest.mark.parametrize("size", [(40, 58), (42, 60), (60, 40)], ids=str)
def test_a_mask_of_another_size_is_named(size: tuple[int, int], tmp_path: Path):
    data = write_folder(tmp_path / "data")
    save_image(draw_classes(0, 3, size), data / "masks" / "b.png")
    message = refused_folder(data, tmp_path)
    assert f"masks/b.png: {size[0]}×{size[1]} (H×W), but images/b.png is 40×60" in message


def test_a_turned_image_goes_with_an_upright_mask(tmp_path: Path):
    """A camera held upright stores its picture on its side; who draws the mask sees it upright."""
    data = write_folder(tmp_path / "data", images="images/{}.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    for path in (data / "images").iterdir():
        upright = Image.fromarray(draw(ord(path.stem))[0])
        upright.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif, quality=95)
    builder = open_folder(data, tmp_path)
    assert builder.facts.native == [list(NATIVE)] * 3
    for name, record in zip(NAMES, builder.records(), strict=True):
        np.testing.assert_array_equal(record["mask"], IDS[name])
        # JPEG is off by less on average than any other picture of these or another turn would be.
        error = np.abs(record["image"].astype(int) - draw(ord(name))[0])
        assert error.mean() < 15
        assert np.abs(record["image"][::-1, ::-1].astype(int) - draw(ord(name))[0]).mean() > 40


def test_sizes_may_vary(tmp_path: Path):
    sizes = {"a": (40, 60), "b": (24, 36), "c": (66, 44)}
    data = tmp_path / "data"
    for name, size in sizes.items():
        save_image(draw(0, size)[0], data / "images" / f"{name}.png")
        save_image(draw_classes(ord(name), 3, size), data / "masks" / f"{name}.png")
    builder = open_set("folder", data, tmp_path / "prepared", (16, 32))
    assert builder.facts.native == [list(size) for size in sizes.values()]
    np.testing.assert_array_equal(masks(builder)["a"], nearest(IDS["a"], (16, 32)))


def test_large_images_are_read_without_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Pillow warns above this number of pixels, and refuses above twice as many."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", NATIVE[0] * NATIVE[1] - 1)
    assert len(open_folder(write_folder(tmp_path / "data"), tmp_path).records()) == 3
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", NATIVE[0] * NATIVE[1] // 2 - 1)
    message = refused_folder(tmp_path / "data", tmp_path / "again")
    assert "masks/a.png: cannot be decoded (Image size (2400 pixels) exceeds limit" in message


def test_damaged_exif_data_does_not_make_an_image_unreadable(tmp_path: Path):
    """Pillow warns of it; cameras are known to write such."""
    data = write_folder(tmp_path / "data", images="images/{}.jpg")
    for path in (data / "images").iterdir():
        Image.open(path).save(path, exif=b"Exif\0\0MM\0*\0\0\0\10\0\5\1\22")
        with pytest.warns(UserWarning, match="Corrupt EXIF"):
            Image.open(path).getexif()
    assert len(open_folder(data, tmp_path).records()) == 3


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Permissions do not bind root, who may run the tests."""
    data = write_folder(tmp_path / "data")
    opened = Path.open

    def deny(path: Path, *arguments: object, **options: object):
        if path.name == "b.png" and path.parent.name == "images":
            raise PermissionError(13, os.strerror(13), str(path))
        return opened(path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "open", deny)
    message = refused_folder(data, tmp_path)
    assert "images/b.png: cannot be decoded" in message
    assert "Permission denied" in message

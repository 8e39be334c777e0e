"""The scan of a folder: splits by any name, duplicates, and what the cache keeps."""

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from made_images import encode, smooth_image
from PIL import Image

from ftjax.data import decode, image_files, load, scan


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("FTJAX_CACHE", str(folder))
    return folder


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def made(root, first=0, classes=("a", "b"), count=4):
    """All images differ, also from those of another `first`."""
    for label, name in enumerate(classes):
        for index in range(count):
            image = smooth_image(first + 10 * label + index)
            write(root / name / f"{index}.png", encode(image))
    return root


def rows_of(report, fate):
    return {row.what: row for row in report.rows if row.fate == fate}


def as_set(images):
    return {image.tobytes() for image in images}


@pytest.mark.parametrize("train", ["train", "Training", "TRAIN"])
@pytest.mark.parametrize("val", ["val", "valid", "Validation", "VALID"])
def test_splits_have_many_names_in_any_case(tmp_path, train, val):
    made(tmp_path / train)
    made(tmp_path / val, 100, count=2)
    data = load(str(tmp_path), image_size=24)
    expected = [smooth_image(seed)[:, 4:28] for seed in (100, 101, 110, 111)]
    assert as_set(data.val.images) == as_set(expected)
    assert len(data.train.labels) == 8
    assert data.report.images == {"train": 8, "val": 4}


def test_two_folders_for_one_split_are_refused(tmp_path):
    made(tmp_path / "train")
    made(tmp_path / "val", 100)
    made(tmp_path / "valid", 200)
    with pytest.raises(ValueError, match="val/ and valid/: only one .* val split"):
        load(str(tmp_path), image_size=8)


def test_test_is_kept_apart_and_counted(tmp_path):
    made(tmp_path / "train")
    made(tmp_path / "Test", 100, classes=("a", "b", "z"))
    data = load(str(tmp_path), image_size=24)
    apart = {smooth_image(100 + k)[:, 4:28].tobytes() for k in range(30)}
    assert data.test is None
    assert not apart & (as_set(data.train.images) | as_set(data.val.images))
    assert data.report.images == {"train": 8, "test": 8}
    assert "8 test" in data.describe()
    (row,) = rows_of(data.report, "skipped").values()
    assert row.what == "of a class that train/ does not have" and row.count == 4
    whole = load(str(tmp_path), image_size=24, with_test=True)
    assert len(whole.test.labels) == 8 and as_set(whole.test.images) <= apart
    part = load(str(tmp_path), image_size=24, test_size=3)
    assert np.array_equal(part.test.images, whole.test.images[:3])
    assert part.content_hash == whole.content_hash == data.content_hash


def test_a_test_folder_without_classes_is_skipped(tmp_path):
    made(tmp_path / "train")
    write(tmp_path / "test" / "1.png", encode(smooth_image(100)))
    write(tmp_path / "notes" / "x.png", encode(smooth_image(101)))
    report = load(str(tmp_path), image_size=8, with_test=True).report
    skipped = {what: row.names for what, row in rows_of(report, "skipped").items()}
    assert skipped == {
        "not in the folder of a class": ("test/1.png",),
        "beside the folders of the splits": ("notes/x.png",),
    }


def test_test_beside_classes_is_a_split_and_never_a_class(tmp_path):
    made(tmp_path)
    made(tmp_path / "test", 100, count=1)
    data = load(str(tmp_path), image_size=8, with_test=True)
    assert data.class_names == ("a", "b") and len(data.test.labels) == 2
    shutil.rmtree(tmp_path / "test")
    made(tmp_path, 200, classes=("test",))
    data = load(str(tmp_path), image_size=8, with_test=True)
    assert data.class_names == ("a", "b") and data.test is None
    assert rows_of(data.report, "skipped")["not in the folder of a class"].count == 4


def test_a_test_set_can_be_cut_off(tmp_path):
    made(tmp_path, classes="abc", count=10)
    whole = load(str(tmp_path), image_size=24, test_size=6, val_size=6)
    assert np.bincount(whole.test.labels).tolist() == [2, 2, 2]
    sets = [as_set(part.images) for part in (whole.train, whole.val, whole.test)]
    assert [len(images) for images in sets] == [18, 6, 6]
    assert len(sets[0] | sets[1] | sets[2]) == 30
    for size in (3, 11, 18):
        part = load(
            str(tmp_path), image_size=24, test_size=6, val_size=4, train_size=size
        )
        assert np.array_equal(part.train.images, whole.train.images[:size])
        assert np.array_equal(part.val.images, whole.val.images[:4])
        assert np.array_equal(part.test.images, whole.test.images)
    smaller = load(str(tmp_path), image_size=24, test_size=3)
    assert np.array_equal(smaller.test.images, whole.test.images[:3])
    with pytest.raises(ValueError, match="--test-size 16: only 15 .* allowed: 3 to 15"):
        load(str(tmp_path), image_size=24, test_size=16)


def test_a_test_set_is_cut_off_beside_a_validation_folder(tmp_path):
    made(tmp_path / "train", count=6)
    made(tmp_path / "val", 100)
    data = load(str(tmp_path), image_size=24, test_size=4)
    assert (len(data.train.labels), len(data.val.labels)) == (8, 8)
    assert not as_set(data.test.images) & as_set(data.train.images)


def test_folders_without_images_are_no_classes(tmp_path):
    made(tmp_path / "train")
    made(tmp_path / "val", 100)
    (tmp_path / "train" / "empty").mkdir()
    write(tmp_path / "val" / "papers" / "x.txt", b"no image")
    data = load(str(tmp_path), image_size=8)
    assert data.class_names == ("a", "b")
    row = rows_of(data.report, "found")["no class: a folder without images"]
    assert row.names == ("train/empty/", "val/papers/")


def test_duplicates_are_told_by_where_they_are(tmp_path):
    made(tmp_path / "train", count=5)
    made(tmp_path / "val", 100)
    train, val = tmp_path / "train", tmp_path / "val"
    shutil.copy(train / "a" / "0.png", train / "a" / "0 copy.png")
    shutil.copy(train / "a" / "1.png", val / "a" / "one.png")
    shutil.copy(train / "b" / "2.png", train / "a" / "two.png")
    photo = np.random.default_rng(1).integers(0, 256, (6, 6, 3), np.uint8)
    photo = Image.fromarray(photo).resize((64, 64), Image.Resampling.BICUBIC)
    write(train / "b" / "photo.jpg", encode(photo, "JPEG"))
    write(val / "b" / "again.webp", encode(photo.resize((48, 48)), "WEBP"))
    write(train / "b" / "black.png", encode(np.zeros((9, 9, 3), np.uint8)))
    data = load(str(tmp_path), image_size=8)
    found = {what: row.names for what, row in rows_of(data.report, "found").items()}
    assert found == {
        "the same file twice": ("train/a/0 copy.png = train/a/0.png",),
        "the same file in two parts": ("train/a/1.png = val/a/one.png",),
        "the same file in two classes": ("train/a/two.png = train/b/2.png",),
        "images that look alike in two parts": (
            "train/b/photo.jpg ~ val/b/again.webp",
        ),
        "constant: all pixels equal": ("train/b/black.png",),
    }
    with pytest.raises(ValueError, match="the same file in two parts .'train/a/1.png"):
        load(str(tmp_path), image_size=8, strict=True)


def test_duplicates_that_the_split_takes_apart_are_told(tmp_path):
    made(tmp_path)
    for index in range(3):
        shutil.copy(tmp_path / "a" / "0.png", tmp_path / "a" / f"copy {index}.png")
    data = load(str(tmp_path), image_size=8, val_size=5)
    row = rows_of(data.report, "found")["the same file in two parts"]
    assert data.shared >= 1 and row.count >= 1


def test_every_file_is_counted_once_and_every_line_is_one(tmp_path):
    made(tmp_path)
    write(tmp_path / "a" / "grey.png", encode(smooth_image(50)[..., 0]))
    write(tmp_path / "a" / "deep" / "x.png", encode(smooth_image(51)))
    write(tmp_path / "b" / "bad.jpg", b"<html>")
    write(tmp_path / "readme.md", b"text")
    report = load(str(tmp_path), image_size=8).report
    files = sum(path.is_file() for path in tmp_path.rglob("*"))
    fates = {fate: report.count(fate) for fate in ("read", "converted", "skipped")}
    assert fates == {"read": 8, "converted": 1, "skipped": 2}
    assert sum(fates.values()) + report.count("refused") == report.files == files
    lines = report.lines()
    assert all(line.isprintable() for line in lines)
    assert [line.split()[0] for line in lines[1:]] == [
        *("converted", "skipped", "skipped", "refused"),
    ]
    assert report.to_json()["rows"][-1]["names"] == ("b/bad.jpg",)


def test_a_file_is_read_and_decoded_once(tmp_path, monkeypatch):
    made(tmp_path)
    opened, decoded = [], []
    real = image_files.read_pixels

    def count(raw, **options):
        decoded.append(raw)
        return real(raw, **options)

    monkeypatch.setattr(image_files, "read_pixels", count)
    monkeypatch.setattr("ftjax.data.rows.read_pixels", count)
    read_bytes = Path.read_bytes
    monkeypatch.setattr(
        Path, "read_bytes", lambda self: opened.append(self) or read_bytes(self)
    )
    data = load(str(tmp_path), image_size=24)
    assert len(decoded) == len(set(decoded)) == 8
    assert not [path for path in opened if path.suffix == ".png"]
    decoded.clear()
    again = load(str(tmp_path), image_size=24)  # neither read nor decoded
    assert not decoded and again.content_hash == data.content_hash
    assert again.report == data.report


def test_only_new_files_are_decoded(tmp_path, monkeypatch):
    made(tmp_path)
    load(str(tmp_path), image_size=24)
    write(tmp_path / "a" / "new.png", encode(smooth_image(60)))
    os.utime(tmp_path / "a" / "0.png")  # touched: read, not decoded
    calls = []
    judge = scan._judge
    monkeypatch.setattr(
        scan, "_judge", lambda raw, *rest: calls.append(raw) or judge(raw, *rest)
    )
    load(str(tmp_path), image_size=24)
    assert calls == [encode(smooth_image(60))]


def test_an_exchanged_file_of_the_same_size_and_time_is_noticed(tmp_path):
    made(tmp_path)
    file = tmp_path / "a" / "0.png"
    images = [np.full((8, 8, 3), value, np.uint8) for value in (10, 20)]
    first, second = (encode(image, "BMP") for image in images)
    assert len(first) == len(second)
    file.write_bytes(first)
    status = file.stat()
    before = load(str(tmp_path), image_size=8)
    time.sleep(0.03)  # a tick of the clock of files
    file.write_bytes(second)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert file.stat().st_mtime_ns == status.st_mtime_ns
    after = load(str(tmp_path), image_size=8)
    assert after.content_hash != before.content_hash
    images = as_set([*after.train.images, *after.val.images])
    assert np.full((8, 8, 3), 20, np.uint8).tobytes() in images


def test_a_file_written_at_the_time_of_the_scan_is_hashed_again(tmp_path, monkeypatch):
    """It may have changed since, within one tick of the clock of files."""
    made(tmp_path)
    time.sleep(0.05)
    report = load(str(tmp_path), image_size=8).report
    monkeypatch.setattr(scan, "_is_recent", lambda stamp: True)
    os.utime(tmp_path / "a" / "0.png")
    read = []
    examine = scan._examine
    monkeypatch.setattr(
        scan, "_examine", lambda *about: read.append(about[0]) or examine(*about)
    )
    for _ in range(2):
        read.clear()
        assert load(str(tmp_path), image_size=8).report == report
        assert [member.path.name for member in read] == ["0.png"]


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_damaged_record_of_a_scan_is_made_anew(tmp_path, cache, damage):
    made(tmp_path)
    write(tmp_path / "a" / "bad.png", b"")
    report = load(str(tmp_path), image_size=8).report
    (store,) = (cache / "scans").iterdir()
    data = bytearray(store.read_bytes())
    data[len(data) // 2] ^= 1
    new = {"flip": data, "cut": data[: len(data) // 2], "empty": b""}[damage]
    store.write_bytes(new)
    assert load(str(tmp_path), image_size=8).report == report


def test_an_image_exchanged_between_two_reads_and_put_back(tmp_path, monkeypatch):
    """What was hashed is what is decoded, or the run ends: never wrong pixels."""
    made(tmp_path)
    target = tmp_path / "a" / "0.png"
    good, other = smooth_image(0)[:, 4:28], encode(smooth_image(999))
    reads = []
    read_bytes = Path.read_bytes

    def exchanged(path):
        if path != target:
            return read_bytes(path)
        reads.append(path)
        return other if len(reads) % 2 == 0 else read_bytes(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", exchanged)
        try:
            load(str(tmp_path), image_size=24)
        except ValueError as error:
            assert "changed while" in str(error)
    data = load(str(tmp_path), image_size=24)
    assert good.tobytes() in as_set([*data.train.images, *data.val.images])


def test_an_image_that_changed_since_its_scan_ends_the_run(tmp_path, monkeypatch):
    made(tmp_path)
    first = load(str(tmp_path), image_size=24)
    target, other = tmp_path / "a" / "0.png", encode(smooth_image(999))
    read_bytes = Path.read_bytes
    with monkeypatch.context() as patch:
        patch.setattr(
            Path, "read_bytes", lambda p: other if p == target else read_bytes(p)
        )
        with pytest.raises(ValueError, match="1 of .* changed while.*'a/0.png'"):
            load(str(tmp_path), image_size=20)
    assert load(str(tmp_path), image_size=24).content_hash == first.content_hash
    data = load(str(tmp_path), image_size=20)
    pixels = decode.resize_square(smooth_image(0), 20).tobytes()
    assert pixels in as_set([*data.train.images, *data.val.images])


def test_progress_is_told_while_files_are_scanned(tmp_path):
    made(tmp_path)
    calls = []
    load(str(tmp_path), image_size=8, progress=lambda *at: calls.append(at))
    assert (8, 8) in calls[:8] and calls[:8] == [(k, 8) for k in range(1, 9)]


def test_what_the_temporary_file_does_not_hold_is_decoded_again(tmp_path, monkeypatch):
    made(tmp_path)
    expected = load(str(tmp_path), image_size=24).content_hash
    shutil.rmtree(os.environ["FTJAX_CACHE"])
    monkeypatch.setattr("ftjax.data.rows.SPOOL_BYTES", 24 * 24 * 3 * 3)
    assert load(str(tmp_path), image_size=24).content_hash == expected

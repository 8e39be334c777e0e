"""Loading images: folders, subsets, bad input and the cache, on made images."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from ftjax.data import load
from ftjax.data.cache import load_or_build


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("FTJAX_CACHE", str(folder))
    return folder


def smooth_image(seed, height=24, width=32):
    coarse = np.random.default_rng(seed).integers(40, 215, (3, 4, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)


def encode(image, kind=".png"):
    done, data = cv2.imencode(kind, image[..., ::-1])
    assert done
    return data.tobytes()


def write_classes(folder, counts, first_seed=0):
    """counts: class name -> number of images, all different."""
    seed = first_seed
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for index in range(count):
            data = encode(smooth_image(seed))
            (folder / name / f"{index:03}.png").write_bytes(data)
            seed += 1
    return folder


def as_set(images):
    return {image.tobytes() for image in images}


def test_subsets_are_nested_balanced_and_disjoint(tmp_path):
    folder = write_classes(tmp_path / "made", {"a": 12, "b": 12, "c": 12})
    whole = load(str(folder), image_size=8, val_size=9)
    assert np.bincount(whole.val.labels).tolist() == [3, 3, 3]
    assert not as_set(whole.train.images) & as_set(whole.val.images)
    assert len(as_set(whole.train.images) | as_set(whole.val.images)) == 36
    sizes = (3, 7, 12, 26)
    nested = load(str(folder), image_size=8, val_size=9, train_size=sizes)
    for size in sizes:
        part = load(str(folder), image_size=8, val_size=9, train_size=size)
        assert np.array_equal(part.train.images, whole.train.images[:size])
        assert np.array_equal(part.train.labels, whole.train.labels[:size])
        assert np.array_equal(part.val.images, whole.val.images)
        assert np.ptp(np.bincount(part.train.labels)) <= 1
        assert part.content_hash != whole.content_hash
        first = nested.first(size)
        assert first.content_hash == part.content_hash
        assert np.array_equal(first.train.images, part.train.images)
        assert np.array_equal(first.train.labels, part.train.labels)
    small = load(str(folder), image_size=8, val_size=4, train_size=12)
    assert np.array_equal(small.val.images, whole.val.images[:4])
    assert np.array_equal(small.train.images, whole.train.images[:12])


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (
            {"train_size": 1},
            "--train-size 1 is fewer than one .* 2 classes; .* 2 to 16",
        ),
        ({"train_size": 17}, "--train-size 17: only 16 .* beside 4 held out"),
        ({"val_size": 0}, "--val-size 0 is fewer .* allowed: 2 to 10"),
        ({"val_size": 11}, "--val-size 11: only 10 images may be held out"),
        ({"image_size": 7}, "--image-size 7 is too small; allowed: 8 or more"),
    ],
)
def test_sizes_out_of_range(tmp_path, sizes, message):
    folder = write_classes(tmp_path / "made", {"a": 10, "b": 10})
    with pytest.raises(ValueError, match=message):
        load(str(folder), **{"image_size": 8, **sizes})


def test_a_folder_with_splits_is_read_as_it_stands(tmp_path):
    root = tmp_path / "pets"
    write_classes(root / "train", {"cat": 5, "dog": 4}, first_seed=0)
    write_classes(root / "val", {"cat": 2, "dog": 3}, first_seed=100)
    write_classes(root / "test", {"cat": 1, "dog": 1}, first_seed=200)
    data = load(str(root), image_size=24, with_test=True)
    assert (data.name, data.class_names) == ("pets", ("cat", "dog"))
    expected = [smooth_image(seed)[:, 4:28] for seed in range(9)]
    assert as_set(data.train.images) == {image.tobytes() for image in expected}
    for image, label in zip(data.train.images, data.train.labels, strict=True):
        index = [np.array_equal(image, other) for other in expected].index(True)
        assert label == (index >= 5)
    assert np.bincount(data.val.labels).tolist() == [2, 3]
    assert data.train.images.dtype == np.uint8 and data.train.labels.dtype == np.int32
    assert data.test is not None and len(data.test.labels) == 2
    assert load(str(root), image_size=24).test is None
    assert "9 training and 5 validation images of 2 classes" in data.describe()


def test_a_train_folder_without_val_is_split(tmp_path):
    write_classes(tmp_path / "train", {"a": 10, "b": 10})
    data = load(str(tmp_path), image_size=8)
    assert np.bincount(data.train.labels).tolist() == [8, 8]
    assert np.bincount(data.val.labels).tolist() == [2, 2]


def test_listing_order_and_foreign_files_do_not_matter(tmp_path, monkeypatch):
    folder = write_classes(tmp_path / "made", {"b": 6, "a": 6})
    first = load(str(folder), image_size=8)
    (folder / "notes.txt").write_text("no image")
    (folder / "a" / "Thumbs.db").write_bytes(b"x")
    (folder / "a" / ".hidden.png").write_bytes(b"x")
    (folder / ".git").mkdir()
    (folder / "__MACOSX").mkdir()
    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda self: reversed(sorted(listed(self))))
    second = load(str(folder), image_size=8)
    assert second.class_names == ("a", "b")
    assert second.content_hash == first.content_hash


def test_validation_images_found_in_train_are_told(tmp_path):
    write_classes(tmp_path / "train", {"a": 4, "b": 4})
    write_classes(tmp_path / "val", {"a": 2, "b": 2}, first_seed=50)
    assert load(str(tmp_path), image_size=8).shared == 0
    copy = tmp_path / "val" / "a" / "copy.png"
    shutil.copy(tmp_path / "train" / "a" / "000.png", copy)
    data = load(str(tmp_path), image_size=8)
    assert data.shared == 1 and "1 validation image is also" in data.describe()


def one_class(root):
    for split in ("train", "val"):
        shutil.rmtree(root / split / "b")


def other_classes(root):
    (root / "val" / "b").rename(root / "val" / "z")


def no_images(root):
    for file in root.rglob("*.png"):
        file.unlink()


def val_alone(root):
    shutil.rmtree(root / "train")


def no_val_images(root):
    for file in (root / "val" / "b").iterdir():
        file.unlink()


def single_image(root):
    shutil.rmtree(root / "val")
    for file in sorted((root / "train" / "b").iterdir())[1:]:
        file.unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (one_class, "has one class, 'a': at least two"),
        (other_classes, r"only in train/: 'b'; only in val/: 'z'"),
        (no_images, "has no images where they are looked for; .*train/<class>"),
        (val_alone, "has val/ but no train/"),
        (no_val_images, "no images of class 'b' in val"),
        (single_image, "'b': fewer than 2 images"),
    ],
)
def test_bad_folders_are_refused_in_one_line(tmp_path, spoil, message):
    write_classes(tmp_path / "train", {"a": 3, "b": 3})
    write_classes(tmp_path / "val", {"a": 2, "b": 2})
    spoil(tmp_path)
    with pytest.raises(ValueError, match=message) as caught:
        load(str(tmp_path), image_size=8)
    assert "\n" not in str(caught.value)


def test_unreadable_images_are_counted_and_five_named(tmp_path, capfd):
    folder = write_classes(tmp_path / "made", {"a": 9, "b": 9})
    for index in range(7):
        file = folder / "a" / f"{index:03}.png"
        file.write_bytes(file.read_bytes()[:200])
    data = load(str(folder), image_size=8)
    assert len(data.train.labels) + len(data.val.labels) == 11
    (row,) = [row for row in data.report.rows if row.fate == "refused"]
    assert (row.what, row.count) == ("damaged PNG", 7)
    assert row.names == tuple(f"a/{i:03}.png (truncated)" for i in range(5))
    assert "7 refused" in data.describe()
    with pytest.raises(
        ValueError, match=r"7 refused, damaged PNG .*, \.\.\.\)"
    ) as caught:
        load(str(folder), image_size=8, strict=True)
    assert "a/004.png" in str(caught.value) and "a/005.png" not in str(caught.value)
    assert capfd.readouterr().err == ""  # decoders' own warnings stay away
    assert not list(Path(os.environ["FTJAX_CACHE"]).rglob("*.partial"))


def test_a_missing_folder_and_an_unknown_name(tmp_path):
    with pytest.raises(ValueError, match="digits, cifar10, food101, stanford_dogs"):
        load("cifar11", image_size=8)
    with pytest.raises(ValueError, match="neither a known .* nor an existing folder"):
        load(str(tmp_path / "nothing"), image_size=8)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="is a file, not a folder"):
        load(str(tmp_path / "file"), image_size=8)


def test_the_second_load_decodes_nothing(tmp_path, cache):
    folder = write_classes(tmp_path / "made", {"a": 6, "b": 6})
    calls = []
    first = load(str(folder), image_size=8, progress=lambda *at: calls.append(at))
    assert calls[-1] == (2, 2) and (10, 10) in calls
    calls.clear()
    moved = folder.rename(tmp_path / "elsewhere")  # named by content, not by place
    again = load(str(moved), image_size=8, progress=lambda *at: calls.append(at))
    assert calls == [] and again.content_hash == first.content_hash
    assert not again.train.images.flags.writeable
    load(str(moved), image_size=9, progress=lambda *at: calls.append(at))
    assert calls


@pytest.mark.parametrize("damage", ["truncate", "flip", "header", "empty", "longer"])
def test_a_damaged_cache_file_is_rebuilt(tmp_path, cache, damage):
    folder = write_classes(tmp_path / "made", {"a": 6, "b": 6})
    first = load(str(folder), image_size=8)
    images = first.train.images.copy()
    files = sorted((cache / "images").iterdir())
    assert len(files) == 2
    for file in files:
        data = bytearray(file.read_bytes())
        if damage == "flip":
            data[200] ^= 1
        elif damage == "header":
            data[20] ^= 255
        elif damage == "longer":
            data += b"x"
        else:
            data = data[: 0 if damage == "empty" else len(data) // 2]
        file.unlink()
        file.write_bytes(data)
    again = load(str(folder), image_size=8)
    assert np.array_equal(again.train.images, images)
    assert again.content_hash == first.content_hash


def test_an_exchanged_image_is_noticed(tmp_path):
    folder = write_classes(tmp_path / "made", {"a": 6, "b": 6})
    before = load(str(folder), image_size=8)
    file = folder / "a" / "000.png"
    status = file.stat()
    file.write_bytes(encode(smooth_image(999)))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert load(str(folder), image_size=8).content_hash != before.content_hash


def test_a_stored_array_opens_with_numpy(tmp_path):
    rows = np.arange(24, dtype=np.uint8).reshape(4, 2, 3)
    path = tmp_path / "deep" / "rows.npy"
    stored = load_or_build(path, dtype="|u1", shape=(4, 2, 3), build_rows=lambda: rows)
    assert np.array_equal(np.load(path), rows) and np.array_equal(stored.array, rows)


def test_a_cache_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    folder = write_classes(tmp_path / "made", {"a": 6, "b": 6})
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ValueError, match="cannot write to the cache folder.*FTJAX_CAC"):
        load(str(folder), image_size=8, cache_dir=tmp_path / "file")


def test_importing_the_package_imports_no_slow_library():
    program = (
        "import sys, ftjax.data; slow = {'tensorflow_datasets', 'sklearn', 'grain', "
        "'cv2', 'flax', 'jax'} & set(sys.modules); sys.exit(str(slow) if slow else 0)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path.cwd())

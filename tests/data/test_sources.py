"""Named sources: digits, and TFDS data sets read without TensorFlow."""

import os
import shutil
import socket
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from ftjax.data import SOURCES, load, load_object_masks
from ftjax.data.decode import decode_image

SHARED = Path(os.environ.get("FTJAX_SHARED", Path(__file__).parents[3] / "shared"))
needs_shared = pytest.mark.skipif(
    not (SHARED / "data").is_dir(), reason=f"no real data at {SHARED / 'data'}"
)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("FTJAX_CACHE", str(folder))
    return folder


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def smooth_image(seed, height=24, width=32):
    coarse = np.random.default_rng(seed).integers(40, 215, (3, 4, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)


def encode(image, kind=".png"):
    done, data = cv2.imencode(kind, image[..., ::-1])
    assert done
    return data.tobytes()


def as_set(images):
    return {image.tobytes() for image in images}


def test_sources_are_the_documented_names():
    assert list(SOURCES) == ["digits", "cifar10", "food101", "stanford_dogs"]


def test_digits_split_1400_to_397(no_network):
    pytest.importorskip("sklearn", reason="digits come with scikit-learn")
    data = load("digits", image_size=16)
    assert data.train.images.shape == (1400, 16, 16, 3)
    assert data.val.images.shape == (397, 16, 16, 3) and data.test is None
    assert np.ptp(np.bincount(data.val.labels)) <= 2
    assert data.class_names == tuple("0123456789")
    corners = data.train.images[:, :2, :2]
    assert data.train.images.max() == 255 and np.median(corners) == 0
    small = load("digits", image_size=16, train_size=1000)
    assert np.bincount(small.train.labels).tolist() == [100] * 10
    assert np.array_equal(small.train.images, data.train.images[:1000])


def test_digits_without_scikit_learn_name_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ValueError, match=r'pip install "ftjax\[demo\]"'):
        load("digits", image_size=8)


class MadeBreeds(tfds.core.GeneratorBasedBuilder):
    """Two classes with the features of stanford_dogs; a split's seeds tell it apart."""

    VERSION = tfds.core.Version("0.2.0")
    pkg_dir_path = None
    first_seeds = {"train": 0, "test": 100}

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "image/filename": tfds.features.Text(),
            "label": tfds.features.ClassLabel(names=["beagle", "samoyed"]),
            "objects": tfds.features.Sequence({"bbox": tfds.features.BBoxFeature()}),
        }
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features)
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(20), "test": self._examples(6, 100)}

    def _generate_examples(self, count):
        yield from self._examples(count, 0)

    def _examples(self, count, first_seed):
        left, top = ((0.0, 0.0, 1.0, 0.5), (0.0, 0.0, 0.5, 1.0))  # halves
        boxes = [{"bbox": tfds.features.BBox(*box)} for box in (left, top)]
        for index in range(count):
            yield (
                index,
                {
                    "image": encode(smooth_image(first_seed + index), ".jpg"),
                    "image/filename": f"{index}.jpg",
                    "label": index % 2,
                    "objects": boxes[: index % 3],
                },
            )


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder in which the made set lies where stanford_dogs would."""
    root = tmp_path_factory.mktemp("tfds")
    tfds.disable_progress_bar()
    builder = MadeBreeds(data_dir=root, file_format="array_record")
    builder.download_and_prepare()
    shutil.move(root / "made_breeds", root / "stanford_dogs")
    return root


def test_a_prepared_set_is_read_without_tensorflow(prepared, no_network, monkeypatch):
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)  # of another test
    data = load("stanford_dogs", data_dir=prepared, image_size=24, with_test=True)
    assert "tensorflow" not in sys.modules
    assert data.class_names == ("beagle", "samoyed")
    assert np.bincount(data.train.labels).tolist() == [8, 8]
    assert np.bincount(data.val.labels).tolist() == [2, 2]
    assert data.test is not None and len(data.test.labels) == 6
    assert "test split kept apart" in data.note and "anew" not in data.note

    def stored(seed):
        jpeg = encode(smooth_image(seed), ".jpg")
        return decode_image(jpeg)[:, 4:28].tobytes()

    labels = {stored(seed): seed % 2 for seed in range(20)}
    pairs = [*zip(*data.train, strict=True), *zip(*data.val, strict=True)]
    assert {image.tobytes(): label for image, label in pairs} == labels
    assert as_set(data.test.images) == {stored(100 + seed) for seed in range(6)}


def test_boxes_of_a_prepared_set_become_masks(prepared):
    """Images of 24 x 32 pixels: the central square starts at column 4."""
    arguments = {"data_dir": prepared, "image_size": 24}
    data = load("stanford_dogs", **arguments)
    masks = load_object_masks("stanford_dogs", **arguments, count=3)
    assert masks.shape == (3, 24, 24) and masks.dtype == bool
    seeds = {
        decode_image(encode(smooth_image(seed), ".jpg"))[:, 4:28].tobytes(): seed
        for seed in range(20)
    }
    for image, mask in zip(data.val.images, masks, strict=False):
        expected = np.zeros((24, 24), bool)
        count = seeds[image.tobytes()] % 3
        expected[:, :12] = count >= 1
        expected[:12] |= count == 2
        np.testing.assert_array_equal(mask, expected)
    assert load_object_masks("digits", image_size=8, count=2) is None


def test_the_environment_names_the_data_folder(prepared, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared))
    assert len(load("stanford_dogs", image_size=8, train_size=4).train.labels) == 4


def test_food101_trains_on_a_tenth_and_keeps_validation_as_test(prepared, tmp_path):
    shutil.copytree(prepared / "stanford_dogs", tmp_path / "food101")
    folder = tmp_path / "food101" / "0.2.0"
    info = (folder / "dataset_info.json").read_text()
    info = info.replace('"name": "test"', '"name": "validation"')
    (folder / "dataset_info.json").write_text(info)
    shard = next(folder.glob("*-test.*"))
    shard.rename(folder / shard.name.replace("-test.", "-validation."))
    data = load("food101", data_dir=tmp_path, image_size=8, with_test=True)
    assert len(data.train.labels) == 2 and len(data.val.labels) == 4
    assert data.test is not None and len(data.test.labels) == 6


def test_a_set_that_is_not_prepared_says_where_and_how(tmp_path, no_network):
    expected = (
        rf"no prepared data set at {tmp_path}/cifar10/3.0.2; .*--data-dir.*"
        r'pip install "ftjax\[prepare\]" && tfds build cifar10 '
    )
    with pytest.raises(ValueError, match=expected) as caught:
        load("cifar10", data_dir=tmp_path, image_size=8)
    assert "\n" not in str(caught.value)


def test_a_package_that_tfds_lacks_is_not_damage(prepared, monkeypatch):
    def lacking(folder):
        raise ModuleNotFoundError("No module named 'six'")

    monkeypatch.setattr(tfds, "builder_from_directory", lacking)
    with pytest.raises(ValueError, match="No module named 'six'.*pip") as caught:
        load("stanford_dogs", data_dir=prepared, image_size=8)
    assert "damaged" not in str(caught.value)


@pytest.mark.parametrize("damage", ["shard gone", "shard cut", "info cut", "tfrecord"])
def test_a_damaged_prepared_set_is_told(prepared, tmp_path, damage):
    shutil.copytree(prepared, tmp_path / "data")
    folder = tmp_path / "data" / "stanford_dogs" / "0.2.0"
    shard = next(folder.glob("*-train.*"))
    info = folder / "dataset_info.json"
    if damage == "shard gone":
        shard.unlink()
    elif damage == "shard cut":
        shard.write_bytes(shard.read_bytes()[:3000])
    elif damage == "info cut":
        info.write_text("{")
    else:
        info.write_text(info.read_text().replace("array_record", "tfrecord"))
    message = "is stored as tfrecord" if damage == "tfrecord" else "incomplete or damag"
    with pytest.raises(ValueError, match=message) as caught:
        load("stanford_dogs", data_dir=tmp_path / "data", image_size=8)
    assert "\n" not in str(caught.value)


@needs_shared
def test_real_cifar10(no_network):
    data_dir = SHARED / "data" / "tfds" / "small"
    data = load(
        "cifar10", data_dir=data_dir, image_size=32, train_size=1000, val_size=500
    )
    assert np.bincount(data.train.labels).tolist() == [100] * 10
    assert np.bincount(data.val.labels).tolist() == [50] * 10
    assert "encoded anew" in data.note  # a JPEG copy of what TFDS stores as PNG
    planes = data.train.images[data.train.labels == 0].mean(axis=(0, 1, 2))
    frogs = data.train.images[data.train.labels == 6].mean(axis=(0, 1, 2))
    assert planes[2] > planes[0] and frogs[0] > frogs[2]  # blue sky: RGB, not BGR


@needs_shared
@pytest.mark.parametrize(("name", "classes"), [("food101_5", 5), ("dogs_10", 10)])
def test_real_folders(name, classes):
    folder = str(SHARED / "data" / name)
    data = load(folder, image_size=64, train_size=10 * classes, val_size=5 * classes)
    assert np.bincount(data.train.labels).tolist() == [10] * classes
    assert np.bincount(data.val.labels).tolist() == [5] * classes
    assert data.shared == 0 and data.train.images.std() > 30

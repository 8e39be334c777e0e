"""A folder in which half of the files are damaged: none ends the run or is trained on.

Formats without checksums cannot tell every damage: a flipped byte of a BMP, or of a
JPEG that stays a valid JPEG, is another image. Here are the damages that leave a trace:
any in a PNG; those of a JPEG that libjpeg has a word about; cuts and missing parts in
the others; and what is no image at all.
"""

import cv2
import made_images as made
import numpy as np
import pytest
from made_images import FORMATS, encode, smooth_image

from ftjax.data import load
from ftjax.data.decode import decode_image, resize_square

CLASSES = "abcd"
LEAVE_A_TRACE = {
    "PNG": made.DAMAGES,
    "JPEG": made.DAMAGES,  # where OpenCV's libjpeg says something
    "WEBP": [made.cut, made.drop_middle, made.text_mode, made.error_page],
    "GIF": [made.cut, made.drop_middle, made.text_mode, made.error_page],
    "AVIF": [made.cut, made.drop_middle, made.text_mode, made.error_page],
    "TIFF": [made.cut, made.drop_middle, made.text_mode, made.error_page],
    "BMP": [made.cut, made.drop_middle, made.error_page],
    "PPM": [made.cut, made.drop_middle, made.error_page],
}


def libjpeg_says(raw, capfd):
    """Whether OpenCV cannot read a JPEG, or its libjpeg prints a warning."""
    capfd.readouterr()
    pixels = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_COLOR_RGB)
    return pixels is None or "JPEG" in capfd.readouterr().err


def damaged(whole, kind, rng, capfd):
    """The file with a damage that leaves a trace, and which one."""
    while True:
        damage = LEAVE_A_TRACE[kind][rng.integers(len(LEAVE_A_TRACE[kind]))]
        bad = damage(whole, rng)
        if bad == whole:
            continue
        if kind == "JPEG" and bad and not libjpeg_says(bad, capfd):
            continue
        return bad, damage.__name__


def check_a_folder_of(count, folder, seed, capfd):
    """`count` damaged files and as many whole ones, of all formats and four classes."""
    rng = np.random.default_rng(seed)
    label_of, whole_pixels = {}, []
    for index in range(2 * count):
        kind = list(FORMATS)[index // 2 % len(FORMATS)]
        label = int(rng.integers(len(CLASSES)))
        raw = encode(smooth_image(index), kind)
        pixels = resize_square(decode_image(raw), 24).tobytes()
        assert pixels not in label_of  # every image can be told from the others
        label_of[pixels] = label
        name = f"{index}{FORMATS[kind][0] if rng.random() < 0.7 else ''}"
        if index % 2:
            whole_pixels.append(pixels)
        else:
            raw, damage = damaged(raw, kind, rng, capfd)
            name = f"{damage} {name}"
        path = folder / CLASSES[label] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(raw)
    capfd.readouterr()
    data = load(str(folder), image_size=24, test_size=8, with_test=True)
    assert capfd.readouterr().err == ""
    seen = set()
    for part in (data.train, data.val, data.test):
        for image, label in zip(part.images, part.labels, strict=True):
            assert image.tobytes() in label_of, "changed pixels"
            assert label_of[image.tobytes()] == label
            seen.add(image.tobytes())
    assert seen >= set(whole_pixels)
    report = data.report
    assert report.files == 2 * count
    left = report.count("refused") + report.count("skipped")
    assert len(seen) + left == 2 * count
    assert left >= 0.97 * count  # a damage may leave all pixels as they were


@pytest.mark.parametrize("seed", [0])
def test_200_damaged_files(tmp_path, monkeypatch, capfd, seed):
    monkeypatch.setenv("FTJAX_CACHE", str(tmp_path / "cache"))
    check_a_folder_of(200, tmp_path / "made", seed, capfd)


@pytest.mark.stress
@pytest.mark.parametrize("seed", range(1, 11))
def test_2000_damaged_files(tmp_path, monkeypatch, capfd, seed):
    monkeypatch.setenv("FTJAX_CACHE", str(tmp_path / "cache"))
    check_a_folder_of(200, tmp_path / "made", seed, capfd)


@pytest.mark.parametrize("kind", FORMATS)
def test_no_damage_ends_the_decoder(kind):
    """Also damages that leave no trace: an image, or None."""
    whole = encode(smooth_image(1), kind)
    rng = np.random.default_rng(1)
    for index in range(40):
        damage = made.DAMAGES[index % len(made.DAMAGES)]
        pixels = decode_image(damage(whole, rng))
        assert pixels is None or (pixels.dtype == np.uint8 and pixels.ndim == 3)

"""What becomes of every kind of file: the right pixels, or the right reason."""

import io
import os
import struct
import sys
import zlib

import cv2
import numpy as np
import pytest
from made_images import FORMATS, encode, smooth_image
from PIL import Image, PngImagePlugin

from ftjax.data import load
from ftjax.data.decode import decode_image, resize_square
from ftjax.data.image_files import read_pixels


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("FTJAX_CACHE", str(folder))
    return folder


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def made_folder(root, names=("a", "b"), count=4):
    for label, name in enumerate(names):
        for index in range(count):
            image = smooth_image(100 * label + index)
            write(root / name / f"{index}.png", encode(image))
    return root


def read_one(tmp_path, name, data, size=24):
    """What becomes of one file beside a made class: (row, its pixels or None)."""
    root = made_folder(tmp_path / "made")
    write(root / "a" / name, data)
    before = {encode(smooth_image(index)) for index in range(4)}
    report, rows = load_all(root, size)
    plain = [resize_square(smooth_image(i), size).tobytes() for i in (0, 1, 2, 3)]
    others = [image for image, label in rows if label == 0]
    others = [image for image in others if image.tobytes() not in plain]
    assert len(before) == 4 and len(others) <= 1
    mine = [r for r in report.rows if any(name in text for text in r.names)]
    return mine, (others[0] if others else None)


def load_all(root, size, **options):
    data = load(str(root), image_size=size, **options)
    pairs = [*zip(*data.train, strict=True), *zip(*data.val, strict=True)]
    return data.report, [(image, int(label)) for image, label in pairs]


def grey_16(image, bits):
    """A grey 16-bit PNG whose values use so many bits."""
    values = image[..., 0].astype(np.uint16)
    return cv2.imencode(".png", values << (bits - 8))[1].tobytes()


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("named", [True, False])
def test_every_format_is_read_by_its_content(tmp_path, kind, named):
    image = smooth_image(7, 24, 24)
    name = "x" + (FORMATS[kind][0] if named else "")
    rows, pixels = read_one(tmp_path, name, encode(image, kind))
    assert {row.fate for row in rows} == {"read"}
    bound = {"JPEG": 6, "AVIF": 6, "GIF": 12}.get(kind, 0)  # lossy; 256 colours
    assert np.abs(pixels.astype(int) - image).mean() <= bound


@pytest.mark.parametrize("name", ["x.jfif", "x.JPE", "x.data", "x.png", "x"])
def test_a_jpeg_is_a_jpeg_whatever_its_name(tmp_path, name):
    image = smooth_image(7, 24, 24)
    rows, pixels = read_one(tmp_path, name, encode(image, "JPEG"))
    assert rows[0].fate == "read" and np.abs(pixels.astype(int) - image).mean() <= 6


def test_heic_is_read_with_the_extra(tmp_path):
    heif = pytest.importorskip("pillow_heif", reason="HEIC is an extra")
    image = smooth_image(7, 32, 32)
    file = heif.from_pillow(Image.fromarray(image))
    buffer = io.BytesIO()
    file.save(buffer, quality=95)
    rows, pixels = read_one(tmp_path, "x.heic", buffer.getvalue(), 32)
    assert rows[0].fate == "read" and np.abs(pixels.astype(int) - image).mean() < 4


def test_heic_without_the_extra_says_how(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    head = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)
    rows, pixels = read_one(tmp_path, "x.heic", head)
    assert pixels is None and rows[0].fate == "refused"
    assert 'pip install "ftjax[heic]"' in rows[0].what


def cmyk(image):
    # Without black, so that the colours go there and back unchanged.
    return Image.merge("CMYK", [Image.fromarray(255 - x) for x in channels(image)])


def channels(image):
    return [*np.moveaxis(image, -1, 0), np.full(image.shape[:2], 255, np.uint8)]


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def animation(image, kind):
    frames = [Image.fromarray(x) for x in (image, 255 - image)]
    options = {"save_all": True, "append_images": frames[1:]}
    if kind == "GIF":
        frames = [frame.convert("L") for frame in frames]
        options["append_images"] = frames[1:]
    return encode(frames[0], kind, **options)


def drawing(colour):
    """A disc in the alpha channel only."""
    stored = np.full((24, 24, 4), colour, np.uint8)
    stored[..., 3] = 0
    cv2.circle(alpha := np.zeros((24, 24), np.uint8), (12, 12), 6, 255, -1)
    stored[..., 3] = alpha
    return encode(Image.fromarray(stored)), alpha


IMAGE = smooth_image(9, 24, 24)
GREY = np.repeat(IMAGE[..., :1], 3, axis=2)


def over_white(colour):
    alpha = drawing(colour)[1][..., None] > 0
    return np.where(alpha, colour, 255).astype(np.uint8).repeat(3, axis=2)


@pytest.mark.parametrize(
    ("what", "data", "expected"),
    [
        ("grey", encode(IMAGE[..., 0]), GREY),
        ("CMYK", encode(cmyk(IMAGE), "TIFF"), IMAGE),
        ("16-bit, grey", grey_16(IMAGE, 16), None),
        ("transparency over white", drawing(0)[0], over_white(0)),
        ("transparency over white", drawing(90)[0], over_white(90)),
        ("turned by EXIF", encode(IMAGE, exif=turned()), np.rot90(IMAGE, -1)),
        ("turned by EXIF", encode(IMAGE, "TIFF", exif=turned()), np.rot90(IMAGE, -1)),
        ("first frame", animation(IMAGE, "GIF"), None),
        ("first frame", animation(IMAGE, "WEBP"), IMAGE),
        ("first frame", animation(IMAGE, "PNG"), IMAGE),
        ("first frame", animation(IMAGE, "TIFF"), IMAGE),
    ],
)
def test_what_is_converted_is_told_and_keeps_its_content(
    tmp_path, what, data, expected
):
    rows, pixels = read_one(tmp_path, "x", data)
    assert [(row.fate, row.what) for row in rows] == [("converted", what)]
    if expected is not None:
        assert np.array_equal(pixels, expected)
    else:
        assert np.abs(pixels.astype(int) - pixels[..., :1]).max() == 0
        assert np.abs(pixels[..., 0].astype(float).mean() - GREY.mean()) < 60


def test_a_white_drawing_is_not_erased_by_the_white_behind_it():
    data, alpha = drawing(255)
    pixels = decode_image(data)
    assert np.array_equal(pixels[..., 0], alpha)


@pytest.mark.parametrize("value", [0, 128, 255])
def test_an_alpha_channel_that_says_nothing_is_dropped(value):
    stored = np.dstack([IMAGE, np.full((24, 24), value, np.uint8)])
    assert np.array_equal(decode_image(encode(Image.fromarray(stored))), IMAGE)
    assert read_pixels(encode(Image.fromarray(stored))).changes == ()


def test_a_palette_and_a_colour_can_be_transparent():
    ink = Image.fromarray((IMAGE[..., 0] // 64 * 64).astype(np.uint8)).convert("P")
    data = encode(ink, transparency=int(np.asarray(ink)[0, 0]))
    clear = np.asarray(ink) == np.asarray(ink)[0, 0]
    assert (decode_image(data)[clear] == 255).all()
    assert (decode_image(data)[~clear] != 255).all()


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_16_bit_files_keep_their_levels(tmp_path, bits):
    """256 levels, spread over the bits that are used, stay 256."""
    ramp = np.arange(576, dtype=np.float64).reshape(24, 24) / 575
    root = made_folder(tmp_path / "made")
    for index in range(4):
        values = np.round(ramp * (2**bits - 1)).astype(np.uint16)
        values[0, 0] = index  # four different files
        write(root / "deep" / f"{index}", cv2.imencode(".png", values)[1].tobytes())
    data = load(str(root), image_size=24)
    assert data.bits == data.report.bits == bits
    images = data.train.images[data.train.labels == 2]
    assert len(np.unique(images)) == 256
    assert np.abs(images[0, 1:, :, 0] - ramp[1:] * 255).max() <= 0.51 + 255 / 2**bits


def test_one_scale_for_all_so_that_darker_stays_darker(tmp_path):
    """10 bits are used by the brightest file; the others have half and a quarter."""
    root = tmp_path / "made"
    for name in ("a", "b"):
        for index, top in enumerate((1023, 511, 255)):
            values = np.full((12, 12), top, np.uint16)
            values[0, :5] = index + 7 * (name == "b")
            data = cv2.imencode(".png", values)[1].tobytes()
            write(root / name / f"{index}.png", data)
    _, whole = load_all(root, 12, val_size=2)
    levels = sorted(int(image[-1, -1, 0]) for image, _ in whole)
    assert levels == [64, 64, 127, 127, 255, 255]
    _, part = load_all(root, 12, val_size=2, train_size=2)  # subsets change nothing
    assert {x.tobytes() for x, _ in part} <= {x.tobytes() for x, _ in whole}


@pytest.mark.parametrize("kind", [".png", ".tiff"])
def test_16_bit_colours_and_their_transparency(kind):
    wide = (IMAGE.astype(np.uint16) * 257)[..., ::-1]
    assert np.array_equal(decode_image(cv2.imencode(kind, wide)[1].tobytes()), IMAGE)
    alpha = np.zeros((24, 24), np.uint16)
    alpha[6:] = 65535
    data = cv2.imencode(kind, np.dstack([wide, alpha]))[1].tobytes()
    expected = np.where(alpha[..., None] > 0, IMAGE, 255)
    assert np.array_equal(decode_image(data), expected)


def test_a_grey_map_is_scaled_by_what_it_declares():
    values = np.arange(144).reshape(12, 12) * 7
    data = b"P5 12 12 1023\n" + values.astype(">u2").tobytes()
    pixels = decode_image(data, bits=16)
    assert np.abs(pixels[..., 0] - values * (255 / 1023)).max() <= 0.51


def bomb():
    """A PNG of 32,000 x 32,000 that says so in its header and holds nothing."""

    def part(kind, content):
        size, check = len(content), zlib.crc32(kind + content)
        return struct.pack(">I", size) + kind + content + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", 32_000, 32_000, 8, 2, 0, 0, 0)
    end = part(b"IDAT", zlib.compress(bytes(100))) + part(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + end


def jpeg_of_size(width, height):
    data = bytearray(encode(smooth_image(1), "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def bad_checksum():
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "some text")
    data = bytearray(encode(IMAGE, pnginfo=info))
    data[data.index(b"some text")] ^= 1
    return bytes(data)


def complained_of():
    """A JPEG with one byte flipped that decoders open, with a word about it."""
    raw = encode(
        np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8), "JPEG"
    )
    return raw[:-40] + bytes([raw[-40] ^ 255]) + raw[-39:]


def float_tiff(channels):
    values = np.float32(IMAGE[..., :channels] / 255)
    return cv2.imencode(".tiff", values)[1].tobytes()


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("x.png", b"", "empty file"),
        ("x.jpg", b"<!DOCTYPE html><html></html>", "no image inside"),
        ("x.png", encode(IMAGE)[:200], "damaged PNG"),
        ("x", encode(IMAGE, "JPEG")[:300], "damaged JPEG"),
        ("x.png", bad_checksum(), "damaged PNG"),
        ("x.jpg", complained_of(), "damaged JPEG"),
        ("x.png", bomb(), "more than 100 megapixels"),
        ("x.jpg", jpeg_of_size(65_000, 65_000), "more than 100 megapixels"),
        ("x.tif", float_tiff(3), "TIFF with pixels of a kind that is not read"),
        ("x.tif", float_tiff(1), "values without a known range"),
    ],
)
def test_what_is_refused_is_named_with_the_reason(tmp_path, capfd, name, data, reason):
    rows, pixels = read_one(tmp_path, name, data)
    assert pixels is None
    assert [(row.fate, row.what, row.count) for row in rows] == [("refused", reason, 1)]
    assert capfd.readouterr().err == ""
    with pytest.raises(ValueError, match=f"--strict.*a/{name}") as caught:
        load(str(tmp_path / "made"), image_size=24, strict=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("notes.txt", b"hello", "no image, by its name and content"),
        ("BM.txt", b"BM is a text", "no image, by its name and content"),
        ("labels.csv", b"P1 2 3", "no image, by its name and content"),
        (".hidden.png", encode(IMAGE), "hidden"),
        ("Thumbs.db", b"\xd0\xcf", "file of another tool"),
        ("more/x.png", encode(IMAGE), "in a sub-folder of a class"),
        ("x.nef", encode(IMAGE, "TIFF"), "TIFF inside a .nef file"),
        ("x.jxl", b"\xff\x0a" + bytes(40), "JPEG XL, which is not read"),
        ("../x.png", encode(IMAGE), "not in the folder of a class"),
    ],
)
def test_what_is_skipped_is_named_with_the_reason(tmp_path, name, data, reason):
    root = made_folder(tmp_path / "made")
    write(root / "a" / name, data)
    report, pairs = load_all(root, 24)
    rows = [row for row in report.rows if row.fate == "skipped"]
    assert len(pairs) == 8 and report.files == 9
    assert [(row.count, len(row.names)) for row in rows] == [(1, 1)]
    assert rows[0].what.startswith(reason)
    assert os.path.normpath(f"a/{name}") == rows[0].names[0]
    with pytest.raises(ValueError, match="--strict"):
        load(str(root), image_size=24, strict=True)


def test_links_and_pipes(tmp_path):
    root = made_folder(tmp_path / "made")
    (root / "a" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(root / "a" / "pipe.png")  # opening it would wait for ever
    write(tmp_path / "elsewhere.png", encode(smooth_image(77)))
    (root / "b" / "link.png").symlink_to(tmp_path / "elsewhere.png")
    report, pairs = load_all(root, 24)
    assert len(pairs) == 9
    found = {row.what: row.names for row in report.rows if row.fate == "skipped"}
    assert found == {
        "broken link": ("a/gone.png",),
        "no regular file": ("a/pipe.png",),
    }


@pytest.mark.skipif(sys.platform == "darwin", reason="its file names are UTF-8")
def test_names_that_are_no_text_are_read_and_can_be_printed(tmp_path):
    names = ["caf\udce9", "caf\udce8", "$x^2$", "[bold]b[]", "two\nlines"]
    root = made_folder(tmp_path / "made", names)
    write(root / names[0] / "[job:x]\udcff\n.png", encode(smooth_image(500)))
    write(root / names[0] / "bad\udcff.png", b"")
    report, pairs = load_all(root, 24)
    data = load(str(root), image_size=24)
    assert len(pairs) == 21 and len(set(data.class_names)) == 5
    shown = [*data.class_names, *report.lines(), data.describe(), str(report.to_json())]
    assert all(text.isprintable() and text.encode() for text in shown)
    counts = np.bincount([label for _, label in pairs])
    by_name = dict(zip(data.class_names, counts.tolist(), strict=True))
    assert by_name["$x^2$"] == by_name["[bold]b[]"] == by_name["two\\nlines"] == 4
    assert sum(count for name, count in by_name.items() if "caf" in name) == 9

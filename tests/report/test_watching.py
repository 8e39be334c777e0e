"""What is written while a sweep runs: event files, and the time it takes."""

import struct
from types import SimpleNamespace

import pandas as pd
import pytest

from ftjax.report.facts import TIME_FILE, time_facts
from ftjax.report.tensorboard import TensorBoard, masked_crc, varint
from ftjax.session import record_forecast, record_time
from ftjax.sweep.events import Epoch, Event

TRIAL = SimpleNamespace(
    id="abc", cut=SimpleNamespace(depth_layers=7), policy="frozen", seed=1
)


def epoch(number, **values):
    numbers = dict.fromkeys(Epoch._fields, float("nan")) | {"epoch": number, **values}
    return Event(TRIAL, "epoch", Epoch(**numbers))


def test_the_checksum_is_that_of_the_format():
    """RFC 3720, appendix B.4: CRC-32C of 32 zeros is aa 36 91 8a."""
    (masked,) = struct.unpack("<I", masked_crc(bytes(32)))
    turned = (masked - 0xA282EAD8) & 0xFFFFFFFF
    assert (turned << 15 | turned >> 17) & 0xFFFFFFFF == 0x8A9136AA
    assert varint(300) == b"\xac\x02"  # protobuf.dev/programming-guides/encoding


def test_tensorboard_reads_the_numbers_of_every_epoch(tmp_path):
    loader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    board = TensorBoard(tmp_path)
    board(Event(TRIAL, "started"))
    board(epoch(1, val_accuracy=0.5, seconds=2.0))
    board(epoch(300, val_accuracy=0.75))
    found = loader.EventAccumulator(str(tmp_path / "007-frozen-seed1-abc"))
    found.Reload()
    assert sorted(found.Tags()["scalars"]) == ["seconds", "val_accuracy"]
    points = [(each.step, each.value) for each in found.Scalars("val_accuracy")]
    assert points == [(1, 0.5), (300, 0.75)]


def test_event_files_have_a_record_per_epoch(tmp_path):
    board = TensorBoard(tmp_path)
    for number in (1, 2):
        board(epoch(number, val_loss=1.5))
    (path,) = tmp_path.glob("007-frozen-seed1-abc/events.out.tfevents.*")
    content, lengths = path.read_bytes(), []
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        assert content[8:12] == masked_crc(content[:8])
        body, crc = content[12 : 12 + length], content[12 + length : 16 + length]
        assert crc == masked_crc(body)
        lengths.append(length)
        content = content[16 + length :]
    assert len(lengths) == 3 and lengths[1] == lengths[2]


def test_the_page_tells_the_time_that_the_console_told(tmp_path):
    trials = pd.DataFrame(
        {"trial": ["a", "a", "b"], "seconds": 2.0, "compile_seconds": 10.0}
    )
    old = time_facts(tmp_path, trials)
    assert old == (("Time of all trials, with compilation", "24 s"),)
    record_forecast(tmp_path, 200.04)
    record_time(tmp_path, seconds=220.4, forecast=190.0)
    assert time_facts(tmp_path, trials) == (
        ("Time in all, with compilation", "220 s"),
        ("Forecast by --plan", "200 s"),
        ("Forecast after the first trial", "190 s"),
    )
    record_time(tmp_path, seconds=3.0, forecast=None)  # all were kept
    assert time_facts(tmp_path, trials)[0][1] == "223 s"
    assert (tmp_path / TIME_FILE).is_file()

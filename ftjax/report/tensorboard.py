"""TensorBoard event files, without TensorFlow: a folder per trial, scalars per epoch.

A file is a sequence of records (length, its checksum, content, its checksum), each a
protocol buffer `Event` (tensorflow/core/util/event.proto, lib/io/record_writer.h).
"""

import os
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path

from ftjax.sweep.events import Event
from ftjax.sweep.trial import Trial

SCALARS = (
    "val_accuracy",
    "val_loss",
    "train_mode_accuracy",
    "train_mode_loss",
    "accuracy",
    "loss",
    "seconds",
)
POLYNOMIAL = 0x82F63B78  # of CRC-32C (Castagnoli), reversed


class TensorBoard:
    """A listener that writes what every epoch has reached.

    Args:
        folder: `tensorboard --logdir` takes it.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._files: dict[str, Path] = {}

    def __call__(self, event: Event) -> None:
        """Adds the numbers of an epoch; other events have none."""
        if event.epoch is None:
            return
        trial = event.trial
        if trial.id not in self._files:
            self._files[trial.id] = self._begin(trial)
        values = {name: getattr(event.epoch, name) for name in SCALARS}
        known = {name: value for name, value in values.items() if value == value}
        with open(self._files[trial.id], "ab") as file:
            file.write(record(scalars(known, step=event.epoch.epoch)))

    def _begin(self, trial: Trial) -> Path:
        cut = trial.cut
        name = f"{cut.depth_layers:03d}-{trial.policy}-seed{trial.seed}-{trial.id}"
        folder = self._folder / name
        folder.mkdir(parents=True, exist_ok=True)
        host = socket.gethostname()
        path = folder / f"events.out.tfevents.{time.time():.0f}.{host}.{os.getpid()}"
        version = field(1, 1, struct.pack("<d", time.time())) + text(
            3, b"brain.Event:2"
        )
        path.write_bytes(record(version))
        return path


def scalars(values: Mapping[str, float], *, step: int) -> bytes:
    """An `Event` with a summary of numbers by tag."""
    summary = b"".join(
        text(1, text(1, tag.encode()) + field(2, 5, struct.pack("<f", value)))
        for tag, value in values.items()
    )
    now = field(1, 1, struct.pack("<d", time.time()))
    return now + field(2, 0, varint(step)) + text(5, summary)


def field(number: int, kind: int, content: bytes) -> bytes:
    """A field of a protocol buffer; kinds: 0 varint, 1 double, 2 bytes, 5 float."""
    return varint(number << 3 | kind) + content


def text(number: int, content: bytes) -> bytes:
    """A field of bytes, text or an inner message."""
    return field(number, 2, varint(len(content)) + content)


def varint(value: int) -> bytes:
    """A whole number of 0 or more, seven bits a byte, the lowest first."""
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def record(content: bytes) -> bytes:
    """One record of an event file."""
    length = struct.pack("<Q", len(content))
    return b"".join([length, masked_crc(length), content, masked_crc(content)])


def masked_crc(content: bytes) -> bytes:
    """CRC-32C as record files store it: turned by 15 bits, and shifted."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc = TABLE[(crc ^ byte) & 255] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    masked = (crc >> 15 | crc << 17) + 0xA282EAD8
    return struct.pack("<I", masked & 0xFFFFFFFF)


def crc_table() -> list[int]:
    """The checksum of every byte."""
    found = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (POLYNOMIAL if value & 1 else 0)
        found.append(value)
    return found


TABLE = crc_table()

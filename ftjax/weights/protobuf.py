"""Protocol buffers as they lie in a file: numbered fields, nothing executed.

Encoding: https://protobuf.dev/programming-guides/encoding. Bytes stay views of the
mapped file, and a size is compared with what is there before memory is taken.
"""

import math
import struct
from dataclasses import dataclass

import numpy as np

VARINT, EIGHT_BYTES, BYTES, FOUR_BYTES = 0, 1, 2, 5
FIXED = {EIGHT_BYTES: 8, FOUR_BYTES: 4}
MOST_FIELDS = 100_000  # of a message; those of weights have some hundred
MOST_AXES = 8
INTEGER = 2**64


@dataclass(frozen=True)
class Message:
    """The fields of a message, by number, each in the order of the file.

    Attributes:
        fields: integers, or views of the bytes of a field.
    """

    fields: dict[int, list[int | memoryview]]

    def views(self, number: int) -> list[memoryview]:
        """A field's bytes, of every time that it occurs."""
        return [v for v in self.fields.get(number, ()) if isinstance(v, memoryview)]

    def messages(self, number: int) -> "list[Message]":
        """A field's messages.

        Raises:
            ValueError: one is damaged.
        """
        return [read_message(view) for view in self.views(number)]

    def message(self, number: int) -> "Message":
        """A field's last message; an empty one if it is not there."""
        views = self.views(number)
        return read_message(views[-1]) if views else Message({})

    def text(self, number: int) -> str:
        """A field's text; empty if it is not there."""
        views = self.views(number)
        return bytes(views[-1][:200]).decode("utf-8", "replace") if views else ""

    def integers(self, number: int) -> list[int]:
        """A field's integers, packed or one by one; signed.

        Raises:
            ValueError: damaged, or too many.
        """
        found: list[int] = []
        for value in self.fields.get(number, ()):
            if isinstance(value, int):
                found.append(value)
                continue
            at = 0
            while at < len(value):
                one, at = read_varint(value, at)
                found.append(one)
                if len(found) > MOST_FIELDS:
                    raise ValueError("damaged: too many integers in a field")
        return [n - INTEGER if n >= INTEGER // 2 else n for n in found]

    def integer(self, number: int, default: int = 0) -> int:
        """A field's last integer."""
        return (self.integers(number) or [default])[-1]

    def number(self, number: int, default: float) -> float:
        """A field's last float32."""
        views = [view for view in self.views(number) if len(view) == 4]
        return struct.unpack("<f", views[-1])[0] if views else default

    def array(self, number: int, dtype: str, shape: list[int]) -> np.ndarray | None:
        """A field's packed values in a shape, as a view; None if it is not there.

        Raises:
            ValueError: the shape does not fit the bytes.
        """
        views = [view for view in self.views(number) if len(view)]
        if not views:
            return None
        kind = np.dtype(dtype)
        if len(views) > 1 or len(shape) > MOST_AXES or min(shape, default=1) < 1:
            raise ValueError(f"damaged: values in the shape {shape[:MOST_AXES]}")
        if math.prod(shape) * kind.itemsize != len(views[0]):
            raise ValueError(
                f"damaged: {len(views[0])} bytes for values in the shape {shape}"
            )
        values = np.frombuffer(views[0], kind).reshape(shape)
        # unaligned arrays are slow, and not zero-copy for JAX
        return values if values.flags.aligned else values.copy()


def read_message(view: memoryview) -> Message:
    """Splits a message into its fields; what is inside them is read when asked for.

    Raises:
        ValueError: truncated, or no message.
    """
    fields: dict[int, list[int | memoryview]] = {}
    at = count = 0
    while at < len(view):
        key, at = read_varint(view, at)
        number, kind = key >> 3, key & 7
        count += 1
        if not 0 < number < 2**29 or count > MOST_FIELDS:
            raise ValueError("damaged: no field of a message")
        value: int | memoryview
        if kind == VARINT:
            value, at = read_varint(view, at)
        elif kind == BYTES or kind in FIXED:
            size = FIXED.get(kind)
            if size is None:
                size, at = read_varint(view, at)
            if size > len(view) - at:
                raise ValueError(
                    f"truncated or damaged: field {number} declares {size} bytes, of "
                    f"which {len(view) - at} are there"
                )
            value = view[at : at + size]
            at += size
        else:
            raise ValueError(f"damaged: field {number} is of the unknown kind {kind}")
        fields.setdefault(number, []).append(value)
    return Message(fields)


def read_varint(view: memoryview, at: int) -> tuple[int, int]:
    """An integer of seven bits a byte, lowest first, and where the next value begins.

    Raises:
        ValueError: it has no end.
    """
    value = 0
    for place, byte in enumerate(view[at : at + 10]):
        value |= (byte & 127) << 7 * place
        if byte < 128:
            return value % INTEGER, at + place + 1
    raise ValueError("truncated or damaged: an integer without end")

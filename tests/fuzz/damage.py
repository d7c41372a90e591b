"""Ways to damage bytes, as plain values: hypothesis shrinks them, a random source makes many.

An `Edit` is kind, place (a share of the length, so that it fits any seed) and a number that the
kind makes use of.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple

from hypothesis import strategies as st

SIZE_MAX = 400_000
"""Bytes; no damage makes more, so that time is spent on odd inputs and not on long ones."""

NUMBERS = (
    0, 1, 2, 3, 4, 7, 8, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF, 0x10000,
    0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF,
)  # fmt: skip

WORDS = (
    b"\xfe\xff\x00\xe0\xff\xff\xff\xff", b"\xfe\xff\x00\xe0\x00\x00\x00\x00",
    b"\xfe\xff\x0d\xe0\x00\x00\x00\x00", b"\xfe\xff\xdd\xe0\x00\x00\x00\x00",
    b"\x08\x00\x40\x11SQ\x00\x00\xff\xff\xff\xff", b"\x40\x00\x75\x02\xff\xff\xff\xff",
    b"\xe0\x7f\x10\x00OB\x00\x00\xff\xff\xff\xff", b"\xe0\x7f\x10\x00OW\x00\x00\x04\x00\x00\x00",
    b"\x28\x00\x08\x00IS\x0a\x002147483647", b"\x28\x00\x10\x00US\x02\x00\xff\xff",
    b"\x08\x00\x05\x00CS\x10\x00\\ISO 2022 IR 87 ", b"\x1b$B", b"\x1b(J", b"\x1b", b"\\", b"^",
    b"=", b"\0", b"\r\n", b"\r\n--", b'"', b"{", b"[", b"]", b"}", b",", b":", b"null", b"1e999",
    b"-0", b"NaN", b"%", b"&", b"*", b"?", b"-", b".", b";", b"UN", b"SQ", b"OB", b"UT", b"  ",
    b"\xff\xd8", b"\xff\x4f\xff\x51", b"\xff\xd9", b"\xed\xa0\x80",
    b"\xf0\x9f\x98\x80", b"\xe2\x80\xae",
)  # fmt: skip


class Edit(NamedTuple):
    """One damage."""

    kind: str
    place: float
    number: int


def _flip(data: bytearray, at: int, number: int) -> None:
    if data:
        data[min(at, len(data) - 1)] = number & 0xFF


def _cut(data: bytearray, at: int, _number: int) -> None:
    del data[at:]


def _remove(data: bytearray, at: int, number: int) -> None:
    del data[at : at + 1 + number % 64]


def _insert(data: bytearray, at: int, number: int) -> None:
    data[at:at] = WORDS[number % len(WORDS)]


def _overwrite(data: bytearray, at: int, number: int) -> None:
    word = WORDS[number % len(WORDS)]
    data[at : at + len(word)] = word


def _number(data: bytearray, at: int, number: int) -> None:
    value = NUMBERS[number % len(NUMBERS)]
    code = ("<I", ">I", "<H", ">H", "<Q")[number // len(NUMBERS) % 5]
    packed = struct.pack(code, value & (0xFFFF if code[1] == "H" else 0xFFFFFFFF))
    data[at : at + len(packed)] = packed


def _repeat(data: bytearray, at: int, number: int) -> None:
    piece = bytes(data[at : at + 1 + number % 97])
    times = min(1 + (number >> 8) % 600, SIZE_MAX // max(len(piece), 1))
    data[at:at] = piece * times


def _move(data: bytearray, at: int, number: int) -> None:
    piece = bytes(data[at : at + 200])
    to = number % (len(data) + 1)
    data[to:to] = piece


KINDS: dict[str, Callable[[bytearray, int, int], None]] = {
    "flip": _flip,
    "cut": _cut,
    "remove": _remove,
    "insert": _insert,
    "overwrite": _overwrite,
    "number": _number,
    "repeat": _repeat,
    "move": _move,
}
_USUAL = ("flip", "flip", "flip", "number", "number", "overwrite", "insert", "remove", "move")
"""What a random source takes; cuts and repetitions more rarely, since they hide the others."""


def damaged(seed: bytes, edits: Sequence[Edit]) -> bytes:
    """Return the seed with all edits, one after the other."""
    data = bytearray(seed)
    for edit in edits:
        KINDS[edit.kind](data, int(edit.place * len(data)), edit.number)
        del data[SIZE_MAX:]
    return bytes(data)


EDITS = st.lists(
    st.builds(
        Edit,
        st.sampled_from(sorted(KINDS)),
        st.floats(0, 1, exclude_max=True),
        st.integers(0, 1 << 20),
    ),
    max_size=12,
)


def random_edits(dice: random.Random) -> list[Edit]:
    """Return a few edits; near the beginning half of the time, where headers are."""
    narrow = dice.random() < 0.5
    edits = []
    for _ in range(dice.choice((1, 1, 2, 3, 5, 9, 20))):
        kind = dice.choice(_USUAL) if dice.random() < 0.93 else dice.choice(sorted(KINDS))
        place = dice.random() ** 3 if narrow else dice.random()
        edits.append(Edit(kind, place, dice.getrandbits(20)))
    return edits

"""Tables for the header walk: which elements are wanted, and how element heads look.

Kept apart from the loops that use them. A table is made once for each byte order, in the form in
which numbers come out of the bytes, so that the loops compare and never convert.

References
----------
PS3.5 7.1.2 (lengths by VR), 7.5 (items); PS3.3 C.7.6.3 (image pixel module).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final, Literal, NamedTuple

from pacsteward.dicom import vrs
from pacsteward.dicom.attributes import INDEXED
from pacsteward.dicom.tags import (
    ACCESSION_NUMBER,
    ITEM,
    ITEM_DELIMITATION_ITEM,
    PHOTOMETRIC_INTERPRETATION,
    REQUEST_ATTRIBUTES_SEQUENCE,
    REQUESTED_PROCEDURE_ID,
    SAMPLES_PER_PIXEL,
    SCHEDULED_PROCEDURE_STEP_ID,
    SEQUENCE_DELIMITATION_ITEM,
    SPECIFIC_CHARACTER_SET,
)

PIXEL_TAGS: Final = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})

UNDEFINED: Final = 0xFFFFFFFF
HEAD: Final = 12
"""Bytes of the longest element head (PS3.5 7.1.2)."""
ITEM_VALUES: Final = frozenset(
    {ACCESSION_NUMBER, SCHEDULED_PROCEDURE_STEP_ID, REQUESTED_PROCEDURE_ID}
)
INDEX_TAGS: Final = frozenset(tag for tags in INDEXED.values() for tag in tags)
_DESCRIBING: Final = frozenset(
    {SPECIFIC_CHARACTER_SET, SAMPLES_PER_PIXEL, PHOTOMETRIC_INTERPRETATION}
)
WANTED: Final = INDEX_TAGS | ITEM_VALUES | _DESCRIBING
# Everything that the loops must not simply pass over. Pixel data and the sequence are looked at
# where they lie; zero is the tag of a group length that no data set may have, or of padding.
_MARKED: Final = PIXEL_TAGS | {
    REQUEST_ATTRIBUTES_SEQUENCE, ITEM, ITEM_DELIMITATION_ITEM, SEQUENCE_DELIMITATION_ITEM, 0,
}  # fmt: skip

VR_LETTERS: Final = frozenset(vr.encode() for vr in vrs.ALL)


class Order(NamedTuple):
    """One byte order: how heads unpack, and tables in the form in which they unpack.

    A tag is two 16-bit numbers. Read as one little endian 32-bit number its halves are swapped,
    so the tables are swapped once instead of every tag. The two letters of a VR unpack as one
    number too, which finds the length of its head in ``heads`` (0: no such VR).
    """

    explicit: struct.Struct
    implicit: struct.Struct
    long: struct.Struct
    heads: bytes
    vrs: dict[int, str]
    """The letters of a VR; none for 0."""
    unknown: int
    """UN, as it unpacks."""
    special: dict[int, int]
    """Tags that are wanted, and 0 for those that need a closer look."""
    marked: dict[int, int]
    """The latter alone."""
    prefix: str
    """Of the codes of `struct`."""
    name: Literal["little", "big"]


def swap(tag: int) -> int:
    """Return a tag with its group and element numbers exchanged."""
    return (tag & 0xFFFF) << 16 | tag >> 16


def _order(prefix: str, as_unpacked: Callable[[int], int]) -> Order:
    codes = {vr: struct.unpack(f"{prefix}H", vr.encode())[0] for vr in vrs.ALL}
    heads = bytearray(1 << 16)
    for vr, code in codes.items():
        heads[code] = 8 if vr in vrs.SHORT_LENGTH else HEAD
    marked = {as_unpacked(tag): 0 for tag in _MARKED}
    return Order(
        struct.Struct(f"{prefix}IHH"),
        struct.Struct(f"{prefix}II"),
        struct.Struct(f"{prefix}I"),
        bytes(heads),
        {code: vr for vr, code in codes.items()} | {0: ""},
        codes["UN"],
        {as_unpacked(tag): tag for tag in WANTED} | marked,
        marked,
        prefix,
        "little" if prefix == "<" else "big",
    )


LITTLE: Final = _order("<", swap)
BIG: Final = _order(">", int)

"""What a search found once, cut down to the bytes that matter; each by its story."""

from __future__ import annotations

import struct
import zlib

import pytest

from tests.fuzz.targets import BY_NAME
from tests.fuzz.watch import watched


def _deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


EXPLICIT = b"\1"
"""The byte before a data set that says how it is encoded; see `seeds.SYNTAXES`."""

OPEN_SEQUENCE = struct.pack("<HH2sHI", 0x08, 0x1140, b"SQ", 0, 0xFFFFFFFF)
SEQUENCE_END = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)

FOUND = {
    "a deflated data set that ends with a sequence was struct.error": (
        "deflated",
        _deflated(OPEN_SEQUENCE + SEQUENCE_END),
    ),
    "pixels of 41,192 bits were a KeyError when their bytes were swapped": (
        "elements",
        EXPLICIT
        + struct.pack("<HH2sHH", 0x28, 0x100, b"US", 2, 41_192)
        + struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OW", 0, 2)
        + b"ab",
    ),
    "a body that begins with an empty line is none, however it is cut": (
        "multipart",
        b"\n\xfe\xff\x00\xe0\x00\x00\x00\x00\nx\r\n--B--\r\nepilogue",
    ),
}


@pytest.mark.parametrize("story", FOUND)
def test_r12_what_was_found_once_is_read_or_refused(story: str) -> None:
    name, data = FOUND[story]
    watched(BY_NAME[name], data)

"""Colours of PALETTE COLOR images from their look-up tables, plain or segmented.

What enters are stored values and the attributes that hold the tables; what leaves is an array of
bytes (rows, columns, 3).

References
----------
PS3.3 C.7.6.3.1.5 and C.7.6.3.1.6 (descriptors and data), C.7.9.2 (segmented tables).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

from pacsteward.base.errors import Exhausted, Invalid
from pacsteward.base.late import late
from pacsteward.dicom.elements import Attributes

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
else:
    np = late("numpy")

_DESCRIPTORS: Final = (0x00281101, 0x00281102, 0x00281103)
_DATA: Final = (0x00281201, 0x00281202, 0x00281203)
_SEGMENTED_DATA: Final = (0x00281221, 0x00281222, 0x00281223)
_NAMES: Final = ("red", "green", "blue")
_ENTRIES_MAX: Final = 65536


def palette_rgb(
    values: npt.NDArray[Any], attributes: Attributes, *, is_signed: bool = False
) -> npt.NDArray[np.uint8]:
    """Return the colours of stored values.

    Parameters
    ----------
    values
        Shape ``(rows, columns)``.
    attributes
        The level that holds the tables.
    is_signed
        Pixel Representation; decides the sign of the first value mapped.

    Raises
    ------
    Invalid
        When a table is missing or shorter than its descriptor says.
    """
    colours = np.empty((*values.shape, 3), np.uint8)
    for index in range(3):
        first, table = _table(attributes, index, is_signed)
        position = np.clip(values.astype(np.int64) - first, 0, len(table) - 1)
        colours[:, :, index] = table[position]
    return colours


def _table(
    attributes: Attributes, index: int, is_signed: bool
) -> tuple[int, npt.NDArray[np.uint8]]:
    """Return the first value mapped and the table of one colour, as bytes."""
    descriptor = attributes.words(_DESCRIPTORS[index])
    if len(descriptor) != 3:
        raise _missing(index, "its descriptor is missing")
    # Unsigned whatever the VR says; only the middle one may be negative.
    count = (descriptor[0] & 0xFFFF) or _ENTRIES_MAX
    first = descriptor[1]
    if is_signed and first > 32767:
        first -= 65536
    bits = descriptor[2] & 0xFFFF
    raw = attributes.raw(_DATA[index])
    if raw is not None:
        return first, _plain(attributes, index, count, bits, raw)
    segments = attributes.raw(_SEGMENTED_DATA[index])
    if segments is None:
        raise _missing(index, "its data are missing")
    return first, _expanded(attributes, index, count, bits, segments)


def _plain(
    attributes: Attributes, index: int, count: int, bits: int, raw: bytes
) -> npt.NDArray[np.uint8]:
    if len(raw) >= count * 2:
        return _as_bytes(np.array(attributes.words(_DATA[index])[:count]) & 0xFFFF, bits)
    if len(raw) >= count:
        # Eight bits an entry, packed two to a word (PS3.3 C.7.6.3.1.6).
        return np.frombuffer(raw, np.uint8, count)
    raise _missing(index, f"{len(raw)} bytes are too few for {count} entries")


def _as_bytes(entries: npt.NDArray[Any], bits: int) -> npt.NDArray[np.uint8]:
    """Return entries as bytes.

    Descriptors say 16 bits and some writers fill the low byte only; then shifting would draw
    black.
    """
    if bits > 8 and int(entries.max(initial=0)) > 255:
        entries = entries >> 8
    return entries.astype(np.uint8)


def _expanded(
    attributes: Attributes, index: int, count: int, bits: int, raw: bytes
) -> npt.NDArray[np.uint8]:
    """Return the table that segments describe (PS3.3 C.7.9.2)."""
    if bits > 8:
        codes: tuple[int, ...] = tuple(
            word & 0xFFFF for word in attributes.words(_SEGMENTED_DATA[index])
        )
    else:
        codes = tuple(raw)
    entries = _Segments(codes, wide=bits > 8).expand()
    if len(entries) < count:
        raise _missing(index, f"its segments make {len(entries)} of {count} entries")
    return _as_bytes(np.array(entries[:count]), bits)


class _Segments:
    """Reads the little language of segmented tables: discrete, linear, indirect."""

    def __init__(self, codes: tuple[int, ...], *, wide: bool) -> None:
        self._codes = codes
        self._wide = wide
        self._entries: list[int] = []
        self._starts: list[int] = []

    def expand(self) -> list[int]:
        position = 0
        # A trailing zero byte pads to an even length.
        while position + 2 < len(self._codes):
            self._starts.append(position)
            position = self._segment(position, may_refer=True)
        return self._entries

    def _segment(self, position: int, *, may_refer: bool) -> int:
        codes = self._codes
        if position + 2 >= len(codes):
            raise _bad_segment()
        kind, length = codes[position], codes[position + 1]
        if len(self._entries) + length > _ENTRIES_MAX:
            raise Exhausted(
                "The image was not rendered.",
                why=f"A segmented palette has more than {_ENTRIES_MAX} entries.",
                remedy="Retrieve the object as it is stored.",
            )
        if kind == 0 and position + 2 + length <= len(codes):
            self._entries.extend(codes[position + 2 : position + 2 + length])
            return position + 2 + length
        if kind == 1 and self._entries and length:
            first, last = self._entries[-1], codes[position + 2]
            steps = np.linspace(first, last, length + 1)[1:]
            self._entries.extend(np.rint(steps).astype(int).tolist())
            return position + 3
        if kind == 2 and may_refer:
            return self._indirect(position, length)
        raise _bad_segment()

    def _indirect(self, position: int, count: int) -> int:
        """Repeat earlier segments; the offset counts bytes (PS3.3 C.7.9.2.3)."""
        if self._wide:
            low, high = self._codes[position + 2 : position + 4]
            offset = (low | high << 16) // 2
        else:
            offset = struct.unpack("<I", bytes(self._codes[position + 2 : position + 6]))[0]
        if offset not in self._starts:
            raise _bad_segment()
        first = self._starts.index(offset)
        for start in self._starts[first : first + count]:
            self._segment(start, may_refer=False)
        return position + (4 if self._wide else 6)


def _bad_segment() -> Invalid:
    return Invalid(
        "The image was not rendered.",
        why="A segmented palette is damaged.",
        remedy="Retrieve the object as it is stored.",
    )


def _missing(index: int, detail: str) -> Invalid:
    return Invalid(
        "The image was not rendered.",
        why=f"It has no usable {_NAMES[index]} palette: {detail}.",
        remedy="Retrieve the object as it is stored.",
    )

"""Deflated data sets, inflated piece by piece with a bound on what comes out.

In Deflated Explicit VR Little Endian the whole data set is one raw deflate stream (PS3.5 A.5).
A few kilobytes of it can stand for gigabytes, by accident or by malice, so it is never inflated
at once: the header reader walks over `InflatingSource`, which holds one window and forgets what
lies behind it.

References
----------
PS3.5 A.5; RFC 1951.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

from pacsteward.base.errors import Invalid
from pacsteward.dicom.fragments import Buffer, Fragments

SIZE_MAX: Final = 4 << 30
"""More than 4 GiB cannot be an object: its longest value has a 32-bit length."""

RATIO_MAX: Final = 400
"""Beyond `RATIO_FROM` bytes a data set may be this many times its deflated size. Deflate itself
ends near 1,032; images of patients stay below ten, black frames among them below a hundred."""

RATIO_FROM: Final = 64 << 20

_PIECE: Final = 1 << 18


def inflate(
    data: Fragments, *, size_max: int = SIZE_MAX, ratio_max: int = RATIO_MAX
) -> Iterator[bytes]:
    """Yield a deflated data set in pieces of at most 256 KiB.

    Raises
    ------
    Invalid
        When it is damaged, cut short, or larger than the limits allow.
    """
    inflater = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
    produced = 0
    limit = min(size_max, max(RATIO_FROM, data.size * ratio_max))
    for part in data:
        rest: Buffer = part
        while len(rest) and not inflater.eof:
            piece = _inflate_piece(inflater, rest)
            rest = inflater.unconsumed_tail
            produced += len(piece)
            if produced > limit:
                raise Invalid(
                    "The deflated data set is too large.",
                    why=f"Its {data.size} bytes stand for more than {limit}.",
                    remedy="Send it in Explicit VR Little Endian.",
                )
            if piece:
                yield piece
    while not inflater.eof and (piece := _inflate_piece(inflater, b"")):
        produced += len(piece)
        yield piece
    if not inflater.eof:
        raise Invalid(
            f"The data set is cut short at offset {produced}.",
            why="Its deflate stream has no end.",
            remedy="Send the object again.",
        )


def _inflate_piece(inflater: zlib._Decompress, rest: Buffer) -> bytes:
    try:
        return inflater.decompress(rest, _PIECE)
    except zlib.error as error:
        raise Invalid(
            "The deflated data set is damaged.",
            why=f"Inflating it failed: {error}.",
            remedy="Have it corrected where it was made.",
        ) from error


class InflatingSource:
    """A deflated data set as a `ByteSource`, read forwards only."""

    __slots__ = ("_at_end", "_held", "_pieces", "_start")

    def __init__(
        self, data: Fragments, *, size_max: int = SIZE_MAX, ratio_max: int = RATIO_MAX
    ) -> None:
        self._pieces = inflate(data, size_max=size_max, ratio_max=ratio_max)
        self._held = bytearray()
        self._start = 0
        """Offset of the first byte held; bytes before it are forgotten."""
        self._at_end = False

    @property
    def size(self) -> int:
        """How many bytes were inflated so far."""
        return self._start + len(self._held)

    def window(self, offset: int, length: int) -> bytes:
        """Return up to ``length`` bytes from ``offset`` on; forgets what is before."""
        self._inflate_to(offset + length, keep_from=offset)
        begin = offset - self._start
        return bytes(self._held[begin : begin + length]) if begin >= 0 else b""

    def reaches(self, offset: int) -> bool:
        """Whether there are at least ``offset`` bytes; forgets what is before."""
        return self._inflate_to(offset, keep_from=offset)

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly ``length`` bytes from ``offset`` on; forgets what is before."""
        if not self._inflate_to(offset + length, keep_from=offset):
            raise Invalid(
                f"The data set is cut short at offset {self.size}.",
                why=f"Bytes {offset} to {offset + length} were to be read.",
                remedy="Ask the sender for the complete object.",
            )
        return self.window(offset, length)

    def _inflate_to(self, offset: int, *, keep_from: int) -> bool:
        """Inflate until there are ``offset`` bytes; return whether there are."""
        while self.size < offset and not self._at_end:
            self._forget(keep_from)
            piece = next(self._pieces, None)
            if piece is None:
                self._at_end = True
            else:
                self._held += piece
        self._forget(keep_from)
        return self.size >= offset

    def _forget(self, offset: int) -> None:
        surplus = min(offset - self._start, len(self._held))
        # Moving the rest to the front for every element would be quadratic work.
        if surplus > _PIECE or (surplus > 0 and surplus == len(self._held)):
            del self._held[:surplus]
            self._start += surplus

"""Range reads of a data set that is deflated as a whole, with bounds on what comes out.

`inflate` walks over an arriving object; here a stored one is read for its frames. What enters is a
range reader over the deflated bytes, what leaves are ranges of the inflated data set. Deflate has
no way in but its beginning, so what lies before a range is inflated and let go.

References
----------
PS3.5 A.5; RFC 1951.
"""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from pacsteward.base.disk_failure import speaking
from pacsteward.base.errors import Exhausted, Invalid
from pacsteward.dicom.elements import HEADER_MAX, DataSetReader, RangeReader
from pacsteward.dicom.inflate import RATIO_FROM, RATIO_MAX, SIZE_MAX

IN_MEMORY_BYTES: Final = 8 << 20
"""A larger data set is inflated into a file."""

_INFLATE_CHUNK: Final = 1 << 20


def inflated_header(read: RangeReader, size: int) -> DataSetReader:
    """Return a reader over the inflated data set of which only the beginning is at hand.

    The size is not known before all is inflated, so it is taken as the limit; a frame that is
    not there is found out when it is read.
    """
    return _HeaderReader(_Inflated(read, size))


class _HeaderReader(DataSetReader):
    """A reader that finds out where the data set ends by coming there, since no length says it."""

    __slots__ = ("_inflated",)

    def __init__(self, inflated: _Inflated) -> None:
        super().__init__(inflated.read, SIZE_MAX)
        self._inflated = inflated

    def is_over_at(self, offset: int) -> bool:
        is_over = not self._read(offset, 1)
        if is_over and self._inflated.is_cut_short:
            # Between two elements, it may be: what would have followed is not known to be missing.
            raise cannot_inflate("it ends early")
        return is_over


class _Inflated:
    """Range reads over a deflated data set; keeps what it has inflated, up to `HEADER_MAX`."""

    def __init__(self, read: RangeReader, size: int) -> None:
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        self._chunks = _pieces(self._inflater, read, size)
        self._data = bytearray()

    @property
    def is_cut_short(self) -> bool:
        """Whether the stream has not come to its own end (RFC 1951 3.2.3, BFINAL)."""
        return not self._inflater.eof

    def read(self, offset: int, length: int) -> bytes:
        while len(self._data) < offset + length:
            chunk = next(self._chunks, None)
            if chunk is None:
                break
            self._data += chunk
            if len(self._data) > HEADER_MAX:
                raise Exhausted(
                    "The image was not read.",
                    why=f"Its attributes take more than {HEADER_MAX} bytes before the pixel data.",
                    remedy="Retrieve the object as it is stored.",
                )
        return bytes(self._data[offset : offset + length])


def inflated_pieces(read: RangeReader, size: int) -> Iterator[bytes]:
    """Yield the inflated data set in pieces, bounded in size and in memory (PS3.5 A.5).

    Of a stream that is cut short, as much as there is.
    """
    return _pieces(zlib.decompressobj(-zlib.MAX_WBITS), read, size)


def _pieces(inflater: zlib._Decompress, read: RangeReader, size: int) -> Iterator[bytes]:
    limit = min(SIZE_MAX, max(RATIO_FROM, size * RATIO_MAX))
    total = 0
    try:
        for position in range(0, size, _INFLATE_CHUNK):
            packed = read(position, min(_INFLATE_CHUNK, size - position))
            # An empty tail may still have output waiting, so the last piece decides.
            while piece := inflater.decompress(packed, _INFLATE_CHUNK):
                total += len(piece)
                if total > limit:
                    raise _inflates_too_much(limit)
                yield piece
                packed = inflater.unconsumed_tail
    except zlib.error as error:
        raise cannot_inflate(str(error)) from error


def inflate_range(read: RangeReader, size: int, offset: int, length: int) -> bytes:
    """Return a range of the inflated data set; what lies before it is inflated and let go."""
    pieces: list[bytes] = []
    position = 0
    for piece in inflated_pieces(read, size):
        start = max(offset - position, 0)
        pieces.append(piece[start : max(offset + length - position, 0)])
        position += len(piece)
        if position >= offset + length:
            break
    data = b"".join(pieces)
    if len(data) != length:
        raise cannot_inflate("it ends early")
    return data


class InflatedFile:
    """Range reads over a deflated data set that was inflated once; `close` frees it.

    A small one stays in memory, a larger one goes into a file without a name.

    Parameters
    ----------
    folder
        Where the file is made; None for the system's folder of temporary files.

    Raises
    ------
    Invalid
        The stream is damaged.
    Exhausted
        It becomes larger than the limits allow, or the disk is full.
    Unavailable
        The disk failed.
    """

    def __init__(self, read: RangeReader, size: int, folder: Path | None = None) -> None:
        # Not in a with block: it lives as long as this object, and `close` ends both.
        self._file = tempfile.SpooledTemporaryFile(  # noqa: SIM115
            IN_MEMORY_BYTES, dir=None if folder is None else str(folder)
        )
        self.size = 0
        try:
            with speaking("The data set was not inflated."):
                for piece in inflated_pieces(read, size):
                    self._file.write(piece)
                    self.size += len(piece)
                # Else the last bytes would meet the full disk when somebody reads.
                self._file.flush()
        except BaseException:
            with suppress(OSError):  # what a full disk has not taken, nobody wants any more
                self._file.close()
            raise

    def read(self, offset: int, length: int) -> bytes:
        """Return a range, shorter at the end."""
        self._file.seek(offset)
        return self._file.read(length)

    def close(self) -> None:
        """Free the memory or the file."""
        self._file.close()


def inflated(read: RangeReader, size: int, size_max: int) -> bytes:
    """Return a whole deflated data set inflated.

    Raises
    ------
    Invalid
        When the stream is damaged.
    Exhausted
        When it becomes larger than ``size_max``.
    """
    data = bytearray()
    for piece in inflated_pieces(read, size):
        data += piece
        if len(data) > size_max:
            raise _inflates_too_much(size_max)
    return bytes(data)


def _inflates_too_much(limit: int) -> Exhausted:
    return Exhausted(
        "The data set was not inflated.",
        why=f"It becomes more than {limit} bytes.",
        remedy="Retrieve the object as it is stored.",
    )


def cannot_inflate(detail: str) -> Invalid:
    """Return the error for a damaged stream, with what is wrong with it."""
    return Invalid(
        "The image was not read.",
        why=f"Its deflated stream is damaged ({detail}).",
        remedy="Ask the sender for the object again.",
    )

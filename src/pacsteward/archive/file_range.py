"""A part of a file, read as if it were in memory.

Everything that reads stored bytes here does it with plain reads, not with a mapped file: a bad
sector is then an `OSError` of one read, and not a signal that ends the process.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from pacsteward.base.errors import Invalid
from pacsteward.dicom.fragments import Buffer, Fragments

_CHUNK: Final = 1 << 20


class FileRange(Fragments):
    """Bytes of an open file, offered as `Fragments` offers buffers.

    Parameters
    ----------
    descriptor
        Stays open while this is used.
    offset, size
        Which part; None is up to the end.
    """

    __slots__ = ("_descriptor", "_offset")

    def __init__(self, descriptor: int, offset: int = 0, size: int | None = None) -> None:
        super().__init__(())
        self._descriptor = descriptor
        self._offset = offset
        self._size = os.fstat(descriptor).st_size - offset if size is None else size

    def __iter__(self) -> Iterator[Buffer]:
        return self.slices()

    def read(self, offset: int, length: int) -> Buffer:
        """Return exactly ``length`` bytes from ``offset`` on.

        Raises
        ------
        Invalid
            When the data end before that.
        OSError
            The disk failed.
        """
        if offset < 0 or length < 0 or offset + length > self._size:
            raise self._cut_short(offset, length)
        found = os.pread(self._descriptor, length, self._offset + offset)
        while len(found) < length:
            more = os.pread(
                self._descriptor, length - len(found), self._offset + offset + len(found)
            )
            if not more:
                raise self._cut_short(offset, length)
            found += more
        return found

    def slices(self, offset: int = 0, length: int | None = None) -> Iterator[Buffer]:
        """Yield the range in pieces; one beyond the end yields what there is."""
        end = self._size if length is None else min(offset + length, self._size)
        while offset < end:
            piece = self.read(offset, min(_CHUNK, end - offset))
            yield piece
            offset += len(piece)

    def _cut_short(self, offset: int, length: int) -> Invalid:
        return Invalid(
            f"The data set is cut short at offset {self._size}.",
            why=f"Bytes {offset} to {offset + length} were to be read.",
            remedy="Ask the sender for the complete object.",
        )

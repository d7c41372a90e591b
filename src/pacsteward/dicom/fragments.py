"""A data set that lies in several buffers, read as if it were one.

An object arrives in pieces (PDVs, chunks of a request body) and is kept in them: joining half a
megabyte to read four kilobytes of header would cost more than reading it. `Fragments` answers
reads by offset, without a copy where one piece covers the range.

`ByteSource` is what the header reader needs of its input; a deflated data set offers the same
(`inflate.InflatingSource`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Protocol

from pacsteward.base.errors import Invalid

Buffer = bytes | memoryview


class ByteSource(Protocol):
    """Bytes that are read forwards, by offset."""

    @property
    def size(self) -> int:
        """How many bytes there are, as far as is known."""
        ...

    def window(self, offset: int, length: int) -> bytes:
        """Return up to ``length`` bytes from ``offset`` on, fewer only at the end."""
        ...

    def reaches(self, offset: int) -> bool:
        """Whether there are at least ``offset`` bytes."""
        ...

    def read(self, offset: int, length: int) -> Buffer:
        """Return exactly ``length`` bytes, or raise `Invalid`."""
        ...


class Fragments:
    """Random access over a list of buffers, without joining them.

    Parameters
    ----------
    parts
        In order. They must not change while this object lives.
    """

    __slots__ = ("_ends", "_parts", "_size")

    def __init__(self, parts: Sequence[Buffer]) -> None:
        self._parts = tuple(filter(len, parts))
        self._ends = tuple(accumulate(map(len, self._parts)))
        self._size = self._ends[-1] if self._ends else 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Buffer]:
        return iter(self._parts)

    @property
    def size(self) -> int:
        """How many bytes there are."""
        return self._size

    @property
    def parts(self) -> tuple[Buffer, ...]:
        """The buffers that are not empty."""
        return self._parts

    def reaches(self, offset: int) -> bool:
        """Whether there are at least ``offset`` bytes."""
        return offset <= self._size

    def read(self, offset: int, length: int) -> Buffer:
        """Return exactly ``length`` bytes from ``offset`` on.

        Raises
        ------
        Invalid
            When the data end before that.
        """
        if offset < 0 or length < 0 or offset + length > self._size:
            raise Invalid(
                f"The data set is cut short at offset {self._size}.",
                why=f"Bytes {offset} to {offset + length} were to be read.",
                remedy="Ask the sender for the complete object.",
            )
        if not length:
            return b""
        index = bisect_right(self._ends, offset)
        part = self._parts[index]
        start = offset - self._ends[index] + len(part)
        if start + length <= len(part):
            return part[start : start + length]
        return b"".join(self.slices(offset, length))

    def window(self, offset: int, length: int) -> bytes:
        """Return up to ``length`` bytes from ``offset`` on as `bytes`, fewer only at the end."""
        available = min(length, self._size - offset)
        return bytes(self.read(offset, available)) if available > 0 else b""

    def slices(self, offset: int = 0, length: int | None = None) -> Iterator[Buffer]:
        """Yield the range as pieces of the buffers, without a copy of memoryviews.

        A range beyond the end yields what there is.
        """
        end = self._size if length is None else min(offset + length, self._size)
        index = bisect_right(self._ends, offset)
        while offset < end:
            part = self._parts[index]
            start = offset - self._ends[index] + len(part)
            stop = min(len(part), start + end - offset)
            yield part if stop - start == len(part) else part[start:stop]
            offset += stop - start
            index += 1

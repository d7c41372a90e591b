"""``multipart/related``: written for answers, read for STOW-RS while it arrives.

Writing is three small texts around payloads that somebody else streams: `Writer.head` before each
part, `Writer.gap` after it, `Writer.end` at the close. Reading is a push parser without any I/O:
bytes in, events out (`PartBegin`, `PartData`, `PartEnd`, `End`). Data are views into what came in;
only what might be the beginning of a boundary is held back.

References
----------
PS3.18 8.7.8 (multipart media types), 10.5 (Store transaction); RFC 2046 5.1.1 (boundaries: the
line break before one belongs to it); RFC 2387 (multipart/related).
"""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from pacsteward.base.errors import Invalid
from pacsteward.base.memory import found_in
from pacsteward.dicom.web.errors import TooLarge
from pacsteward.dicom.web.negotiation import MULTIPART_RELATED, MediaType

PARTS_MAX: Final = 10_000
BOUNDARY_CHARACTERS_MAX: Final = 256
"""RFC 2046 5.1.1 allows 70; Orthanc sends 73, two UUIDs with a hyphen between them."""
PADDING_BYTES_MAX: Final = 256
PART_HEADER_BYTES_MAX: Final = 64 * 1024
_HEADERS_MAX: Final = 100


# --- writing ------------------------------------------------------------------------------------


class Writer:
    """Writes one ``multipart/related`` payload.

    The order is ``head payload gap head payload gap … end``, where `gap` is the line break that
    belongs to the next boundary. Sizes are known before anything is sent, so that an answer can
    carry its length.

    Parameters
    ----------
    media_type
        Of the parts.
    boundary
        For tests; a random one by default, which no payload holds by chance.
    """

    gap: Final = b"\r\n"

    def __init__(self, media_type: str, boundary: str | None = None) -> None:
        self.boundary = boundary or f"pacsteward-{os.urandom(16).hex()}"
        # Quoted type: its slash is no token character. The boundary needs no quotes, and some
        # clients look for it without.
        self.content_type = f'{MULTIPART_RELATED}; type="{media_type}"; boundary={self.boundary}'
        self.end = f"--{self.boundary}--\r\n".encode("ascii")

    def head(self, headers: Mapping[str, str]) -> bytes:
        """Return what stands before a payload: delimiter, header lines, empty line."""
        lines = [f"--{self.boundary}", *(f"{name}: {value}" for name, value in headers.items())]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


# --- reading ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PartBegin:
    """A part begins; its header lines by lower-case name."""

    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PartData:
    """The next bytes of the part, a view into what was fed."""

    data: memoryview


@dataclass(frozen=True, slots=True)
class PartEnd:
    """The part is whole."""


@dataclass(frozen=True, slots=True)
class End:
    """The closing boundary was seen; nothing that follows counts."""


Event = PartBegin | PartData | PartEnd | End


def boundary_of(media_type: MediaType) -> str:
    """Return the boundary that a ``Content-Type`` names.

    Raises
    ------
    Invalid
        It names none, or one that no reader could look for.
    """
    boundary = media_type.parameters.get("boundary", "")
    is_usable = 1 <= len(boundary) <= BOUNDARY_CHARACTERS_MAX
    if not is_usable or not boundary.isascii() or not boundary.isprintable():
        raise Invalid(
            "The body cannot be taken apart.",
            why="Its Content-Type names no boundary, or one that is too long (RFC 2046 5.1.1).",
            remedy='Send multipart/related; type="application/dicom"; boundary=….',
        )
    return boundary


class Reader:
    """Takes a ``multipart/related`` body apart while it arrives.

    Parameters
    ----------
    boundary
        From `boundary_of`.
    max_parts
        How many parts one body may have.
    """

    def __init__(self, boundary: str, *, max_parts: int = PARTS_MAX) -> None:
        self._delimiter = b"\r\n--" + boundary.encode("ascii")
        self._max_parts = max_parts
        self._parts = 0
        self._held = b""
        """What came last and cannot be told yet: the beginning of a delimiter, or of a head."""
        self._state = _PREAMBLE
        self._has_begun = False

    @property
    def is_complete(self) -> bool:
        """Whether the closing boundary was seen."""
        return self._state == _EPILOGUE

    def feed(self, data: bytes | memoryview) -> Iterator[Event]:
        """Take the next bytes of the body and give the events that they complete.

        Parameters
        ----------
        data
            Memory must stay unchanged until the next bytes were taken, and where it is given as
            data of a part for as long as that is needed.

        Raises
        ------
        Invalid
            It is no multipart body with that boundary.
        TooLarge
            Too many parts, or part headers beyond 64 KiB.
        """
        place = 0
        while place < len(data) and self._state != _EPILOGUE:
            if self._state == _DATA:
                place = yield from self._data(data, place)
            elif self._state == _HEAD:
                place = yield from self._head(data, place)
            elif self._state == _BOUNDARY:
                place = yield from self._after_delimiter(data, place)
            elif self._state == _PADDING:
                place = yield from self._after_blanks(data, place)
            else:
                place = self._preamble(data)

    def close(self) -> None:
        """Check that the body, which has ended, was whole.

        Raises
        ------
        Invalid
            Its closing boundary was never seen, so that it was cut short.
        """
        if self._state == _PREAMBLE and self._held:
            raise _not_multipart("That boundary is not in it.")
        if not self.is_complete:
            raise Invalid(
                "The body is cut short.",
                why="It ended before its closing boundary.",
                remedy="Send it again as a whole.",
            )

    # Each of these begins at a place in `data`, and returns the one at which to go on.

    def _preamble(self, data: bytes | memoryview) -> int:
        """Leave out what stands before the first boundary, as RFC 2046 5.1.1 wants it."""
        first = len(self._delimiter) - 2
        if not self._held and data[:first] == self._delimiter[2:]:
            self._state = _BOUNDARY
            return first
        # The first boundary may stand at the very beginning, where no line ends before it.
        seen = b"".join((self._held or b"\r\n", data))
        place = seen.find(self._delimiter)
        if place < 0:
            if len(seen) > PART_HEADER_BYTES_MAX:
                raise _not_multipart("That boundary is not at its beginning.")
            self._held = seen
            return len(data)
        end = place + len(self._delimiter)
        self._held = b""
        self._state = _BOUNDARY
        return end - (len(seen) - len(data))

    def _after_delimiter(self, data: bytes | memoryview, place: int) -> Generator[Event, None, int]:
        """Tell a part, the end, and data that only began like a delimiter."""
        mark = b"".join((self._held, data[place : place + 2 - len(self._held)]))
        place += len(mark) - len(self._held)
        if len(mark) < 2:
            self._held = mark
            return place
        self._held = b""
        if mark == b"\r\n":
            if self._has_begun:
                yield PartEnd()
            self._begin()
        elif mark == b"--":
            if self._has_begun:
                yield PartEnd()
            self._state = _EPILOGUE
            yield End()
        elif mark[:1] in _BLANKS:
            self._held = mark
            self._state = _PADDING
        elif not self._has_begun:
            raise _not_multipart("Its first boundary is followed by something else.")
        else:
            # The mark itself may begin the next delimiter.
            self._state = _DATA
            yield PartData(memoryview(self._delimiter))
            yield from self._data(mark, 0)
        return place

    def _after_blanks(self, data: bytes | memoryview, place: int) -> Generator[Event, None, int]:
        """Pass over blanks behind a delimiter: receivers must take them (RFC 2046 5.1.1)."""
        held = self._held
        seen = b"".join((held, data[place : place + PADDING_BYTES_MAX - len(held)]))
        line = seen.lstrip(_BLANKS)
        if line in (b"", b"\r") and len(seen) < PADDING_BYTES_MAX:
            self._held = seen
            return place + len(seen) - len(held)
        self._held = b""
        if line.startswith(b"\r\n"):
            if self._has_begun:
                yield PartEnd()
            self._begin()
            return place + len(seen) - len(line) + 2 - len(held)
        if not self._has_begun:
            raise _not_multipart("Its first boundary is followed by something else.")
        self._state = _DATA
        yield PartData(memoryview(self._delimiter))
        yield from self._data(held, 0)
        return place

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > self._max_parts:
            raise TooLarge(
                f"The body has more than {self._max_parts} parts.",
                remedy="Send the instances in several requests.",
            )
        self._has_begun = True
        self._state = _HEAD

    def _head(self, data: bytes | memoryview, place: int) -> Generator[Event, None, int]:
        """Read the header lines of a part, up to the empty line."""
        # The line break of the delimiter stands before them, so that no line is an empty head.
        before = self._held or b"\r\n"
        seen = b"".join((before, data[place : place + _USUAL_HEAD_BYTES]))
        end = seen.find(b"\r\n\r\n")
        if end < 0:
            # So much more than the limit that no head within it is cut here.
            seen = b"".join((before, data[place : place + PART_HEADER_BYTES_MAX + _HEAD_ROOM]))
            end = seen.find(b"\r\n\r\n")
        if end < 0:
            _check_head(seen)
            self._held = seen
            return place + len(seen) - len(before)
        self._held = b""
        self._state = _DATA
        yield PartBegin(_headers(seen[2:end])) if end else _NO_HEAD
        return place + end + 4 - len(before)

    def _data(self, data: bytes | memoryview, place: int) -> Generator[Event, None, int]:
        """Give what belongs to the part, up to the next delimiter."""
        delimiter = self._delimiter
        if self._held:
            # Looked at together with as much as may complete the delimiter; never with all, since
            # joining would copy it.
            held = self._held
            seen = b"".join((held, data[place : place + len(delimiter) - 1]))
            found = seen.find(delimiter)
            if found < 0:
                begun = _begun(seen, 0, delimiter)
                if begun < len(held):
                    # It goes on, and `data` is at its end.
                    if begun:
                        yield PartData(memoryview(held)[:begun])
                    self._held = seen[begun:]
                    return place + len(seen) - len(held)
                self._held = b""
                yield PartData(memoryview(held))
                return place
            self._held = b""
            if found:
                # It ends within what was held: there is less of it than of the delimiter.
                yield PartData(memoryview(held)[:found])
            self._state = _BOUNDARY
            return place + found + len(delimiter) - len(held)
        found = found_in(data, delimiter, place)
        if found < 0:
            found = _begun(data, place, delimiter)
            # A copy of a few bytes: `data` is memory that is received into again.
            self._held = bytes(data[found:])
            end = len(data)
        else:
            self._state = _BOUNDARY
            end = found + len(delimiter)
        if found > place:
            yield PartData(memoryview(data)[place:found])
        return end


_PREAMBLE: Final = "preamble"
_BOUNDARY: Final = "boundary"
_PADDING: Final = "padding"
_HEAD: Final = "head"
_DATA: Final = "data"
_EPILOGUE: Final = "epilogue"

_BLANKS: Final = b" \t"

_USUAL_HEAD_BYTES: Final = 256
"""Most parts have fewer header lines."""

_HEAD_ROOM: Final = 4 * _HEADERS_MAX + 4
"""Colons and line breaks, which do not count as bytes of header lines."""

_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


_NO_HEAD: Final = PartBegin()


def _begun(data: bytes | memoryview, start: int, delimiter: bytes) -> int:
    """Return where the end of `data` might be the beginning of a delimiter; its length if not."""
    begin = max(start, len(data) - len(delimiter) + 1)
    end = bytes(data[begin:])
    place = end.find(b"\r")
    while place >= 0:
        if delimiter.startswith(end[place:]):
            return begin + place
        place = end.find(b"\r", place + 1)
    return len(data)


def _check_head(lines: bytes) -> None:
    if len(lines) > PART_HEADER_BYTES_MAX + _HEAD_ROOM:
        raise TooLarge(
            "The header lines of a part are too long.",
            why=f"They may have {PART_HEADER_BYTES_MAX} bytes.",
            remedy="Send the part with Content-Type alone.",
        )


def _headers(lines: bytes) -> Mapping[str, str]:
    # The parts of a request, and mostly those of all requests, have the same ones.
    return _usual_headers(lines) if len(lines) <= _USUAL_HEAD_BYTES else _parsed_headers(lines)


@lru_cache(maxsize=64)
def _usual_headers(lines: bytes) -> Mapping[str, str]:
    return MappingProxyType(_parsed_headers(lines))


def _parsed_headers(lines: bytes) -> dict[str, str]:
    _check_head(lines)
    found: dict[str, str] = {}
    each = lines.split(b"\r\n")
    if len(each) > _HEADERS_MAX:
        raise _not_multipart(f"One of its parts has more than {_HEADERS_MAX} header lines.")
    for line in each:
        name, colon, value = line.partition(b":")
        if not colon or not _TOKEN.fullmatch(name) or b"\r" in value or b"\n" in value:
            raise _not_multipart("One of its parts has a line that is no header line.")
        found.setdefault(name.decode("latin-1").lower(), value.decode("latin-1").strip())
    return found


def _not_multipart(why: str) -> Invalid:
    return Invalid(
        "The body is no multipart body with the boundary that its Content-Type names.",
        why=why,
        remedy="End each part with CRLF, two hyphens and the boundary (RFC 2046 5.1.1).",
    )

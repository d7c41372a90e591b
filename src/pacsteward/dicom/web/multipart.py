"""``multipart/related``: written for answers, read for STOW-RS while it arrives.

Writing is three small texts around payloads that somebody else streams: `Writer.head` before each
part, `Writer.gap` after it, `Writer.end` at the close. Reading is a push parser without any I/O:
bytes in, events out (`PartBegin`, `PartData`, `PartEnd`, `End`). The tokens are found by
python-multipart; what a STOW-RS body may look like, and how much of it, is decided here. Unlike a
form, its parts carry no ``Content-Disposition``.

References
----------
PS3.18 8.7.8 (multipart media types), 10.5 (Store transaction); RFC 2046 5.1.1 (boundaries: the
line break before one belongs to it); RFC 2387 (multipart/related).
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from python_multipart.exceptions import FormParserError, MultipartParseError
from python_multipart.multipart import MultipartParser

from pacsteward.base.errors import Invalid
from pacsteward.dicom.web.errors import TooLarge
from pacsteward.dicom.web.negotiation import MULTIPART_RELATED, MediaType

MAX_PARTS: Final = 10_000
MAX_PART_HEADER_BYTES: Final = 64 * 1024
_MAX_HEADERS: Final = 100


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
        self.boundary = boundary or f"pacsteward-{secrets.token_hex(16)}"
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
        It names none, or one that RFC 2046 5.1.1 does not allow.
    """
    boundary = media_type.parameters.get("boundary", "")
    if not 1 <= len(boundary) <= 70 or not boundary.isascii() or not boundary.isprintable():
        raise Invalid(
            "The body cannot be taken apart.",
            why="Its Content-Type names no boundary of 1 to 70 characters (RFC 2046 5.1.1).",
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

    def __init__(self, boundary: str, *, max_parts: int = MAX_PARTS) -> None:
        self._max_parts = max_parts
        self._parts = 0
        self._events: list[Event] = []
        self._headers: dict[str, str] = {}
        self._header_bytes = 0
        self._field = b""
        self._value = b""
        self.is_complete = False
        self._boundary = boundary.encode("ascii")
        self._preamble: bytes | None = b""
        """What came before the first boundary; None once that was seen."""
        self._parser = MultipartParser(
            boundary.encode("ascii"),
            {
                "on_part_begin": self._begin,
                "on_header_field": self._header_field,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_finished,
                "on_part_data": self._data,
                "on_part_end": self._end_part,
                "on_end": self._end,
            },
            max_header_count=_MAX_HEADERS,
            max_header_size=MAX_PART_HEADER_BYTES,
        )

    def feed(self, data: bytes) -> Iterator[Event]:
        """Take the next bytes of the body and give the events that they complete.

        Raises
        ------
        Invalid
            It is no multipart body with that boundary.
        TooLarge
            Too many parts, or part headers beyond 64 KiB.
        """
        data = self._after_preamble(data)
        try:
            self._parser.write(data)
        except (MultipartParseError, FormParserError) as error:
            raise _not_multipart(f"{error}.") from error
        events, self._events = self._events, []
        yield from events

    def close(self) -> None:
        """Check that the body, which has ended, was whole.

        Raises
        ------
        Invalid
            Its closing boundary was never seen, so that it was cut short.
        """
        if self._preamble:
            raise _not_multipart("That boundary is not in it.")
        if not self.is_complete:
            raise Invalid(
                "The body is cut short.",
                why="It ended before its closing boundary.",
                remedy="Send it again as a whole.",
            )

    def _after_preamble(self, data: bytes) -> bytes:
        """Leave out what stands before the first boundary, as RFC 2046 5.1.1 wants it."""
        if self._preamble is None:
            return data
        seen = self._preamble + data
        delimiter = b"--" + self._boundary
        place = 0 if seen.startswith(delimiter) else seen.find(b"\r\n" + delimiter)
        if place < 0:
            if len(seen) > MAX_PART_HEADER_BYTES:
                raise _not_multipart("That boundary is not at its beginning.")
            self._preamble = seen
            return b""
        self._preamble = None
        return seen[place:]

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > self._max_parts:
            raise TooLarge(
                f"The body has more than {self._max_parts} parts.",
                remedy="Send the instances in several requests.",
            )
        self._headers = {}
        self._header_bytes = 0

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]
        self._count(end - start)

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        self._count(end - start)

    def _count(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > MAX_PART_HEADER_BYTES:
            raise TooLarge(
                "The header lines of a part are too long.",
                why=f"They may have {MAX_PART_HEADER_BYTES} bytes.",
                remedy="Send the part with Content-Type alone.",
            )

    def _header_end(self) -> None:
        name = self._field.decode("latin-1").strip().lower()
        self._headers.setdefault(name, self._value.decode("latin-1").strip())
        self._field = self._value = b""

    def _headers_finished(self) -> None:
        self._events.append(PartBegin(dict(self._headers)))

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._events.append(PartData(memoryview(data)[start:end]))

    def _end_part(self) -> None:
        self._events.append(PartEnd())

    def _end(self) -> None:
        self.is_complete = True
        self._events.append(End())


def _not_multipart(why: str) -> Invalid:
    return Invalid(
        "The body is no multipart body with the boundary that its Content-Type names.",
        why=why,
        remedy="End each part with CRLF, two hyphens and the boundary (RFC 2046 5.1.1).",
    )

"""Which representation a client gets: media types, transfer syntaxes, quality values.

What enters is what a client wrote into ``Accept`` (or into the ``accept`` query parameter, which
a browser's ``<img>`` needs, since it cannot set headers; `answers.accept_of`) and a list of offers
in our order of preference. What leaves is the offer that fits best, or `NotAcceptable`, which the
door answers with 406.

DICOMweb adds two things to plain HTTP negotiation. A payload of several parts is
``multipart/related; type="…"``, where the type of the parts counts, and ``transfer-syntax`` is a
parameter of the media type. Clients write both quoted and unquoted, although the slash in an
unquoted type is against RFC 9110; both are understood here.

References
----------
PS3.18 8.3.3.1 (accept query parameter), 8.7 (media types and their transfer syntaxes), 8.7.8
(multipart); RFC 9110 12.4.2 and 12.5.1 (quality, Accept).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from pacsteward.base.errors import Invalid
from pacsteward.dicom.web.errors import NotAcceptable

DICOM: Final = "application/dicom"
DICOM_JSON: Final = "application/dicom+json"
DICOM_XML: Final = "application/dicom+xml"
JSON: Final = "application/json"
OCTET_STREAM: Final = "application/octet-stream"
ZIP: Final = "application/zip"
JPEG: Final = "image/jpeg"
PNG: Final = "image/png"
MULTIPART_RELATED: Final = "multipart/related"

ANY_TRANSFER_SYNTAX: Final = "*"
"""``transfer-syntax=*``: as it is stored, PS3.18 8.7.3.5.2."""

EXPLICIT_VR_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2.1"
"""What is meant where a media type names no transfer syntax, PS3.18 table 8.7.3-2."""


@dataclass(frozen=True, slots=True)
class MediaType:
    """A media type, or a range of them in ``Accept``.

    Parameters
    ----------
    name
        ``type/subtype`` in lower case; ``*`` stands for any.
    parameters
        By lower-case name, without ``q``; values as written, without quotes.
    quality
        From 0 (never) to 1.
    """

    name: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    quality: float = 1.0

    @property
    def is_multipart(self) -> bool:
        """Whether it is ``multipart/related``."""
        return self.name == MULTIPART_RELATED

    @property
    def part(self) -> str:
        """The media type that counts: of the parts for multipart/related, else its own."""
        if self.is_multipart:
            return self.parameters.get("type", "*/*").lower()
        return self.name

    @property
    def transfer_syntax(self) -> str | None:
        """The transfer syntax UID that it names, ``*`` for any, None when it names none."""
        return self.parameters.get("transfer-syntax")


@dataclass(frozen=True, slots=True)
class Offer:
    """One representation that a resource can give.

    Parameters
    ----------
    media_type
        Of the payload, or of each part of it.
    is_multipart
        Whether it comes as multipart/related.
    transfer_syntax
        UID for a media type whose parts have one; None where the term means nothing.
    is_default
        Whether a range that names no transfer syntax means this one.
    """

    media_type: str
    is_multipart: bool = False
    transfer_syntax: str | None = None
    is_default: bool = True


def accepted(text: str | None) -> tuple[MediaType, ...]:
    """Read what a client accepts.

    Parameters
    ----------
    text
        All that it wrote, joined with commas; None or empty accepts anything.

    Raises
    ------
    Invalid
        It is no list of media types.
    """
    text = text or ""
    return _ranges(text) if len(text) < _REMEMBERED_LENGTH else _ranges.__wrapped__(text)


_REMEMBERED_LENGTH: Final = 1024


# A viewer sends the same Accept with thousands of frames.
@lru_cache(maxsize=256)
def _ranges(text: str) -> tuple[MediaType, ...]:
    ranges = tuple(_media_type(part) for part in split_outside_quotes(text, ",") if part.strip())
    return ranges or (MediaType("*/*"),)


def parse_media_type(text: str) -> MediaType:
    """Read one media type, as ``Content-Type`` has it.

    Raises
    ------
    Invalid
        It is none.
    """
    return _known_type(text) if len(text) < _REMEMBERED_LENGTH else _media_type(text)


# A sender brings the same one, its boundary included, with each request; most do.
@lru_cache(maxsize=256)
def _known_type(text: str) -> MediaType:
    return _media_type(text)


def choose(ranges: Sequence[MediaType], offers: Sequence[Offer]) -> Offer:
    """Return the offer that the client likes best; among equals the one offered first.

    Raises
    ------
    NotAcceptable
        None fits.
    """
    liked = [(quality(ranges, offer), -place) for place, offer in enumerate(offers)]
    best, place = max(liked, default=(0.0, 0))
    if best <= 0:
        raise not_acceptable(offers)
    return offers[-place]


def quality(ranges: Iterable[MediaType], offer: Offer) -> float:
    """Return how much the client likes an offer: that of the most specific range that fits it."""
    fitting = [
        (specificity, wanted.quality)
        for wanted in ranges
        if (specificity := _specificity(wanted, offer))
    ]
    return max(fitting, default=(0, 0.0))[1]


def transfer_syntaxes(
    ranges: Iterable[MediaType], media_type: str
) -> tuple[tuple[str | None, float], ...]:
    """List the transfer syntaxes that ranges for `media_type` name, best first.

    Returns
    -------
    Pairs of UID, ``*`` or None (none was named: the default of the media type) and quality.
    """
    named = [
        (wanted.transfer_syntax, wanted.quality)
        for wanted in ranges
        if wanted.quality > 0 and _fits(wanted.part, media_type)
    ]
    return tuple(sorted(named, key=lambda pair: -pair[1]))


def not_acceptable(offers: Iterable[Offer]) -> NotAcceptable:
    """Say what could have been asked for."""
    names = dict.fromkeys(_written(offer) for offer in offers)
    return NotAcceptable(
        "The resource cannot be given in a form that the request accepts.",
        why="None of the media types and transfer syntaxes of its Accept can be made from what "
        "is stored.",
        remedy=f"Accept one of: {', '.join(names)}." if names else "",
    )


def _written(offer: Offer) -> str:
    syntax = f"; transfer-syntax={offer.transfer_syntax}" if offer.transfer_syntax else ""
    if offer.is_multipart:
        return f'{MULTIPART_RELATED}; type="{offer.media_type}"{syntax}'
    return f"{offer.media_type}{syntax}"


def _specificity(wanted: MediaType, offer: Offer) -> int:
    """Return 0 when the range does not fit the offer, else how exactly it names it."""
    if wanted.is_multipart:
        if not offer.is_multipart:
            return 0
        score = _name_specificity(wanted.part, offer.media_type)
    elif offer.is_multipart:
        # */* and multipart/* take the multipart form; a single type asks for a single part.
        score = _name_specificity(wanted.name, MULTIPART_RELATED)
    else:
        score = _name_specificity(wanted.name, offer.media_type)
    if not score or offer.transfer_syntax is None:
        return score
    syntax = wanted.transfer_syntax
    if syntax is None:
        return score if offer.is_default else 0
    if syntax == ANY_TRANSFER_SYNTAX:
        return score + 1
    return score + 2 if syntax == offer.transfer_syntax else 0


def _name_specificity(pattern: str, name: str) -> int:
    if not _fits(pattern, name):
        return 0
    return 30 if pattern == name else 20 if pattern != "*/*" else 10


def _fits(pattern: str, name: str) -> bool:
    if pattern in (name, "*/*", "*"):
        return True
    return pattern.endswith("/*") and name.startswith(pattern[:-1])


# RFC 9110 5.6.2 token characters, and the slash.
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+/[!#$%&'*+.^_`|~0-9a-z-]+")
_QUALITY = re.compile(r"\d(\.\d{0,6})?")


def _media_type(text: str) -> MediaType:
    name, *rest = split_outside_quotes(text, ";")
    name = name.strip().lower()
    # A lone "*" is what Java's URLConnection has always sent for "*/*".
    name = "*/*" if name == "*" else name
    if not _NAME.fullmatch(name):
        raise Invalid(
            "A media type was not understood.",
            why="It is not of the form type/subtype; parameter=value.",
            remedy='Write it as, for instance, multipart/related; type="application/dicom".',
        )
    parameters: dict[str, str] = {}
    quality_value = 1.0
    for part in rest:
        key, equals, value = part.partition("=")
        key = key.strip().lower()
        value = _unquoted(value.strip())
        if not equals or not key:
            continue
        if key == "q":
            quality_value = min(float(value), 1.0) if _QUALITY.fullmatch(value) else 1.0
        else:
            # The first one counts, as for a header that came twice.
            parameters.setdefault(key, value)
    return MediaType(name, parameters, quality_value)


def _unquoted(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] == '"':
        return re.sub(r"\\(.)", r"\1", value[1:-1])
    return value


def split_outside_quotes(text: str, separator: str) -> Iterator[str]:
    """Split at a separator that does not stand in a quoted string (RFC 9110 5.6.4)."""
    if '"' not in text:
        yield from text.split(separator)
        return
    start = 0
    is_quoted = is_escaped = False
    for place, letter in enumerate(text):
        if is_escaped:
            is_escaped = False
        elif is_quoted and letter == "\\":
            is_escaped = True
        elif letter == '"':
            is_quoted = not is_quoted
        elif letter == separator and not is_quoted:
            yield text[start:place]
            start = place + 1
    yield text[start:]

"""Answers of DICOMweb as HTTP messages: JSON, single payloads, parts, all of them streamed.

A room hands over plain iterators of bytes. Here they become responses; how their bytes get on
their way is in `streaming`.

References
----------
RFC 9110 8.8.3 and 13.1.2 (ETag, If-None-Match), 14 (ranges), 12.5.3 (content coding);
PS3.18 8.4 (header fields), 8.5 (status codes).
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import (
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from functools import lru_cache
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from pacsteward.dicom.web.multipart import Writer
from pacsteward.dicom.web.native_xml import to_xml
from pacsteward.dicom.web.negotiation import (
    DICOM_JSON,
    DICOM_XML,
    JSON,
    MediaType,
    Offer,
    accepted,
    choose,
)
from pacsteward.dicom.web.streaming import EmptyAnswer, PiecesAnswer, StreamedAnswer

__all__ = ["Request", "Response"]

PRIVATE_CACHE: Final = "private, max-age=0, must-revalidate"
"""The client may keep it and asks each time whether it is still true; proxies may not keep it."""

NO_STORE: Final = "no-store"

SERVICE_PATH: Final = "/dicom-web"

_GZIP_FROM_BYTES: Final = 1024


def accept_of(request: Request) -> str:
    """Return what the client accepts, as it is written.

    The ``accept`` parameters, when there are any: they override the header (PS3.18 8.3.3.1, C59).
    """
    if request.scope["query_string"] and (given := request.query_params.getlist("accept")):
        return ",".join(given)
    # Straight from the scope: the mappings of names that a request offers cost more to make than
    # all that is done with the answer.
    headers = request.scope["headers"]
    return ",".join([value.decode("latin-1") for name, value in headers if name == b"accept"])


def ranges_of(request: Request) -> tuple[MediaType, ...]:
    """Return what the client accepts."""
    return accepted(accept_of(request))


def service_url(request: Request) -> str:
    """Return the absolute URL of the DICOMweb service as this client sees it, without a slash.

    The HTTP door has settled scheme and host before, also behind a proxy (C25).
    """
    scope = request.scope
    if not (scope.get("root_path") or scope.get("app_root_path")):
        # What the framework's object for addresses comes to, which takes a tenth of a search.
        for name, value in scope["headers"]:
            if name == b"host":
                return f"{scope['scheme']}://{value.decode('latin-1')}{SERVICE_PATH}"
    return f"{str(request.base_url).rstrip('/')}{SERVICE_PATH}"


# --- data sets as JSON or XML -------------------------------------------------------------------

_LIST_OFFERS = (Offer(DICOM_JSON), Offer(JSON), Offer(DICOM_XML, is_multipart=True))
_SINGLE_OFFERS = (Offer(DICOM_JSON), Offer(JSON), Offer(DICOM_XML))


def list_form(request: Request) -> Offer:
    """Choose the form of a list of data sets: JSON, or parts of XML (PS3.18 8.7.3.1).

    Raises
    ------
    NotAcceptable
        The client takes none of them.
    """
    text = accept_of(request)
    return _list_form(text) if len(text) < _REMEMBERED_LENGTH else _list_form.__wrapped__(text)


def single_form(request: Request) -> Offer:
    """Choose the form of one data set: JSON or XML.

    Raises
    ------
    NotAcceptable
        The client takes none of them.
    """
    text = accept_of(request)
    return _single_form(text) if len(text) < _REMEMBERED_LENGTH else _single_form.__wrapped__(text)


_REMEMBERED_LENGTH: Final = 1024


# A client sends the same Accept with thousands of requests.
@lru_cache(maxsize=256)
def _list_form(text: str) -> Offer:
    return choose(accepted(text), _LIST_OFFERS)


@lru_cache(maxsize=256)
def _single_form(text: str) -> Offer:
    return choose(accepted(text), _SINGLE_OFFERS)


def list_answer(
    request: Request,
    form: Offer,
    models: Sequence[Mapping[str, Any]],
    *,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Answer with data sets of the DICOM JSON model."""
    every = {"vary": _VARY, "cache-control": NO_STORE, **(headers or {})}
    if form.is_multipart:
        return _xml_parts(request, models, every)
    return _whole(request, _dumps(models), form.media_type, 200, every)


def encoded_list_answer(
    request: Request,
    form: Offer,
    models: Sequence[str],
    *,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Do the same as `list_answer` with data sets that are JSON text already."""
    if form.is_multipart:
        return list_answer(request, form, json.loads(_array(models)), headers=headers)
    return encoded_json_answer(request, form, models, headers=headers)


def encoded_json_answer(
    request: Request,
    form: Offer,
    models: Sequence[str],
    *,
    headers: Mapping[str, str] | None = None,
) -> PiecesAnswer:
    """Do the same where the form is not of several parts."""
    every = {"vary": _VARY, "cache-control": NO_STORE, **(headers or {})}
    body = _array(models).encode("utf-8", "replace")
    return _whole(request, body, form.media_type, 200, every)


def no_content(headers: Mapping[str, str]) -> EmptyAnswer:
    """Answer 204: nothing was found."""
    return EmptyAnswer(204, headers)


def _array(models: Sequence[str]) -> str:
    return f"[{','.join(models)}]"


def single_answer(
    request: Request,
    form: Offer,
    model: Mapping[str, Any],
    *,
    status_code: int = 200,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Answer with one data set of the DICOM JSON model."""
    every = {"vary": _VARY, "cache-control": NO_STORE, **(headers or {})}
    body = to_xml(model) if form.media_type == DICOM_XML else _dumps(model)
    return _whole(request, body, form.media_type, status_code, every)


def array_answer(
    request: Request, form: Offer, pieces: Iterable[bytes], *, headers: Mapping[str, str]
) -> Response:
    """Answer with a JSON array of data sets that comes in pieces."""
    every = {"vary": _VARY, **headers}
    if form.is_multipart:
        return _xml_parts(request, json.loads(b"".join(pieces)), every)
    if takes_gzip(request):
        every["content-encoding"] = "gzip"
        pieces = gzipped(pieces)
    return StreamedAnswer(pieces, media_type=form.media_type, headers=every)


_VARY: Final = "Accept, Accept-Encoding"


def _dumps(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _whole(
    request: Request, body: bytes, media_type: str, status_code: int, headers: dict[str, str]
) -> PiecesAnswer:
    if len(body) >= _GZIP_FROM_BYTES and takes_gzip(request):
        body = b"".join(gzipped([body]))
        headers["content-encoding"] = "gzip"
    return PiecesAnswer([body], media_type=media_type, status_code=status_code, headers=headers)


def _xml_parts(
    request: Request, models: Sequence[Mapping[str, Any]], headers: dict[str, str]
) -> Response:
    writer = Writer(DICOM_XML)

    def parts() -> Iterator[bytes]:
        for model in models:
            yield writer.head({"Content-Type": DICOM_XML})
            yield to_xml(model)
            yield writer.gap
        yield writer.end

    pieces = parts()
    if takes_gzip(request):
        headers["content-encoding"] = "gzip"
        pieces = gzipped(pieces)
    return StreamedAnswer(pieces, media_type=writer.content_type, headers=headers)


def takes_gzip(request: Request) -> bool:
    """Say whether the client takes gzip (RFC 9110 12.5.3)."""
    for coding in request.headers.get("accept-encoding", "").lower().split(","):
        name, _, weight = coding.partition(";")
        if name.strip() in ("gzip", "*"):
            return not re.fullmatch(r"\s*q\s*=\s*0(\.0*)?\s*", weight)
    return False


def gzipped(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Compress on the way out; the fastest level, since DICOM JSON shrinks well at any."""
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    try:
        for piece in pieces:
            if packed := packer.compress(piece):
                yield packed
        yield packer.flush()
    finally:
        if isinstance(pieces, Generator):
            pieces.close()


# --- conditions, ranges, warnings ---------------------------------------------------------------


def is_unchanged(request: Request, etag: str) -> bool:
    """Say whether the client has this very version already.

    Parameters
    ----------
    etag
        Opaque text without quotes.
    """
    header = request.headers.get("if-none-match", "")
    if header.strip() == "*":
        return True
    return any(match == etag for match in re.findall(r'(?:W/)?"([^"]*)"', header))


def etag_header(etag: str) -> str:
    """Write an ETag. It is a weak one: with and without compression the bytes differ."""
    return f'W/"{etag}"'


def not_modified(etag: str) -> Response:
    """Answer 304: what the client has is still true."""
    return Response(
        status_code=304,
        headers={
            "etag": etag_header(etag),
            "cache-control": PRIVATE_CACHE,
            "vary": _VARY,
        },
    )


_RANGE = re.compile(r"bytes=\s*(\d{0,18})-(\d{0,18})\s*")


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Return the first byte and the byte after the last one that a Range header asks for.

    Returns
    -------
    None when the whole is meant: no header, another unit, several ranges (RFC 9110 14.2 lets a
    server ignore what it does not want to serve). An empty range stands for one that cannot be
    satisfied.
    """
    match = _RANGE.fullmatch(header or "")
    if not match or match[1] == match[2] == "":
        return None
    if not match[1]:
        length = min(int(match[2]), size)
        return size - length, size
    start = int(match[1])
    end = min(int(match[2]) + 1, size) if match[2] else size
    if match[2] and int(match[2]) < start:
        return None
    return (start, end) if start < size else (size, size)


def answer_range(
    request: Request,
    read: Callable[[int, int], Iterable[bytes]],
    size: int,
    *,
    media_type: str,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Answer with one payload, or with the part of it that Range asks for (C45).

    Parameters
    ----------
    read
        Given the first byte and the byte after the last one, gives the pieces.
    """
    every = {"accept-ranges": "bytes", **(headers or {})}
    # We give no validator with these, so what If-Range has is none of ours and the whole is meant
    # (RFC 9110 13.1.5).
    is_conditional = "if-range" in request.headers
    asked = None if is_conditional else byte_range(request.headers.get("range"), size)
    if asked is None:
        return StreamedAnswer(read(0, size), media_type=media_type, headers=every, size_bytes=size)
    start, end = asked
    if start == end:
        return Response(status_code=416, headers={**every, "content-range": f"bytes */{size}"})
    every["content-range"] = f"bytes {start}-{end - 1}/{size}"
    return StreamedAnswer(
        read(start, end),
        media_type=media_type,
        status_code=206,
        headers=every,
        size_bytes=end - start,
    )


def warning(*sentences: str) -> dict[str, str]:
    """Write a Warning header with code 299, PS3.18 8.3.4; an empty one is none at all.

    Only printable ASCII gets into it, since a sentence may quote what the client sent.
    """
    said = [_quotable(sentence) for sentence in sentences if sentence]
    if not said:
        return {}
    return {"warning": ", ".join(f'299 pacsteward "{sentence}"' for sentence in said)}


def _quotable(sentence: str) -> str:
    return re.sub(r"[^ !#-\[\]-~]", "?", sentence)[:512]

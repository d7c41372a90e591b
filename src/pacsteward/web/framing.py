"""Where the body of a request ends, and what is refused because that is not certain.

A server in front of us and we must agree on it: what one of them takes for a body and the other for
the next request is a request that somebody else has signed in for (request smuggling). The parser
refuses a Content-Length that is no number or comes twice or beside a Transfer-Encoding, and codings
after `chunked`. It takes every list that ends with `chunked` for `chunked` alone, and hands out the
compressed bytes of ``gzip, chunked`` as if they were the body.

References
----------
RFC 9112 6.1 — a coding that is not known, 501; Transfer-Encoding and HTTP/1.0.
RFC 9112 6.3 — `chunked` is not the last one: 400, and the end of the connection.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import httptools

Headers = Iterable[tuple[bytes, bytes]]

_EMPTY = (
    b"content-type: text/plain; charset=utf-8\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
)
UNCERTAIN = b"HTTP/1.1 400 Bad Request\r\n" + _EMPTY
UNKNOWN_CODING = b"HTTP/1.1 501 Not Implemented\r\n" + _EMPTY


def refusal_of(headers: Headers, http_version: str) -> bytes | None:
    """Return the answer to a request whose body cannot be read for certain, None for others.

    Parameters
    ----------
    headers
        As they came, with names in lower case.
    http_version
        "1.1", or what else the client speaks.
    """
    codings = [
        # A blank behind a value is no part of it (RFC 9110 5.5); the parser leaves it there.
        value.strip(b" \t").lower()
        for name, value in headers
        if name == b"transfer-encoding"
    ]
    if not codings or (codings == [b"chunked"] and http_version == "1.1"):
        return None
    listed = [coding.strip(b" \t") for coding in b",".join(codings).split(b",")]
    # The RFC would let an empty one pass; no client sends it, and proxies differ in what they make
    # of it. HTTP/1.0 knows no codings: whatever it names, it is faulty.
    if (
        http_version != "1.1"
        or b"" in listed
        or listed[-1] != b"chunked"
        or b"chunked" in listed[:-1]
    ):
        return UNCERTAIN
    return UNKNOWN_CODING


def has_body(headers: Headers) -> bool:
    """Say whether something may follow the head of a request."""
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and int(value) > 0)
        for name, value in headers
    )


def parser_for(told: Any) -> httptools.HttpRequestParser:
    """Return a parser that takes what follows a request for the next one, whatever was said.

    Trailers can say ``Connection: close``. The parser would believe them and drop without a word
    what comes from there on: through a proxy that uses a connection for one client after the other,
    the requests of somebody else. Whether a request is the last one is for its head to say.
    """
    parser = httptools.HttpRequestParser(told)
    parser.set_dangerous_leniencies(lenient_keep_alive=True)
    return parser


def parser_of_body(told: Any, headers: Headers) -> httptools.HttpRequestParser:
    """Return a parser for a body whose head was read by another one, and for what follows it.

    A parser stops behind a head that offers another protocol, since there nothing would be a body.
    We stay with this protocol (RFC 9110 7.8), so the body comes: that of each request of Java's own
    client, for one, which offers HTTP/2 wherever there is no TLS.

    Parameters
    ----------
    told
        Has the methods that a parser calls; they are called for all but that head.
    headers
        Of that head.
    """
    parser = parser_for(_AfterHead(told))
    lines = [b"%b: %b\r\n" % line for line in headers if line[0] in _OF_BODIES]
    parser.feed_data(b"".join((b"POST / HTTP/1.1\r\n", *lines, b"\r\n")))
    return parser


_OF_BODIES = (b"content-length", b"transfer-encoding")


class _AfterHead:
    """Passes on what a parser tells, without the first head."""

    def __init__(self, told: Any) -> None:
        self._told = told
        self._is_first_head = True
        self.on_chunk_header = told.on_chunk_header
        self.on_body = told.on_body
        self.on_message_complete = told.on_message_complete

    def on_message_begin(self) -> None:
        if not self._is_first_head:
            self._told.on_message_begin()

    def on_url(self, url: bytes) -> None:
        if not self._is_first_head:
            self._told.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._is_first_head:
            self._told.on_header(name, value)

    def on_headers_complete(self) -> None:
        if not self._is_first_head:
            self._told.on_headers_complete()
        self._is_first_head = False

"""Errors that HTTP tells apart more finely than the eight kinds do.

Each is one of the kinds and names the status that its own section of a standard gives it; the HTTP
door looks for `http_status` before it looks at the kind.

References
----------
PS3.18 8.5 and table 8.5-1 (status codes); RFC 9110 15.5.
"""

from __future__ import annotations

from typing import ClassVar

from pacsteward.base.errors import Exhausted, Unsupported


class NotAcceptable(Unsupported):
    """No representation that we have fits what the client accepts."""

    http_status: ClassVar[int] = 406


class UnsupportedMediaType(Unsupported):
    """The body of a request is of a type that this resource does not take."""

    http_status: ClassVar[int] = 415


class TooLarge(Exhausted):
    """A body, or an image, has more than we are willing to take or draw."""

    http_status: ClassVar[int] = 413

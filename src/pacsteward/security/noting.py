"""Notes that are good to have: who called last, when a token was used.

A full disk takes no more of them. It must keep nobody from reading what is stored for that.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from pacsteward.base.errors import Unavailable

_log = logging.getLogger(__name__)


@contextmanager
def noting(what: str) -> Iterator[None]:
    """Note something where the database takes it; where it does not, say so and go on.

    Parameters
    ----------
    what
        What is noted, for the log: "The use of a token".
    """
    try:
        yield
    except Unavailable as error:
        _log.warning("%s was not noted. %s", what, error)

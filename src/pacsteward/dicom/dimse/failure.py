"""What a service raises becomes an answer on the wire.

`pacsteward.dicom.status` knows the numbers; here is what is said beside them. A `PacstewardError`
is an answer like others: its status, and what happened as Error Comment. Anything else is our
fault: the peer learns just that, the log learns everything.

References
----------
PS3.7 Annex C; PS3.4 B.2.3 and C.4.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from pacsteward.base.errors import PacstewardError
from pacsteward.dicom.dimse.service import Answer, CommandField
from pacsteward.dicom.status import query_status, status, store_status

log = logging.getLogger("pacsteward.dicom.dimse")

_COLUMNS: Final[dict[int, Callable[[BaseException], int]]] = {
    CommandField.C_STORE: store_status,
    CommandField.C_FIND: query_status,
    CommandField.C_MOVE: query_status,
    CommandField.C_GET: query_status,
}


def answer_for(error: Exception, field: int, name: str) -> Answer:
    """Return the final answer for what a service raised.

    Parameters
    ----------
    field
        Command Field of the request.
    name
        What the request was, for the log.
    """
    number = _COLUMNS.get(field, status)(error)
    if isinstance(error, PacstewardError):
        log.info("%s was answered with %04XH: %s", name, number, error)
        return Answer(number, comment=error.what)
    log.error("%s failed in its service.", name, exc_info=error)
    return Answer(number, comment="Internal error; see the log of the archive")

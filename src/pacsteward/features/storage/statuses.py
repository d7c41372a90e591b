"""Which status tells a sender why an object was not kept, through whatever door it came.

References
----------
PS3.4 B.2.3 — statuses of C-STORE; PS3.18 Annex I, table I.2-2 — Failure Reasons of STOW-RS.
"""

from __future__ import annotations

from pacsteward.archive import DoesNotMatch
from pacsteward.base.errors import Invalid, PacstewardError
from pacsteward.dicom.status import CANNOT_UNDERSTAND, store_status


def refusal_status(error: PacstewardError) -> int:
    """Choose the status of C-STORE, which is the Failure Reason of STOW-RS as well.

    An object that is not the announced one is A900; one that cannot be read, or is larger than
    anything that is taken, is C000, which tells a sender not to try the same bytes again: A7xx is
    for resources, which may be there later.
    """
    is_unreadable = isinstance(error, Invalid) and not isinstance(error, DoesNotMatch)
    return CANNOT_UNDERSTAND if is_unreadable else store_status(error)

"""C-ECHO as provider: the archive answers that it is there.

References
----------
PS3.4 Annex A — verification; PS3.7 9.1.5 and 9.3.5 — C-ECHO.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from pacsteward.dicom.dimse import Answer, CommandField, Request
from pacsteward.dicom.uids import PROPOSED, VERIFICATION
from pacsteward.feature import DimseService, House


async def respond(
    _house: House, _request: Request, _data_set: bytes | None
) -> AsyncIterator[Answer]:
    """Answer C-ECHO with Success."""
    yield Answer(0x0000)


ECHO = DimseService(
    name="echo",
    commands=frozenset({CommandField.C_ECHO}),
    accepts=lambda _house, uid: uid == VERIFICATION,
    permission="dimse.echo",
    transfer_syntaxes=PROPOSED,
    respond=respond,
)

"""Verification: "are you there?", answered by the door itself.

References
----------
PS3.4 Annex A; PS3.7 9.1.5.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from pacsteward.base.ids import Uid
from pacsteward.dicom.dimse.service import Answer, CommandField, Request, Service

VERIFICATION_SOP_CLASS: Final = Uid("1.2.840.10008.1.1")


def verification_service(permission: str) -> Service:
    """Return the service that answers C-ECHO to callers who have `permission`."""
    return Service(
        name="verification",
        commands=frozenset({CommandField.C_ECHO}),
        accepts=VERIFICATION_SOP_CLASS.__eq__,
        permission=permission,
        transfer_syntaxes=None,
        respond=_echo,
    )


async def _echo(_request: Request, _data_set: bytes | None) -> AsyncIterator[Answer]:
    yield Answer(0x0000)

"""The real DIMSE door, for a share of what is sent: over a real association on this machine.

The door opens for one object and closes behind it. What it says is a status, so whether a Success
was for a new object or for one that was here already, only the archive knows.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Final

from pacsteward.archive import Archive
from pacsteward.base.errors import Invalid, Unavailable
from pacsteward.base.ids import AeTitle, Uid
from pacsteward.dicom.dimse import Admitted, DimseServer, ProposedContext, connect
from pacsteward.dicom.status import WARNING_COERCION
from pacsteward.features.storage.dimse import STORAGE
from pacsteward.features.storage.settings import StorageSettings
from tests.simulation.model import Content

_TITLE: Final = "PACSTEWARD"


@dataclass(frozen=True, slots=True)
class Said:
    """What a sender hears: ``"success"`` or ``"conflict"``."""

    outcome: str


async def send(archive: Archive, content: Content, calling: str) -> Said:
    """Send one object, and return what its sender hears.

    Raises
    ------
    Unavailable
        A700: try again.
    Invalid
        Any other refusal.
    """
    house: Any = SimpleNamespace(
        archive=archive,
        settings=SimpleNamespace(of=lambda _section: StorageSettings()),
        peers=_NoPeers(),
    )
    server = DimseServer(
        [STORAGE.bind(house)],
        lambda _caller: Admitted(frozenset({STORAGE.permission}), is_registered=True),
        ae_titles=(_TITLE,),
    )
    await server.start("127.0.0.1", 0)
    try:
        async with connect(
            "127.0.0.1",
            server.port,
            calling=AeTitle(calling),
            called=AeTitle(_TITLE),
            contexts=[ProposedContext(Uid(content.sop_class_uid), (Uid(content.syntax),))],
        ) as association:
            (context,) = association.contexts
            status, comment = await association.store(
                context.context_id, Uid(content.sop_class_uid), Uid(content.uid), content.data
            )
    finally:
        await server.stop(2.0)
    if status in (0, WARNING_COERCION):
        return Said("conflict" if status else "success")
    kind = Unavailable if status == 0xA700 else Invalid
    raise kind(f"The status is {status:04X}.", why=comment)


class _NoPeers:
    """A book of peers without any."""

    def get(self, _ae_title: str) -> None:
        """Return nobody."""

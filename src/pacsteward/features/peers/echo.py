"""Does a peer answer us? C-ECHO, with the answer in plain words.

Between "it works" and "it does not" lie a dozen causes, and each has its own next step: a firewall,
a wrong port, a machine that does not know our AE title. `echo` always returns a result; what went
wrong is in it, as what happened, why, and what to do.

References
----------
PS3.4 Annex A — verification; PS3.8 9.3.4 — reasons of A-ASSOCIATE-RJ; PS3.7 9.3.5 — C-ECHO.
"""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from time import perf_counter
from typing import Final

from pacsteward.base.errors import PacstewardError, Unsupported
from pacsteward.base.ids import AeTitle
from pacsteward.dicom.dimse import (
    AssociationAborted,
    AssociationRefused,
    ProposedContext,
    connect,
)
from pacsteward.dicom.settings import DicomSettings
from pacsteward.dicom.uids import PROPOSED, VERIFICATION
from pacsteward.feature import House
from pacsteward.security import Peer

TIMEOUT_S: Final = 8.0


@dataclass(frozen=True, slots=True)
class EchoResult:
    """What a peer answered.

    Parameters
    ----------
    took_ms
        From the first packet to the answer, or to the failure.
    """

    ae_title: str
    succeeded: bool
    what: str
    why: str = ""
    remedy: str = ""
    took_ms: float = 0.0

    @property
    def words(self) -> str:
        """All of it in one line."""
        return " ".join(part for part in (self.what, self.why, self.remedy) if part)


async def echo(house: House, ae_title: str) -> EchoResult:
    """Send C-ECHO to a registered peer and remember how it went.

    Raises
    ------
    NotFound
        No such peer is registered.
    """
    peer = await asyncio.to_thread(house.peers.need, ae_title)
    calling = house.settings.of(DicomSettings).ae_title
    result = await echo_peer(peer, calling)
    await asyncio.to_thread(
        house.peers.note_echo, peer.ae_title, succeeded=result.succeeded, words=result.words
    )
    return result


async def echo_peer(peer: Peer, calling: str, *, timeout_s: float = TIMEOUT_S) -> EchoResult:
    """Send C-ECHO to `peer` as `calling`; every failure becomes a result."""
    began = perf_counter()
    try:
        async with (
            connect(
                peer.host,
                peer.port,
                calling=AeTitle(calling),
                called=AeTitle(peer.ae_title),
                contexts=[ProposedContext(VERIFICATION, PROPOSED)],
                timeout_s=timeout_s,
            ) as association,
            asyncio.timeout(timeout_s),
        ):
            response = await association.echo()
            _uid, program = association.peer_implementation
    except TimeoutError:
        result = EchoResult(
            peer.ae_title,
            succeeded=False,
            what=f"{peer.ae_title} accepted the association and then said nothing.",
            why=f"No answer to C-ECHO came within {timeout_s:g} s.",
            remedy="Its program hangs or is overloaded: restart it, or look into its log.",
        )
    except PacstewardError as error:
        result = explain(peer, calling, error)
    else:
        result = _answered(peer, calling, response.status, program)
    took_ms = round((perf_counter() - began) * 1000, 1)
    return EchoResult(
        result.ae_title, result.succeeded, result.what, result.why, result.remedy, took_ms
    )


def _answered(peer: Peer, calling: str, status: int, program: str) -> EchoResult:
    if status == 0x0000:
        as_what = f" It is {program}." if program else ""
        return EchoResult(
            peer.ae_title,
            succeeded=True,
            what=f"{peer.ae_title} answered, and knows us as {calling}.{as_what}",
        )
    return EchoResult(
        peer.ae_title,
        succeeded=False,
        what=f"{peer.ae_title} answered C-ECHO with status {status:04X}.",
        why="It takes our association, and does not want to verify it (PS3.7 9.1.5).",
        remedy="Storing and querying may work all the same: try them, or ask its vendor.",
    )


def explain(peer: Peer, calling: str, error: PacstewardError) -> EchoResult:
    """Put a failure into words that name the next step."""
    where = f"{peer.host}:{peer.port}"
    what, why, remedy = error.what, error.why, error.remedy
    match error:
        case AssociationRefused():
            key = (error.source, error.reason)
            why, remedy = (
                text.format(peer=peer.ae_title, us=calling, where=where)
                for text in _REFUSED.get(key, (why, remedy))
            )
        case AssociationAborted():
            what = f"{peer.ae_title} broke off the connection."
            why = f"Something at {where} took it and ended it without an answer (A-ABORT or close)."
            remedy = (
                "It may want TLS, or be no DICOM program at all; some machines do this to callers "
                f"they do not know. Have {calling} entered there, and check the port."
            )
        case Unsupported():
            what = f"{peer.ae_title} accepted us, but not C-ECHO."
            why = "It did not accept the Verification SOP Class (PS3.8 9.3.3.2)."
            remedy = "The network and both AE titles are right; storing and querying may work."
        case _:
            why, remedy = _unreachable(peer, error)
    return EchoResult(peer.ae_title, succeeded=False, what=what, why=why, remedy=remedy)


def _unreachable(peer: Peer, error: PacstewardError) -> tuple[str, str]:
    cause = error.__cause__
    if isinstance(cause, socket.gaierror):
        return (
            f"Nobody knows the name {peer.host}.",
            "Correct the host, or have it entered in DNS; an IP address works too.",
        )
    if isinstance(cause, ConnectionRefusedError) or "refused" in error.why.lower():
        return (
            f"The machine {peer.host} is there, and nothing listens on port {peer.port}.",
            "Start its DICOM program, or correct the port.",
        )
    return error.why, error.remedy


_REFUSED: Final = {
    # Source and reason of A-ASSOCIATE-RJ, PS3.8 table 9-21.
    (1, 3): (
        "It does not know our AE title {us}.",
        "Have {us}, with this server's address and port, entered at {peer}. Upper and lower case "
        "count.",
    ),
    (1, 7): (
        "The program at {where} is not called {peer}.",
        "Correct the AE title here, or the one that is set there. Upper and lower case count.",
    ),
    (3, 2): (
        "It has no room for another association.",
        "Try again in a moment; if it lasts, somebody there leaves associations open.",
    ),
}

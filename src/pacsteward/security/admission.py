"""Decides who may open an association, and what they may do in it.

A registered peer gets the permissions of its services, provided that it calls from where it is
said to be. A stranger is refused, or, where the settings say so, let in with what a test bench
needs. Both are noted, so that the page of connections shows whoever calls.

The answer is neutral; the DICOM door turns a refusal into A-ASSOCIATE-RJ 1/1/3 (result
rejected-permanent, source service-user, reason calling-AE-title-not-recognized; PS3.8 9.3.4).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pacsteward.security.actor import Actor
from pacsteward.security.noting import noting
from pacsteward.security.peer import Peer, is_from, is_loopback
from pacsteward.security.peers import PeerBook
from pacsteward.security.permissions import SERVICES
from pacsteward.security.settings import AdmitUnknown

STRANGERS_PERMISSIONS = frozenset().union(*SERVICES.values())
"""What a stranger may do where strangers are let in: echo, store, find, get and move."""


@dataclass(frozen=True, slots=True)
class Admission:
    """Come in.

    Parameters
    ----------
    peer
        The registration; None for a stranger.
    """

    permissions: frozenset[str]
    peer: Peer | None

    @property
    def is_registered(self) -> bool:
        """Whether it is a peer; peers have reserved slots."""
        return self.peer is not None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Stay out; `why` is for the log and the page of connections, not for the caller."""

    why: str


def decide(
    book: PeerBook,
    *,
    calling_ae_title: str,
    address: str,
    admit_unknown: AdmitUnknown,
    called_ae_title: str = "",
    proposed: Iterable[str] = (),
    implementation: str = "",
) -> Admission | Refusal:
    """Decide on a caller, and note it. Blocks.

    Parameters
    ----------
    calling_ae_title, called_ae_title
        Of the A-ASSOCIATE-RQ; padding does not count.
    address
        IP address that it calls from.
    admit_unknown
        See `AdmissionSettings`.
    proposed
        Names of what it wants, for whoever decides on admitting it later.
    """
    title = calling_ae_title.strip(" ")
    peer = book.get(title)
    if peer is not None and is_from(peer, address):
        with noting("A caller"):
            book.note_seen(title, address)
        return Admission(_permissions_of(peer), peer)
    if peer is None:
        why = "No peer of this AE title is registered."
    else:
        where = f"at {peer.host}" if peer.accepts_from == "host" else f"from {peer.accepts_from}"
        why = f"This AE title is registered {where}, and the call came from another address."
    is_let_in = admit_unknown == "always" or (admit_unknown == "loopback" and is_loopback(address))
    with noting("A caller"):
        book.note_unknown(
            title,
            address,
            called_ae_title=called_ae_title,
            proposed=proposed,
            implementation=implementation,
            why=why,
            was_admitted=is_let_in,
        )
    return Admission(STRANGERS_PERMISSIONS, None) if is_let_in else Refusal(why)


def actor_of_caller(calling_ae_title: str, address: str, permissions: frozenset[str]) -> Actor:
    """Name the caller for the audit."""
    return Actor("peer", calling_ae_title.strip(" "), permissions, address)


def _permissions_of(peer: Peer) -> frozenset[str]:
    return frozenset().union(*(SERVICES[name] for name in peer.services))

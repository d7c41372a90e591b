"""Registering peers: from what people write to a `Peer`, and back to what they read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from pacsteward.base.errors import Invalid
from pacsteward.security import SERVICES, PeerBook

SERVICE_WORDS = {
    "echo": ("C-ECHO", "It may ask whether we are there."),
    "store": ("C-STORE", "It may send images to us."),
    "find": ("C-FIND", "It may search."),
    "get": ("C-GET", "It may retrieve over its own association."),
    "move": ("C-MOVE", "It may have studies sent to any registered peer."),
}


@dataclass(frozen=True, slots=True)
class PeerRow:
    """A peer with what was last seen of it, as lists show it."""

    ae_title: str
    host: str
    port: int
    services: tuple[str, ...]
    accepts_from: str
    description: str
    last_seen_at: datetime | None
    last_seen_address: str
    last_echo_at: datetime | None
    last_echo_succeeded: bool | None
    last_echo_words: str


def rows(book: PeerBook) -> list[PeerRow]:
    """Return all peers with what was last seen of them."""
    states = book.states()
    return [
        PeerRow(
            ae_title=peer.ae_title,
            host=peer.host,
            port=peer.port,
            services=in_order(peer.services),
            accepts_from=peer.accepts_from or "any",
            description=peer.description,
            last_seen_at=states[peer.ae_title].last_seen_at,
            last_seen_address=states[peer.ae_title].last_seen_address,
            last_echo_at=states[peer.ae_title].last_echo_at,
            last_echo_succeeded=states[peer.ae_title].last_echo_succeeded,
            last_echo_words=states[peer.ae_title].last_echo_words,
        )
        for peer in book.all()
        # Removed between the two questions.
        if peer.ae_title in states
    ]


def read_services(texts: Iterable[str]) -> frozenset[str]:
    """Read services however they are written: apart, or joined by commas or spaces.

    Raises
    ------
    Invalid
        A service that does not exist.
    """
    names = {name for text in texts for name in text.replace(",", " ").lower().split()}
    if "all" in names:
        return frozenset(SERVICES)
    names.discard("none")
    unknown = names - SERVICES.keys()
    if unknown:
        raise Invalid(
            f"There is no service {', '.join(sorted(unknown))}.",
            remedy=f"Choose of {', '.join(SERVICES)}, or write all or none.",
        )
    return frozenset(names)


def in_order(services: Iterable[str]) -> tuple[str, ...]:
    """Return services in the order in which they are always shown."""
    chosen = set(services)
    return tuple(name for name in SERVICES if name in chosen)

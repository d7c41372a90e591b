"""The book of peers: the machines that we speak with, and the strangers that called.

A peer is known by its AE title together with where it calls from; a title alone is no proof, for
anybody can write any title into a request. What a peer may do is said in services, each of which
stands for permissions (`permissions.SERVICES`).

References
----------
PS3.5 6.2 — AE titles; PS3.8 9.3.2 — A-ASSOCIATE-RQ; PS3.15 A.5.3 — network entries in the audit.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from pacsteward.base.clock import Clock
from pacsteward.base.db import Database
from pacsteward.base.errors import Conflict, NotFound
from pacsteward.security.actor import HOUSE, Actor
from pacsteward.security.audit import AuditBook
from pacsteward.security.audit_entry import (
    Action,
    AuditEntry,
    AuditEvent,
    AuditEventType,
    AuditObject,
    plain,
)
from pacsteward.security.peer import Peer, PeerState, UnknownCaller, check_peer
from pacsteward.security.permissions import SERVICES
from pacsteward.security.tables import PEER, UNKNOWN_CALLER

UNKNOWN_CALLERS_MAX = 500
"""More are not kept: somebody is trying names."""

_SEEN_NOTED_EVERY_S = 10.0


class PeerBook:
    """Keeps peers and unknown callers. Every method blocks.

    Parameters
    ----------
    database, clock
        Of the house.
    audit
        Where changes are recorded; the book of the same database when it is not given.
    """

    def __init__(self, database: Database, clock: Clock, audit: AuditBook | None = None) -> None:
        self._database = database
        self._clock = clock
        self._audit = audit or AuditBook(database, clock)
        self._seen: dict[tuple[str, str], float] = {}

    # Peers ---------------------------------------------------------------------------------------

    def all(self) -> list[Peer]:
        """Return all peers, by AE title."""
        with self._database.read() as connection:
            rows = connection.execute(select(PEER).order_by(PEER.c.ae_title)).all()
        return [_peer(row) for row in rows]

    def states(self) -> dict[str, PeerState]:
        """Return what was last seen of each peer, by AE title."""
        with self._database.read() as connection:
            rows = connection.execute(select(PEER)).all()
        return {
            row.ae_title: PeerState(
                row.last_seen_at,
                row.last_seen_address,
                row.last_echo_at,
                row.last_echo_succeeded,
                row.last_echo_words,
            )
            for row in rows
        }

    def get(self, ae_title: str) -> Peer | None:
        """Return one peer; padding of the title does not count (PS3.5 6.2)."""
        with self._database.read() as connection:
            row = _row(connection, ae_title.strip(" "))
        return _peer(row) if row else None

    def need(self, ae_title: str) -> Peer:
        """Return one peer.

        Raises
        ------
        NotFound
            None has this title.
        """
        peer = self.get(ae_title)
        if peer is None:
            raise _not_found(ae_title)
        return peer

    def add(self, peer: Peer, *, by: Actor = HOUSE) -> Peer:
        """Register a peer; it may call at once.

        Raises
        ------
        Invalid
            A field cannot be right; see `check_peer`.
        Conflict
            The title is registered already.
        """
        peer = check_peer(peer)
        now = self._clock.now()
        with self._database.write() as connection:
            if _row(connection, peer.ae_title):
                raise Conflict(
                    f"A peer {peer.ae_title} is registered already.",
                    remedy=f"Change it instead: `pacsteward peers change {peer.ae_title} …`.",
                )
            connection.execute(insert(PEER).values(**_values(peer), created_at=now, changed_at=now))
            connection.execute(
                delete(UNKNOWN_CALLER).where(UNKNOWN_CALLER.c.ae_title == peer.ae_title)
            )
            what = f"{by.name} registered the peer {peer.ae_title} at {peer.host}:{peer.port}."
            self._note(connection, by, "C", peer.ae_title, what)
        return peer

    def change(self, peer: Peer, *, by: Actor = HOUSE) -> Peer:
        """Replace the registration of ``peer.ae_title``; the next association sees it.

        Raises
        ------
        Invalid
            A field cannot be right.
        NotFound
            The title is not registered.
        """
        peer = check_peer(peer)
        with self._database.write() as connection:
            before = _row(connection, peer.ae_title)
            if before is None:
                raise _not_found(peer.ae_title)
            connection.execute(
                update(PEER)
                .where(PEER.c.ae_title == peer.ae_title)
                .values(**_values(peer), changed_at=self._clock.now())
            )
            what = f"{by.name} changed the peer {peer.ae_title}: {_difference(before, peer)}."
            self._note(connection, by, "U", peer.ae_title, what)
        return peer

    def remove(self, ae_title: str, *, by: Actor = HOUSE) -> None:
        """Forget a peer; its next association is a stranger's.

        Raises
        ------
        NotFound
            The title is not registered.
        """
        with self._database.write() as connection:
            if _row(connection, ae_title) is None:
                raise _not_found(ae_title)
            connection.execute(delete(PEER).where(PEER.c.ae_title == ae_title))
            self._note(connection, by, "D", ae_title, f"{by.name} removed the peer {ae_title}.")

    def note_seen(self, ae_title: str, address: str) -> None:
        """Remember that a peer has called; a busy one is noted every few seconds."""
        moment = self._clock.monotonic()
        if moment - self._seen.get((ae_title, address), -1e9) < _SEEN_NOTED_EVERY_S:
            return
        self._seen[ae_title, address] = moment
        seen = {"last_seen_at": self._clock.now(), "last_seen_address": address}
        self._note_state(ae_title, seen)

    def note_echo(self, ae_title: str, *, succeeded: bool, words: str) -> None:
        """Remember how it answered our C-ECHO."""
        echo = {
            "last_echo_at": self._clock.now(),
            "last_echo_succeeded": succeeded,
            "last_echo_words": plain(words, 500),
        }
        self._note_state(ae_title, echo)

    def _note_state(self, ae_title: str, values: dict[str, Any]) -> None:
        with self._database.write(durable=False) as connection:
            connection.execute(update(PEER).where(PEER.c.ae_title == ae_title).values(**values))

    # Unknown callers -----------------------------------------------------------------------------

    def unknown_callers(self) -> list[UnknownCaller]:
        """Return who called and is not registered, the latest first."""
        query = select(UNKNOWN_CALLER).order_by(UNKNOWN_CALLER.c.last_seen_at.desc())
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        return [_unknown(row) for row in rows]

    def note_unknown(
        self,
        ae_title: str,
        address: str,
        *,
        called_ae_title: str = "",
        proposed: Iterable[str] = (),
        implementation: str = "",
        why: str = "",
        was_admitted: bool = False,
    ) -> None:
        """Remember a caller that is not registered: one row for a title from an address."""
        key = {"ae_title": plain(ae_title, 64), "address": plain(address, 64)}
        values = {
            "called_ae_title": plain(called_ae_title, 64),
            "implementation": plain(implementation, 120),
            "why": plain(why, 500),
            "was_admitted": was_admitted,
            "last_seen_at": self._clock.now(),
        }
        wanted = [plain(name, 100) for name in list(proposed)[:128]]
        if wanted:
            values["proposed"] = json.dumps(wanted, ensure_ascii=False)
        mine = (UNKNOWN_CALLER.c.ae_title == key["ae_title"]) & (
            UNKNOWN_CALLER.c.address == key["address"]
        )
        again = (
            update(UNKNOWN_CALLER)
            .where(mine)
            .values(values | {"calls": UNKNOWN_CALLER.c.calls + 1})
        )
        with self._database.write(durable=False) as connection:
            if connection.execute(again).rowcount:
                return
            try:
                with connection.begin_nested():
                    first = {"calls": 1, "first_seen_at": values["last_seen_at"]}
                    connection.execute(insert(UNKNOWN_CALLER).values(key | values | first))
            except IntegrityError:
                # Another process noted its first call in this very moment.
                connection.execute(again)
            _drop_oldest(connection)

    def forget_unknown(self, ae_title: str, address: str) -> None:
        """Take a caller off the list; it comes back when it calls again."""
        with self._database.write() as connection:
            connection.execute(
                delete(UNKNOWN_CALLER).where(
                    UNKNOWN_CALLER.c.ae_title == plain(ae_title, 64),
                    UNKNOWN_CALLER.c.address == plain(address, 64),
                )
            )

    def admit_unknown(
        self,
        ae_title: str,
        *,
        address: str = "",
        port: int = 104,
        services: Iterable[str] = ("echo", "store"),
        by: Actor = HOUSE,
    ) -> Peer:
        """Register a caller that is on the list, bound to the address it called from.

        Parameters
        ----------
        address
            Which one, when the title called from several; "" is the latest.
        port
            Where it listens; callers do not say it. 104 is the well-known port (PS3.8 9.1.1).

        Raises
        ------
        NotFound
            It is not on the list.
        """
        callers = [
            caller
            for caller in self.unknown_callers()
            if caller.ae_title == ae_title and address in ("", caller.address)
        ]
        if not callers:
            raise NotFound(
                f"{ae_title} is not among the unknown callers.",
                remedy="`pacsteward peers unknown` lists them.",
            )
        found = callers[0].address
        known = self.get(ae_title)
        if known is not None:
            # A registered title that calls from a new address: let it, and keep the rest.
            return self.change(replace(known, accepts_from=found), by=by)
        return self.add(Peer(ae_title, found, port, frozenset(services), accepts_from=found), by=by)

    def _note(
        self, connection: Connection, by: Actor, action: Action, ae_title: str, what: str
    ) -> None:
        self._audit.record(
            AuditEntry(
                event=AuditEvent.SECURITY_ALERT,
                event_type=AuditEventType.NETWORK_CONFIGURATION,
                action=action,
                actor=by,
                what=what,
                objects=(AuditObject("peer", ae_title),),
            ),
            connection,
        )


# Rows --------------------------------------------------------------------------------------------


def _row(connection: Connection, ae_title: str) -> Row[Any] | None:
    # Titles come from the network; databases choke on some of them.
    query = select(PEER).where(PEER.c.ae_title == plain(ae_title, 64))
    return connection.execute(query).one_or_none()


def _not_found(ae_title: str) -> NotFound:
    return NotFound(
        f"No peer {plain(ae_title, 40)} is registered.", remedy="`pacsteward peers list` shows all."
    )


def _peer(row: Row[Any]) -> Peer:
    return Peer(
        ae_title=row.ae_title,
        host=row.host,
        port=row.port,
        services=frozenset(json.loads(row.services)),
        description=row.description,
        default_issuer_of_patient_id=row.default_issuer_of_patient_id,
        accepts_from=row.accepts_from,
        is_lenient_in_roles=row.is_lenient_in_roles,
        is_lenient_in_levels=row.is_lenient_in_levels,
        prefers_transfer_syntaxes=tuple(json.loads(row.prefers_transfer_syntaxes)),
        max_parallel=row.max_parallel,
    )


def _values(peer: Peer) -> dict[str, Any]:
    return {
        "ae_title": peer.ae_title,
        "host": peer.host,
        "port": peer.port,
        "services": json.dumps([name for name in SERVICES if name in peer.services]),
        "description": peer.description,
        "default_issuer_of_patient_id": peer.default_issuer_of_patient_id,
        "accepts_from": peer.accepts_from,
        "is_lenient_in_roles": peer.is_lenient_in_roles,
        "is_lenient_in_levels": peer.is_lenient_in_levels,
        "prefers_transfer_syntaxes": json.dumps(list(peer.prefers_transfer_syntaxes)),
        "max_parallel": peer.max_parallel,
    }


def _difference(before: Row[Any], after: Peer) -> str:
    old = before._asdict()
    changes = [
        f"{name} {old[name]!r} became {value!r}"
        for name, value in _values(after).items()
        if old[name] != value
    ]
    return "; ".join(changes) or "nothing"


def _unknown(row: Row[Any]) -> UnknownCaller:
    return UnknownCaller(
        ae_title=row.ae_title,
        address=row.address,
        called_ae_title=row.called_ae_title,
        proposed=tuple(json.loads(row.proposed or "[]")),
        implementation=row.implementation,
        why=row.why,
        was_admitted=row.was_admitted,
        calls=row.calls,
        first_seen_at=row.first_seen_at,
        last_seen_at=row.last_seen_at,
    )


def _drop_oldest(connection: Connection) -> None:
    count = connection.execute(select(func.count()).select_from(UNKNOWN_CALLER)).scalar() or 0
    if count <= UNKNOWN_CALLERS_MAX:
        return
    oldest = (
        select(UNKNOWN_CALLER.c.last_seen_at)
        .order_by(UNKNOWN_CALLER.c.last_seen_at)
        .offset(count - UNKNOWN_CALLERS_MAX)
        .limit(1)
        .scalar_subquery()
    )
    connection.execute(delete(UNKNOWN_CALLER).where(UNKNOWN_CALLER.c.last_seen_at < oldest))

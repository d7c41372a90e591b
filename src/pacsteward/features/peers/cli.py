"""``pacsteward peers``: the connections from the command line, running or not."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated

from cyclopts import Parameter

from pacsteward.base.errors import Unavailable
from pacsteward.feature import Command, House
from pacsteward.features.peers import echo as echoing
from pacsteward.features.peers import registration
from pacsteward.features.peers.registration import PeerRow
from pacsteward.security import ITS_HOST, Peer, UnknownCaller, at_command_line

Services = Annotated[tuple[str, ...], Parameter(consume_multiple=True)]
Switch = Annotated[bool | None, Parameter(negative_bool="no-")]
"""On, off, or left as it is."""


@dataclass(frozen=True, slots=True)
class Registered:
    """What `add`, `change` and `admit` print."""

    ae_title: str
    host: str
    port: int
    services: tuple[str, ...]
    accepts_from: str


def add(
    house: House,
    ae_title: str,
    host: str,
    port: int,
    *,
    services: Services = ("all",),
    accepts_from: str = ITS_HOST,
    description: str = "",
    issuer: str = "",
) -> Registered:
    """Register a peer; it may call at once, and studies can be sent to it.

    Parameters
    ----------
    ae_title
        Its AE title, 1 to 16 characters; upper and lower case differ.
    host
        IP address or name that it listens at.
    port
        Port that it listens on.
    services
        What it may ask of us: echo, store, find, get, move; or all, or none.
    accepts_from
        Where it may call from: host, an IP address, a network like 10.0.0.0/8, or any.
    description
        Words for people, e.g. where it stands.
    issuer
        Issuer for patient IDs that it sends without one.
    """
    peer = Peer(
        ae_title=ae_title,
        host=host,
        port=port,
        services=registration.read_services(services),
        accepts_from=accepts_from,
        description=description,
        default_issuer_of_patient_id=issuer,
    )
    return _registered(house.peers.add(peer, by=at_command_line()))


def change(
    house: House,
    ae_title: str,
    *,
    host: str | None = None,
    port: int | None = None,
    services: Services = (),
    accepts_from: str | None = None,
    description: str | None = None,
    issuer: str | None = None,
    lenient_in_roles: Switch = None,
    lenient_in_levels: Switch = None,
    max_parallel: int | None = None,
) -> Registered:
    """Change a peer; what is not named stays.

    Parameters
    ----------
    ae_title
        Which one.
    host
        IP address or name that it listens at.
    port
        Port that it listens on.
    services
        What it may ask of us: echo, store, find, get, move; or all, or none.
    accepts_from
        Where it may call from: host, an IP address, a network like 10.0.0.0/8, or any.
    description
        Words for people.
    issuer
        Issuer for patient IDs that it sends without one.
    lenient_in_roles
        Whether it may use C-GET without having asked for the SCP role.
    lenient_in_levels
        Whether it may query relationally without having negotiated it.
    max_parallel
        Most associations that one C-MOVE opens to it.
    """
    wanted = {
        "host": host,
        "port": port,
        "services": registration.read_services(services) if services else None,
        "accepts_from": accepts_from,
        "description": description,
        "default_issuer_of_patient_id": issuer,
        "is_lenient_in_roles": lenient_in_roles,
        "is_lenient_in_levels": lenient_in_levels,
        "max_parallel": max_parallel,
    }
    changes = {name: value for name, value in wanted.items() if value is not None}
    peer = replace(house.peers.need(ae_title), **changes)  # type: ignore[arg-type]
    return _registered(house.peers.change(peer, by=at_command_line()))


def remove(house: House, ae_title: str) -> str:
    """Forget a peer; its next association is a stranger's.

    Parameters
    ----------
    ae_title
        Which one.
    """
    house.peers.remove(ae_title, by=at_command_line())
    return f"{ae_title} was removed."


def list_peers(house: House) -> list[PeerRow]:
    """List all peers."""
    return registration.rows(house.peers)


def echo(house: House, ae_title: str) -> str:
    """Send C-ECHO to a peer and say in plain words how it went.

    Parameters
    ----------
    ae_title
        Which one.
    """
    result = asyncio.run(echoing.echo(house, ae_title))
    if not result.succeeded:
        raise Unavailable(result.what, why=result.why, remedy=result.remedy)
    return f"{result.what} ({result.took_ms:g} ms)"


@dataclass(frozen=True, slots=True)
class CallerRow:
    """An unknown caller, as the list shows it."""

    ae_title: str
    address: str
    called_us: str
    calls: int
    last_seen_at: datetime
    was_admitted: bool
    why: str


def list_unknown(house: House) -> list[CallerRow]:
    """List who called and is not registered, the latest first."""
    return [_row(caller) for caller in house.peers.unknown_callers()]


def admit(
    house: House,
    ae_title: str,
    *,
    address: str = "",
    port: int = 104,
    services: Services = ("echo", "store"),
) -> Registered:
    """Register an unknown caller, bound to the address it called from.

    Parameters
    ----------
    ae_title
        Which one.
    address
        Which address, when it called from several; by default the latest.
    port
        Port that it listens on.
    services
        What it may ask of us.
    """
    peer = house.peers.admit_unknown(
        ae_title,
        address=address,
        port=port,
        services=registration.read_services(services),
        by=at_command_line(),
    )
    return _registered(peer)


def _registered(peer: Peer) -> Registered:
    return Registered(
        ae_title=peer.ae_title,
        host=peer.host,
        port=peer.port,
        services=registration.in_order(peer.services),
        accepts_from=peer.accepts_from or "any",
    )


def _row(caller: UnknownCaller) -> CallerRow:
    return CallerRow(
        ae_title=caller.ae_title,
        address=caller.address,
        called_us=caller.called_ae_title,
        calls=caller.calls,
        last_seen_at=caller.last_seen_at,
        was_admitted=caller.was_admitted,
        why=caller.why,
    )


COMMANDS = (
    Command("add", add),
    Command("change", change),
    Command("remove", remove),
    Command("list", list_peers),
    Command("echo", echo),
    Command("unknown", list_unknown),
    Command("admit", admit),
)

"""Peers in the JSON API, for scripts and configuration management."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from pacsteward.feature import ApiRoute, CurrentActor, CurrentHouse
from pacsteward.features.peers import registration
from pacsteward.features.peers.echo import EchoResult, echo
from pacsteward.security import ITS_HOST, Peer, PeerState, UnknownCaller

Service = Literal["echo", "store", "find", "get", "move"]


class PeerFields(BaseModel):
    """What can be set of a peer."""

    host: str = Field(description="IP address or name that it listens at.")
    port: int = Field(description="Port that it listens on.")
    services: list[Service] = Field(
        default=["echo", "store", "find", "get", "move"], description="What it may ask of us."
    )
    description: str = ""
    default_issuer_of_patient_id: str = ""
    accepts_from: str = Field(
        default=ITS_HOST,
        description="`host`, an IP address, a network like 10.0.0.0/8, or empty for any address.",
    )
    is_lenient_in_roles: bool = False
    is_lenient_in_levels: bool = False
    prefers_transfer_syntaxes: list[str] = []
    max_parallel: int = 0


class NewPeer(PeerFields):
    """A peer to be registered."""

    ae_title: str


class PeerView(NewPeer):
    """A peer with what was last seen of it."""

    last_seen_at: datetime | None = None
    last_echo_at: datetime | None = None
    last_echo_succeeded: bool | None = None
    last_echo_words: str = ""


class CallerToAdmit(BaseModel):
    """Which unknown caller is to be registered."""

    ae_title: str
    address: str = Field(default="", description="Empty takes the address of its latest call.")
    port: int = 104
    services: list[Service] = ["echo", "store"]


def list_peers(house: CurrentHouse) -> list[PeerView]:
    """List all peers."""
    states = house.peers.states()
    return [_view(peer, states.get(peer.ae_title)) for peer in house.peers.all()]


def get_peer(house: CurrentHouse, ae_title: str) -> PeerView:
    """Show one peer."""
    return _view(house.peers.need(ae_title), house.peers.states().get(ae_title))


def add_peer(house: CurrentHouse, actor: CurrentActor, peer: NewPeer) -> PeerView:
    """Register a peer; it may call at once."""
    return _view(house.peers.add(_peer(peer.ae_title, peer), by=actor), None)


def change_peer(
    house: CurrentHouse, actor: CurrentActor, ae_title: str, peer: PeerFields
) -> PeerView:
    """Replace the registration of a peer."""
    house.peers.change(_peer(ae_title, peer), by=actor)
    return get_peer(house, ae_title)


def remove_peer(house: CurrentHouse, actor: CurrentActor, ae_title: str) -> None:
    """Forget a peer."""
    house.peers.remove(ae_title, by=actor)


async def echo_peer(house: CurrentHouse, ae_title: str) -> EchoResult:
    """Send C-ECHO to a peer; a failure is a result, too."""
    return await echo(house, ae_title)


def list_unknown_callers(house: CurrentHouse) -> list[UnknownCaller]:
    """List who called and is not registered, the latest first."""
    return house.peers.unknown_callers()


def admit_caller(house: CurrentHouse, actor: CurrentActor, caller: CallerToAdmit) -> PeerView:
    """Register an unknown caller, bound to the address it called from."""
    peer = house.peers.admit_unknown(
        caller.ae_title,
        address=caller.address,
        port=caller.port,
        services=caller.services,
        by=actor,
    )
    return _view(peer, None)


def _peer(ae_title: str, fields: PeerFields) -> Peer:
    return Peer(
        ae_title=ae_title,
        host=fields.host,
        port=fields.port,
        services=frozenset(fields.services),
        description=fields.description,
        default_issuer_of_patient_id=fields.default_issuer_of_patient_id,
        accepts_from=fields.accepts_from,
        is_lenient_in_roles=fields.is_lenient_in_roles,
        is_lenient_in_levels=fields.is_lenient_in_levels,
        prefers_transfer_syntaxes=tuple(fields.prefers_transfer_syntaxes),
        max_parallel=fields.max_parallel,
    )


def _view(peer: Peer, state: PeerState | None) -> PeerView:
    seen = asdict(state) if state is not None else {}
    services = registration.in_order(peer.services)
    return PeerView.model_validate({**asdict(peer), **seen, "services": services})


ROUTES = (
    ApiRoute("GET", "/peers", list_peers, "peers.see", "List all peers."),
    ApiRoute("POST", "/peers", add_peer, "peers.change", "Register a peer."),
    ApiRoute("GET", "/peers/{ae_title}", get_peer, "peers.see", "Show one peer."),
    ApiRoute("PUT", "/peers/{ae_title}", change_peer, "peers.change", "Change a peer."),
    ApiRoute("DELETE", "/peers/{ae_title}", remove_peer, "peers.change", "Remove a peer."),
    ApiRoute("POST", "/peers/{ae_title}/echo", echo_peer, "peers.echo", "Send C-ECHO to a peer."),
    ApiRoute("GET", "/unknown-callers", list_unknown_callers, "peers.see", "List unknown callers."),
    ApiRoute(
        "POST",
        "/unknown-callers/admit",
        admit_caller,
        "peers.change",
        "Register an unknown caller.",
    ),
)

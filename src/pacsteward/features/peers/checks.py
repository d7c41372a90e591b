"""What the health page and monitoring ask about connections."""

from __future__ import annotations

from datetime import timedelta

from pacsteward.base.checks import Check, Finding
from pacsteward.feature import House, HouseCheck
from pacsteward.features.peers import registration

RECENT = timedelta(days=1)


def are_callers_known(house: House) -> Finding:
    """Find strangers that were refused lately."""
    since = house.clock.now() - RECENT
    refused = [
        caller
        for caller in house.peers.unknown_callers()
        if caller.last_seen_at >= since and not caller.was_admitted
    ]
    if not refused:
        return Finding("ok", "Nobody unknown was refused in the last 24 hours.")
    names = ", ".join(sorted({caller.ae_title for caller in refused})[:5])
    return Finding(
        "warning",
        f"Unknown callers were refused in the last 24 hours, {len(refused)} of them: {names}.",
        "They are not registered, or called from another address than the registered one.",
        link="/peers",
    )


def do_peers_answer(house: House) -> Finding:
    """Find peers whose last echo failed."""
    silent = [row for row in registration.rows(house.peers) if row.last_echo_succeeded is False]
    if not silent:
        return Finding("ok", "No peer failed its last echo.")
    names = ", ".join(row.ae_title for row in silent[:5])
    count = "1 peer" if len(silent) == 1 else f"{len(silent)} peers"
    return Finding("warning", f"{count} did not answer the last echo: {names}.", link="/peers")


def are_peers_bound(house: House) -> Finding:
    """Find peers that may call from any address."""
    loose = [peer.ae_title for peer in house.peers.all() if not peer.accepts_from]
    if not loose:
        return Finding("ok", "Every peer is bound to an address.")
    return Finding(
        "warning",
        f"{len(loose)} peers may call from any address: {', '.join(loose[:5])}.",
        "Anybody on the network can write their AE titles into a request.",
        link="/peers",
    )


CHECKS = (
    HouseCheck(
        Check(
            "are_callers_known",
            "Is everybody who calls registered?",
            "Admit or forget them: Connections, or `pacsteward peers unknown`.",
        ),
        are_callers_known,
    ),
    HouseCheck(
        Check(
            "do_peers_answer",
            "Do all peers answer C-ECHO?",
            "Echo them: Connections, or `pacsteward peers echo AE_TITLE`.",
        ),
        do_peers_answer,
    ),
    HouseCheck(
        Check(
            "are_peers_bound",
            "Is every peer bound to an address?",
            "`pacsteward peers change AE_TITLE --accepts-from host`.",
        ),
        are_peers_bound,
    ),
)

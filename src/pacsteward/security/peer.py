"""A peer, and what can be right about one.

References
----------
PS3.5 6.2 — AE titles; PS3.5 chapter 9 — UIDs; RFC 1123 2.1 — host names.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass, replace
from datetime import datetime

from pacsteward.base.errors import Invalid
from pacsteward.security.audit_entry import plain
from pacsteward.security.permissions import SERVICES

ITS_HOST = "host"
"""Value of `Peer.accepts_from`: it may call from the addresses that its `host` has."""

_HOST_NAME = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_-]{0,62}\.?)*")
_TRANSFER_SYNTAX = re.compile(r"[0-9.]{1,64}")


@dataclass(frozen=True, slots=True)
class Peer:
    """A machine that we speak with.

    Parameters
    ----------
    ae_title
        1 to 16 characters (PS3.5 6.2).
    host, port
        Where it listens, for what we send to it.
    services
        What it may ask of us, of `permissions.SERVICES`.
    default_issuer_of_patient_id
        Issuer for patient IDs that it sends without one.
    accepts_from
        Where it may call from: ``"host"``, the addresses that `host` has; an IP address or a
        network in CIDR form; "" is any address, which the operator has to want.
    is_lenient_in_roles
        It forgets to ask for the SCP role before C-GET (PS3.7 D.3.3.4); let it pass.
    is_lenient_in_levels
        It queries relationally without having negotiated it (PS3.4 C.5.1.1); let it pass.
    prefers_transfer_syntaxes
        UIDs, the dearest first, for what we send to it.
    max_parallel
        Most associations that one C-MOVE opens to it; 0 leaves it to the settings.
    """

    ae_title: str
    host: str
    port: int
    services: frozenset[str] = frozenset(SERVICES)
    description: str = ""
    default_issuer_of_patient_id: str = ""
    accepts_from: str = ITS_HOST
    is_lenient_in_roles: bool = False
    is_lenient_in_levels: bool = False
    prefers_transfer_syntaxes: tuple[str, ...] = ()
    max_parallel: int = 0


@dataclass(frozen=True, slots=True)
class PeerState:
    """What was last seen of a peer."""

    last_seen_at: datetime | None
    last_seen_address: str
    last_echo_at: datetime | None
    last_echo_succeeded: bool | None
    last_echo_words: str


@dataclass(frozen=True, slots=True)
class UnknownCaller:
    """Somebody who called and is not registered.

    Parameters
    ----------
    proposed
        What it wanted, in words: names or UIDs of the abstract syntaxes.
    why
        Why it is not known: no such title, or the title from another address.
    was_admitted
        It was let in all the same, since it called from this machine.
    """

    ae_title: str
    address: str
    called_ae_title: str
    proposed: tuple[str, ...]
    implementation: str
    why: str
    was_admitted: bool
    calls: int
    first_seen_at: datetime
    last_seen_at: datetime


def check_ae_title(text: str) -> str:
    """Return an AE title without its padding.

    Raises
    ------
    Invalid
        It breaks PS3.5 6.2: 1 to 16 characters of the default repertoire, no backslash and no
        control characters, not only spaces.
    """
    title = text.strip(" ")
    if not title or len(title) > 16:
        raise Invalid(
            f"“{plain(title, 40)}” is no AE title.",
            why=f"It has {len(title)} characters; PS3.5 6.2 wants 1 to 16.",
            remedy="Use the title that is configured on the machine itself.",
        )
    if any(not " " <= letter <= "~" or letter == "\\" for letter in title):
        raise Invalid(
            f"“{plain(title, 40)}” is no AE title.",
            why="It holds a backslash, a control character or a letter outside ASCII (PS3.5 6.2).",
            remedy="Use letters, digits, hyphen and underscore.",
        )
    return title


def check_peer(peer: Peer) -> Peer:
    """Return `peer` in its canonical form.

    Raises
    ------
    Invalid
        Naming the first field that cannot be right.
    """
    peer = replace(
        peer,
        ae_title=check_ae_title(peer.ae_title),
        host=peer.host.strip(),
        accepts_from=_check_accepts_from(peer.accepts_from.strip()),
        description=plain(peer.description.strip(), 200),
        default_issuer_of_patient_id=_check_issuer(peer.default_issuer_of_patient_id.strip()),
    )
    if not (_is_address(peer.host.strip("[]")) or _HOST_NAME.fullmatch(peer.host)):
        raise Invalid(
            f"“{plain(peer.host, 60)}” is no host.",
            why="It is neither an IP address nor a host name.",
            remedy="Write it like 10.1.2.3 or ct1.radiology.example.",
        )
    if not 1 <= peer.port <= 65535:
        raise Invalid(
            f"{peer.port} is no port.", remedy="Take 1 to 65535; DICOM machines often use 104."
        )
    unknown = peer.services - SERVICES.keys()
    if unknown:
        raise Invalid(
            f"There is no service {', '.join(sorted(plain(name, 20) for name in unknown))}.",
            remedy=f"Choose of {', '.join(SERVICES)}.",
        )
    if not 0 <= peer.max_parallel <= 16:
        raise Invalid(
            f"{peer.max_parallel} associations at a time cannot be.",
            remedy="Take 1 to 16, or 0 for what `retrieve.max_parallel` says.",
        )
    for uid in peer.prefers_transfer_syntaxes:
        if not _TRANSFER_SYNTAX.fullmatch(uid):
            raise Invalid(
                f"“{plain(uid, 70)}” is no transfer syntax.",
                why="A UID has digits and dots only (PS3.5 chapter 9).",
                remedy="Write UIDs like 1.2.840.10008.1.2.4.90.",
            )
    return replace(peer, host=peer.host.strip("[]"))


def is_from(peer: Peer, address: str) -> bool:
    """Say whether `peer` may call from `address`.

    A host name is looked up now, so that a machine whose address the DHCP server changes stays
    known.
    """
    if not peer.accepts_from:
        return True
    caller = _plain_address(address)
    if caller is None:
        return False
    if peer.accepts_from != ITS_HOST:
        return caller in ipaddress.ip_network(peer.accepts_from, strict=False)
    own = _plain_address(peer.host)
    return caller == own if own is not None else caller in _addresses_of(peer.host)


def is_loopback(address: str) -> bool:
    """Say whether `address` is this machine."""
    plain_address = _plain_address(address)
    return plain_address is not None and plain_address.is_loopback


def _plain_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Read an address; an IPv4 address in IPv6 clothes (RFC 4291 2.5.5.2) is an IPv4 one."""
    try:
        address = ipaddress.ip_address(text.strip("[]").split("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped
    return address


def _addresses_of(host: str) -> set[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        # A name that nobody knows has no addresses, so nobody may call from them.
        return set()
    addresses = (_plain_address(str(entry[4][0])) for entry in found)
    return {address for address in addresses if address is not None}


def _is_address(text: str) -> bool:
    return _plain_address(text) is not None


def _check_accepts_from(text: str) -> str:
    if text in ("", ITS_HOST):
        return text
    if text == "any":
        return ""
    try:
        return (
            str(ipaddress.ip_network(text, strict=False))
            if "/" in text
            else str(ipaddress.ip_address(text))
        )
    except ValueError as error:
        raise Invalid(
            f"“{plain(text, 60)}” is no address to accept calls from.",
            why=f"{error}.",
            remedy="Write host, an address like 10.1.2.3, a network like 10.1.2.0/24, or any.",
        ) from error


def _check_issuer(text: str) -> str:
    if len(text) > 64 or "\\" in text or not text.isprintable():
        raise Invalid(
            "That issuer of patient IDs cannot be taken.",
            why="It is longer than 64 characters, or holds a backslash or a control character.",
            remedy="Use the name of the assigning authority, e.g. HOSPITAL-A (PS3.3 C.7.1.1).",
        )
    return text

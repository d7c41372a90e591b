"""Answers to a caller on the same machine, such as the proxy that speaks TLS for us.

Some systems have their congestion control pace what leaves by timers (BBR), so that routers on the
way need not queue it. To a neighbour there is no way: over the loopback interface the timers only
make a series of images wait, which costs a quarter of its speed and of our processor time. So such
a connection is taken to the control that every Linux has and that paces nothing. Connections from
elsewhere, and systems that do not pace, stay as they are.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any, Final

from pacsteward.security.peer import is_loopback

_PACING: Final = ("bbr",)
_PLAIN: Final = b"reno"
_OPTION: Final[int | None] = getattr(socket, "TCP_CONGESTION", None)
_NAME_BYTES: Final = 16


def let_flow(
    connection: socket.socket | None, peer: Any, pacing: tuple[str, ...] = _PACING
) -> None:
    """Have what is sent on a connection from this machine leave when it is written.

    Parameters
    ----------
    connection
        None, or one without TCP, stays as it is.
    peer
        Address of the caller, as the socket tells it.
    pacing
        How the names of those begin that pace.
    """
    if connection is None or _OPTION is None or not isinstance(peer, tuple):
        return
    if not is_loopback(peer[0]):
        return
    with suppress(OSError):  # no TCP, or gone already: whoever reads it will see
        name = connection.getsockopt(socket.IPPROTO_TCP, _OPTION, _NAME_BYTES)
        if name.decode("ascii", "replace").startswith(pacing):
            connection.setsockopt(socket.IPPROTO_TCP, _OPTION, _PLAIN)

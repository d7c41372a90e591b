"""What goes to a caller on the same machine is not paced."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pacsteward.web.nearby import let_flow

ALLOWED = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control")


@pytest.fixture
def connection() -> Iterator[socket.socket]:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()),
    ):
        accepted, _ = listener.accept()
        with accepted:
            yield accepted


def control_of(connection: socket.socket) -> str:
    name = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
    return name.rstrip(b"\0").decode()


def set_control(connection: socket.socket) -> str:
    """Choose any control but the plain one that this system lets us have."""
    for name in ALLOWED.read_text().split() if ALLOWED.exists() else ():
        if name != "reno":
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name.encode())
            return name
    pytest.skip("This system allows one congestion control alone.")


def test_a_neighbour_is_not_paced(connection: socket.socket) -> None:
    name = set_control(connection)
    let_flow(connection, connection.getpeername(), pacing=(name,))
    assert control_of(connection) == "reno"


def test_a_connection_from_elsewhere_and_one_that_is_not_paced_stay_as_they_are(
    connection: socket.socket,
) -> None:
    name = set_control(connection)
    let_flow(connection, ("192.0.2.7", 5000), pacing=(name,))
    let_flow(connection, connection.getpeername(), pacing=("other",))
    assert control_of(connection) == name


def test_what_is_no_tcp_connection_stays_as_it_is() -> None:
    one, other = socket.socketpair()
    with one, other:
        let_flow(one, ("127.0.0.1", 5000))
        let_flow(one, one.getpeername())
        let_flow(None, None)
        one.sendall(b"hello")
        assert other.recv(5) == b"hello"

"""Those who call and then say nothing, or half of something: held connections to both doors."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.hardness import wire
from tests.hardness.http_wire import request
from tests.hardness.wire import Line, associate_rq
from tests.support.product import Product


@contextmanager
def stalled(product: Product, token: str, count: int) -> Iterator[list[socket.socket]]:
    """Hold `count` half-spoken connections to each door."""
    lines: list[socket.socket] = []
    try:
        ways = dimse_stalls()
        begun = http_stalls(token)
        for number in range(count):
            line = Line(product.dimse_port)
            lines.append(line.socket)
            ways[number % len(ways)](line)
            connection = socket.create_connection(("127.0.0.1", product.http_port))
            lines.append(connection)
            connection.sendall(begun[number % len(begun)])
        yield lines
    finally:
        for connection in lines:
            connection.close()


def is_cut(connection: socket.socket) -> bool:
    """Whether the other side ends the connection before the socket's own patience ends."""
    try:
        while connection.recv(4096):
            pass
    except TimeoutError:
        return False
    except ConnectionResetError:
        return True
    return True


def dimse_stalls() -> list[Callable[[Line], None]]:
    """Ways to say half of something to the DIMSE door."""
    store = wire.p_data(
        wire.STORE,
        wire.command(wire.request(1, wire.CT_STORAGE, has_data=True, _1000="1.2.3")),
        is_command=True,
    )

    def nothing(_line: Line) -> None: ...

    def half_a_request(line: Line) -> None:
        line.send(associate_rq()[:100])

    def half_a_command(line: Line) -> None:
        line.associate()
        line.send(wire.C_ECHO[:30])

    def half_an_object(line: Line) -> None:
        line.associate()
        line.send(store + wire.p_data(wire.STORE, bytes(9000), is_command=False, is_last=False))

    return [nothing, half_a_request, half_a_command, half_an_object]


def http_stalls(token: str) -> list[bytes]:
    """Half requests."""
    whole = request("POST", "/dicom-web/studies", token, "Content-Type: application/dicom")
    return [
        b"",
        b"GET /dicom-web/stu",
        whole[:-2],
        request("POST", "/api/v1/peers", token, "Content-Type: application/json", length=500),
        request(
            "POST", "/dicom-web/studies", token, "Content-Type: application/dicom",
            body=bytes(5000), length=10**6,
        ),
    ]  # fmt: skip

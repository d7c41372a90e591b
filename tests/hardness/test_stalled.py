"""R13, R14: those who hold connections and say nothing do not keep others out."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hardness import wire
from tests.hardness.http_wire import request
from tests.hardness.target import Target
from tests.hardness.wire import Line, associate_rq
from tests.support.product import Product
from tests.support.samples import part10, small
from tests.support.stalling import is_cut, stalled

STALLED = 60
"""Of each kind of door."""
READERS = 4
OBJECT_BYTES = 24 * 1024**2
"""More than the system keeps for a client that reads nothing."""
PATIENCE_S = 90.0
"""They are cut after half a minute; the machine may be slow."""


@pytest.fixture
def lines(target: Target) -> Iterator[list[socket.socket]]:
    """Hold half-spoken connections to both doors."""
    with stalled(target.product, target.token(), STALLED) as lines:
        yield lines


def test_r13_others_are_served_beside_stalled_connections_which_are_cut(
    target: Target, lines: list[socket.socket]
) -> None:
    readers = [_reader(target) for _ in range(READERS)]
    with target.unharmed():
        with target.line() as line:
            line.associate()
            assert line.echo()
        assert target.client().get("/dicom-web/studies?limit=1").status_code == 200
        assert len(_held(target, readers)) == READERS
        for connection in lines:
            connection.settimeout(PATIENCE_S)
            assert is_cut(connection)
        deadline = time.monotonic() + PATIENCE_S
        while _held(target, readers):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        for reader in readers:
            reader.close()


def _reader(target: Target) -> socket.socket:
    """Ask for a large object, and read nothing of it."""
    side = 2048
    large = small(93, Rows=side, Columns=OBJECT_BYTES // side // 2, PixelData=bytes(OBJECT_BYTES))
    stored = target.client().post(
        "/dicom-web/studies",
        content=part10(large),
        headers={"content-type": "application/dicom"},
    )
    assert stored.status_code == 200, stored.text
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", target.product.http_port))
    at = "/dicom-web/studies/2.25.99.93/series/2.25.99.93.1/instances/2.25.99.93.1.1"
    connection.sendall(request("GET", at, target.token()))
    return connection


def _held(target: Target, clients: list[socket.socket]) -> set[int]:
    """Return the ports of those clients that the product still keeps a connection with."""
    there = {
        connection.raddr.port
        for process in target.processes()
        for connection in process.net_connections()
        if connection.raddr
    }
    return there & {client.getsockname()[1] for client in clients}


def test_r14_strangers_beyond_the_cap_are_refused_and_peers_have_their_reserve(
    tmp_path: Path,
) -> None:
    limits = {
        "PACSTEWARD_DICOM__ASSOCIATIONS_MAX": "9",
        "PACSTEWARD_DICOM__RESERVED_FOR_REGISTERED": "3",
    }
    product = Product(tmp_path / "archive", limits).start()
    try:
        product.run("peers", "add", "CT1", "127.0.0.1", "104")
        inside = [_call(product, b"STRANGER") for _ in range(6)]
        assert [kind for kind, _, _ in inside] == [wire.ASSOCIATE_AC] * 6
        kind, answer, _ = refused = _call(product, b"STRANGER")
        assert (kind, tuple(answer[1:4])) == (wire.ASSOCIATE_RJ, (2, 3, 2))
        peers = [_call(product, b"CT1") for _ in range(3)]
        assert [kind for kind, _, _ in peers] == [wire.ASSOCIATE_AC] * 3
        kind, answer, _ = last = _call(product, b"CT1")
        assert (kind, tuple(answer[1:4])) == (wire.ASSOCIATE_RJ, (2, 3, 2))
        inside[0][2].socket.close()
        deadline = time.monotonic() + 60
        while _call(product, b"CT1")[0] != wire.ASSOCIATE_AC:
            assert time.monotonic() < deadline, "a slot that was left is not given again"
            time.sleep(0.05)
        for _, _, line in (*inside, *peers, refused, last):
            line.socket.close()
    finally:
        product.stop()


def _call(product: Product, title: bytes) -> tuple[int, bytes, Line]:
    line = Line(product.dimse_port)
    line.send(associate_rq(calling=title))
    answer = line.receive()
    assert answer is not None
    return answer[0], answer[1], line

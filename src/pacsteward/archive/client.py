"""The keeper, seen from another process: a web process, a job, a command.

Blocking and safe to be shared by threads; each request has a connection of its own while it lasts.
Storing is idempotent, so a request whose connection broke because the keeper was restarted is sent
once more.

References
----------
`handover.py` for what is said.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from pacsteward.archive.handover import ASKED_TEXT_MAX, address_of
from pacsteward.archive.messages import HEAD, error_of, keeper_is_away, result_of
from pacsteward.archive.model import Origin, StoreResult
from pacsteward.base.errors import Unavailable
from pacsteward.dicom.part10 import FileMeta

TIMEOUT_S: Final = 300.0
PRESENCE_S: Final = 2.0
"""After so long without an answer a keeper counts as away; it is asked on the health page."""
_KEPT_MAX: Final = 16


class KeeperClient:
    """Hands instances and wishes to the keeper of a data folder.

    Parameters
    ----------
    data_folder
        ``DIR``.
    """

    def __init__(self, data_folder: Path) -> None:
        self._run_folder = data_folder / "run"
        self._lock = threading.Lock()
        self._kept: list[socket.socket] = []

    def store(
        self, origin: Origin, meta: FileMeta, data: bytes | bytearray | memoryview
    ) -> StoreResult:
        """Store a whole instance; when this returns, it is safe.

        Raises
        ------
        Invalid, Exhausted
            The keeper did not take it.
        Unavailable
            There is no keeper.
        """
        request = {"call": "store", "origin": asdict(origin), "meta": asdict(meta)}
        found = self._ask(request, data)
        return result_of(found)

    def call(self, verb: str, arguments: Mapping[str, Any]) -> Any:
        """Have the keeper carry out a verb; JSON values in and out."""
        return self._ask({"call": verb, "arguments": dict(arguments)}, b"")

    def is_there(self) -> bool:
        """Say whether a keeper answers; one that hangs or was stopped has a socket, too."""
        try:
            with self._connect() as connection:
                connection.settimeout(PRESENCE_S)
                return self._exchange(connection, *_PRESENT) == {"result": None}
        except (Unavailable, OSError):
            return False

    def close(self) -> None:
        """End the connections."""
        with self._lock:
            kept, self._kept = self._kept, []
        for connection in kept:
            connection.close()

    # --- inside -----------------------------------------------------------------------------

    def _ask(self, request: Mapping[str, Any], data: bytes | bytearray | memoryview) -> Any:
        head = _head(request, data)
        connection, is_used = self._connection()
        try:
            answer = self._exchange(connection, head, data)
        except OSError:
            connection.close()
            if not is_used:
                raise keeper_is_away() from None
            # Kept from before a restart of the keeper.
            connection = self._connect()
            try:
                answer = self._exchange(connection, head, data)
            except OSError:
                connection.close()
                raise keeper_is_away() from None
        with self._lock:
            if len(self._kept) < _KEPT_MAX:
                self._kept.append(connection)
            else:
                connection.close()
        if "error" in answer:
            raise error_of(answer["error"])
        return answer["result"]

    def _connection(self) -> tuple[socket.socket, bool]:
        with self._lock:
            if self._kept:
                return self._kept.pop(), True
        return self._connect(), False

    def _connect(self) -> socket.socket:
        return connected(self._run_folder)

    @staticmethod
    def _exchange(
        connection: socket.socket, head: bytes, data: bytes | bytearray | memoryview
    ) -> dict[str, Any]:
        connection.sendall(head)
        if len(data):
            connection.sendall(data)
        return answer_on(connection)


def _head(request: Mapping[str, Any], data: bytes | bytearray | memoryview) -> bytes:
    text = json.dumps(request).encode()
    return HEAD.pack(len(text), len(data)) + text


_PRESENT: Final = _head({"call": "present"}, b""), b""


def connected(run_folder: Path) -> socket.socket:
    """Return a connection to the keeper.

    Raises
    ------
    Unavailable
        There is no keeper.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(TIMEOUT_S)
    try:
        connection.connect(str(address_of(run_folder)))
    except OSError:
        connection.close()
        raise keeper_is_away() from None
    return connection


def answer_on(connection: socket.socket) -> dict[str, Any]:
    """Return the next answer; blocks.

    Raises
    ------
    OSError
        The connection ended before.
    """
    text_bytes, _ = HEAD.unpack(_receive(connection, HEAD.size))
    if text_bytes > ASKED_TEXT_MAX:
        raise ConnectionError
    answer: dict[str, Any] = json.loads(_receive(connection, text_bytes))
    return answer


def _receive(connection: socket.socket, size: int) -> bytes:
    received = bytearray(size)
    view = memoryview(received)
    while view:
        count = connection.recv_into(view)
        if not count:
            raise ConnectionError
        view = view[count:]
    return bytes(received)

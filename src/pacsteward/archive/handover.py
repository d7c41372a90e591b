"""The keeper's door for other processes of the machine: a Unix socket (the map: `messages.py`).

A message is a head (`messages.py`; its number is the size of the data set), a text in JSON, and for
``store`` the data set. Requests::

    {"call": "store", "origin": {…}, "meta": {…}}        + data set
    {"call": "reject", "arguments": {…}}                  any verb of the keeper
    {"call": "present"}                                   whether somebody is at work here
    {"call": "share"}                                     from now on as `sharing.py` says

Answers are ``{"result": …}`` or ``{"error": {"kind", "what", "why", "remedy"}}``. A connection
serves one request after the other. Only the user that runs the archive may connect: the folder is
0700, the socket 0600.

The address of a Unix socket has at most 107 bytes. Where the data folder's path is longer, the
socket lies in a temporary folder, and ``run/keeper.address`` says where.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol, cast

from pacsteward.archive.messages import HEAD, error_fields, result_fields
from pacsteward.archive.model import Incoming, Origin
from pacsteward.archive.sharing import Closable, DescriptorWait, Keeping, SharedConnection
from pacsteward.base.errors import Broken, Invalid, PacstewardError
from pacsteward.dicom.part10 import FileMeta

ASKED_TEXT_MAX: Final = 64 << 20
"""Of a question or an answer; a deletion may name many thousand UIDs."""

PIECE_BYTES: Final = 1 << 20
ADDRESS_MAX: Final = 100
SOCKET_NAME: Final = "keeper.sock"
ADDRESS_NAME: Final = "keeper.address"
_TEMPORARY_PREFIX: Final = "pacsteward-"


class Owner(Keeping, Protocol):
    """What the door needs of the keeper."""

    def call(self, verb: str, arguments: Mapping[str, Any]) -> Any: ...  # noqa: D102


class Handover:
    """Listens on the socket.

    Parameters
    ----------
    owner
        The keeper.
    """

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._server: asyncio.Server | None = None
        self._address = Path()
        self._record = Path()
        self._connections: set[Closable] = set()

    async def open(self, run_folder: Path) -> None:
        """Begin to listen."""
        self._record = run_folder / ADDRESS_NAME
        self._remove_old(run_folder)
        self._address = run_folder / SOCKET_NAME
        if len(os.fsencode(self._address)) > ADDRESS_MAX:
            self._address = Path(tempfile.mkdtemp(prefix=_TEMPORARY_PREFIX)) / SOCKET_NAME
            self._record.write_text(str(self._address), encoding="utf-8")
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(
            lambda: _Connection(self._owner, self._connections), str(self._address)
        )
        self._address.chmod(0o600)

    async def close(self) -> None:
        """Listen no more, and end the connections there are."""
        if self._server is not None:
            self._server.close()
        for connection in tuple(self._connections):
            connection.close()
        if self._server is not None:
            await self._server.wait_closed()
            self._server = None
        self._address.unlink(missing_ok=True)
        if self._address.parent.name.startswith(_TEMPORARY_PREFIX):
            shutil.rmtree(self._address.parent, ignore_errors=True)
            self._record.unlink(missing_ok=True)

    def _remove_old(self, run_folder: Path) -> None:
        """Remove the socket of a keeper that was killed; ours is the folder's lock by now."""
        (run_folder / SOCKET_NAME).unlink(missing_ok=True)
        if self._record.exists():
            old = Path(self._record.read_text(encoding="utf-8"))
            if old.name == SOCKET_NAME and old.parent.name.startswith(_TEMPORARY_PREFIX):
                shutil.rmtree(old.parent, ignore_errors=True)
            self._record.unlink(missing_ok=True)


def address_of(run_folder: Path) -> Path:
    """Return where the keeper of a data folder listens, or would."""
    with contextlib.suppress(FileNotFoundError):
        return Path((run_folder / ADDRESS_NAME).read_text(encoding="utf-8"))
    return run_folder / SOCKET_NAME


class _Connection(asyncio.BufferedProtocol):
    """One process at the other end; what it sends is received into the buffers that are kept."""

    def __init__(self, owner: Owner, connections: set[Closable]) -> None:
        self._owner = owner
        self._connections = connections
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None
        self._wait: DescriptorWait | None = None
        self._begin_message()

    def _begin_message(self) -> None:
        self._stage = "head"
        self._expect(HEAD.size)
        self._data_left = 0
        self._receiver: Incoming | None = None
        self._failure: PacstewardError | None = None

    def _expect(self, size: int) -> None:
        self._buffer = memoryview(bytearray(size))
        self._filled = 0

    # --- what asyncio calls -----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not asserted: uvloop's transports are no subclass of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        if self._receiver is not None and self._task is None:
            self._receiver.abandon()
            self._receiver = None

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        if self._filled == len(self._buffer):
            self._stages[self._stage](self)

    def eof_received(self) -> bool:
        return False

    def close(self) -> None:
        """End it."""
        if self._wait is not None:
            self._wait.close()
            self._wait = None
        if self._transport is not None:
            self._transport.close()

    # --- one message ------------------------------------------------------------------------

    def _head(self) -> None:
        text_bytes, self._data_left = HEAD.unpack(self._buffer)
        if not 0 < text_bytes <= ASKED_TEXT_MAX:
            self.close()
            return
        self._stage = "text"
        self._expect(text_bytes)

    def _text(self) -> None:
        try:
            self._request = json.loads(bytes(self._buffer))
            if self._request["call"] == "store":
                origin = Origin(**self._request["origin"])
                self._receiver = self._owner.receive(origin, FileMeta(**self._request["meta"]))
        except PacstewardError as error:
            # The data set is drained, so that the connection can go on.
            self._failure = error
        except (ValueError, KeyError, TypeError) as error:
            self._failure = Invalid(
                "A request to the keeper was not understood.", why=f"{type(error).__name__}."
            )
        self._next_piece()

    def _piece(self) -> None:
        self._data_left -= len(self._buffer)
        if self._receiver is not None:
            self._receiver.write(self._buffer)
        self._next_piece()

    def _next_piece(self) -> None:
        if self._data_left:
            self._stage = "piece"
            self._expect(min(PIECE_BYTES, self._data_left))
            return
        assert self._transport is not None
        self._transport.pause_reading()
        # Never filled while the answer is made.
        self._expect(1)
        if self._failure is None and self._request["call"] == "share":
            self._wait = DescriptorWait(self._transport, self._share, self.close)
            self._say({"result": "ready"})
            return
        self._task = asyncio.get_running_loop().create_task(self._answer())

    _stages: Final = {"head": _head, "text": _text, "piece": _piece}

    async def _answer(self) -> None:
        try:
            answer = {"result": await self._result()}
        except PacstewardError as error:
            answer = {"error": error_fields(error)}
        except Exception as error:  # noqa: BLE001 — the other process must get an answer
            asyncio.get_running_loop().call_exception_handler(
                {"message": "A request to the keeper failed.", "exception": error}
            )
            answer = {"error": error_fields(Broken("The request to the keeper failed."))}
        self._task = None
        assert self._transport is not None
        if self._transport.is_closing():
            return
        self._say(answer)
        self._begin_message()
        self._transport.resume_reading()

    def _share(self, memory: memoryview, connection: socket.socket) -> None:
        """Let a connection of the other kind go on."""
        self._wait = None
        SharedConnection(self._owner, memory, connection, self._connections).start()
        self.close()

    def _say(self, answer: Mapping[str, Any]) -> None:
        assert self._transport is not None
        text = json.dumps(answer).encode()
        self._transport.write(HEAD.pack(len(text), 0) + text)

    async def _result(self) -> Any:
        if self._failure is not None:
            raise self._failure
        if self._receiver is not None:
            receiver, self._receiver = self._receiver, None
            return result_fields(await receiver.finish())
        if self._request["call"] == "present":
            return None
        return await asyncio.to_thread(
            self._owner.call, self._request["call"], self._request.get("arguments", {})
        )

"""Where C-MOVE sends to: it takes everything, counts it, and keeps nothing."""

from __future__ import annotations

import multiprocessing
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.sharedctypes import Synchronized

from bench.dimse_client import Wire, accept_all, store_answer


class Counted:
    """What has arrived, as seen from the process that reads it."""

    def __init__(self, instances: Synchronized[int], size_bytes: Synchronized[int]) -> None:
        self._instances = instances
        self._size_bytes = size_bytes

    def add(self, size_bytes: int) -> None:
        """Count one more object."""
        with self._instances.get_lock():
            self._instances.value += 1
            self._size_bytes.value += size_bytes

    def now(self) -> tuple[int, int]:
        """Return how many objects and how many bytes of data sets have come so far."""
        with self._instances.get_lock():
            return self._instances.value, self._size_bytes.value


@contextmanager
def sink(port: int) -> Iterator[Counted]:
    """Take objects at `port`, in a process of its own."""
    context = multiprocessing.get_context("fork")
    counted = Counted(context.Value("q", 0), context.Value("q", 0))
    listener = socket.create_server(("127.0.0.1", port))
    process = context.Process(target=_serve, args=(listener, counted), daemon=True)
    process.start()
    listener.close()
    try:
        yield counted
    finally:
        process.kill()
        process.join()


def _serve(listener: socket.socket, counted: Counted) -> None:
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_take, args=(connection, counted), daemon=True).start()


def _take(connection: socket.socket, counted: Counted) -> None:
    wire = Wire(connection)
    with suppress(OSError):
        accept_all(wire)
        while True:
            message = wire.message()
            counted.add(message.size_bytes)
            wire.send(store_answer(message))
    with suppress(OSError):
        # Whatever ended it, the answer to a release is right, and an abort is not read.
        wire.send(b"\x06\x00\x00\x00\x00\x04\x00\x00\x00\x00")
    connection.close()

"""What a server costs besides its work: start-up, replay, memory, disk."""

from __future__ import annotations

import shutil
import struct
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from bench import objects
from bench.dimse_client import (
    C_STORE,
    EXPLICIT_LITTLE,
    Association,
    encode,
    uid,
)
from bench.figure import Figure, Unit, rounded
from bench.http_client import HttpConnection, first_part, request
from bench.load import FAILED, run
from bench.objects import Encoded
from bench.retrieve import OBJECTS, PIXELS
from bench.scale import Scale
from bench.servers import Server, Start, fresh, pacsteward
from bench.store import read_back, store

START_KIND: Final = "start"
MEMORY_KIND: Final = "memory"
DISK_KIND: Final = "disk"

REPLAY_TIMEOUT_S: Final = 120.0
SEGMENT_OBJECTS: Final = 512
"""So many CT slices of 525 KB are more than a landing segment of 256 MiB holds."""


def _figure(
    kind: str,
    work: str,
    server: str,
    unit: Unit,
    *rounds: float,
    errors: int = 0,
    compared: int = 0,
) -> Figure:
    return Figure(kind, work, server, unit, rounded(rounds), errors=errors, compared=compared)


# --- start and replay ----------------------------------------------------------------------------


def measure_start(start: Start, scale: Scale, pattern: str = "") -> Iterator[Figure]:
    """Measure from the command to ready: the first time, and over a folder that is there."""
    with tempfile.TemporaryDirectory(prefix="bench-start-") as folder:
        with start(Path(folder)) as server:
            name = server.name
            yield _figure(START_KIND, "Ready, first start", name, "s", server.started_in_s)
        again = []
        for _ in range(scale.rounds):
            with start(Path(folder)) as server:
                again.append(server.started_in_s)
        yield _figure(START_KIND, "Ready, folder is there", name, "s", *again)


def measure_replay(start: Start, scale: Scale, pattern: str = "") -> Iterator[Figure]:
    """Measure how long a full landing segment takes to be indexed anew at the start.

    The index of before is put back under a log that has gone on, which is what a power cut leaves
    at worst: the index is committed without waiting for the disk.
    """
    with tempfile.TemporaryDirectory(prefix="bench-replay-") as place:
        folder = Path(place)
        data, before = folder / "data", folder / "before"
        with pacsteward(folder) as server:
            headers = server.headers
        before.mkdir()
        for file in data.glob("index.db*"):
            shutil.copy(file, before)
        batch = objects.w1(77, 64 if scale.is_quick else SEGMENT_OBJECTS)
        with pacsteward(folder, headers=headers) as server:
            errors = store(server, batch, 4).errors
            server.settle()
        for file in data.glob("index.db*"):
            file.unlink()
        for file in before.iterdir():
            shutil.copy(file, data)
        began = time.monotonic()
        with pacsteward(folder, headers=headers) as server:
            is_there = _await_last(server, batch)
            took = time.monotonic() - began
            compared, unequal = read_back(server, batch)
    work = f"Start and replay of {len(batch)} CT"
    errors += unequal + (not is_there)
    yield _figure(START_KIND, work, "Pacsteward", "s", took, errors=errors, compared=compared)


def _await_last(server: Server, batch: Sequence[Encoded]) -> bool:
    """Ask until the last object is found."""
    headers = {**server.headers, "Accept": OBJECTS}
    deadline = time.monotonic() + REPLAY_TIMEOUT_S
    connection = HttpConnection(server.http_port)
    while time.monotonic() < deadline:
        if connection.ask(request("GET", batch[-1].path(server.web), headers)).status == 200:
            return True
        time.sleep(0.05)
    return False


# --- memory --------------------------------------------------------------------------------------


@dataclass
class Peak:
    """The most memory that was seen, and what there was before."""

    before_mb: float
    peak_mb: float = field(default=0.0)

    @property
    def growth_mb(self) -> float:
        """Return how much more it was at most."""
        return max(0.0, self.peak_mb - self.before_mb)


@contextmanager
def watched(server: Server) -> Iterator[Peak]:
    """Watch a server's memory while the block runs."""
    peak = Peak(server.memory_bytes() / 1e6)
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            peak.peak_mb = max(peak.peak_mb, server.memory_bytes() / 1e6)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()
        peak.peak_mb = max(peak.peak_mb, server.memory_bytes() / 1e6)


def measure_memory(start: Start, scale: Scale, pattern: str = "") -> Iterator[Figure]:
    """Measure idle and under load, and with an object of gigabytes where the server takes one."""
    with fresh(start) as server:
        server.settle()
        yield _figure(MEMORY_KIND, "Memory, idle", server.name, "MB", server.memory_bytes() / 1e6)
        batch = objects.w1(31, 200 if scale.is_quick else 800)
        with watched(server) as peak:
            errors = store(server, batch, 4).errors
            errors += _read_frames(server, batch)
        name = "Memory, storing x4 and reading frames x4"
        yield _figure(MEMORY_KIND, name, server.name, "MB", peak.peak_mb, errors=errors)
        if server.is_ours:
            yield from _big(server, scale.big_bytes)


def _read_frames(server: Server, batch: Sequence[Encoded]) -> int:
    headers = {**server.headers, "Accept": PIXELS}
    requests = [request("GET", f"{one.path(server.web)}/frames/1", headers) for one in batch]
    return run([partial(_ask_all, server, requests[share::4]) for share in range(4)]).errors


def _ask_all(server: Server, requests: Sequence[bytes]) -> Iterator[int]:
    connection = HttpConnection(server.http_port)
    yield 0
    for one in requests:
        answer = connection.ask(one)
        yield answer.size_bytes if answer.status == 200 else FAILED
    connection.close()


def _big(server: Server, size_bytes: int) -> Iterator[Figure]:
    """Send a multi-frame object of gigabytes in and fetch it again."""
    big = objects.BigMultiframe.of(size_bytes)
    server.settle()
    label = f"{size_bytes / 1e9:g} GB object"
    with watched(server) as peak:
        load = run([partial(_send_big, server, big)])
    yield _figure(MEMORY_KIND, f"{label} in by C-STORE", server.name, "MB/s", load.mb_per_s)
    yield _figure(
        MEMORY_KIND,
        f"{label} in, growth of memory",
        server.name,
        "MB",
        peak.growth_mb,
        errors=load.errors,
    )
    requests = [request("GET", big.one.path(server.web), {**server.headers, "Accept": OBJECTS})]
    with watched(server) as peak:
        load = run([partial(_ask_all, server, requests)])
    is_whole = load.size_bytes >= big.size_bytes
    yield _figure(MEMORY_KIND, f"{label} out by WADO-RS", server.name, "MB/s", load.mb_per_s)
    yield _figure(
        MEMORY_KIND,
        f"{label} out, growth of memory",
        server.name,
        "MB",
        peak.growth_mb,
        errors=load.errors + (not is_whole),
    )
    last = request(
        "GET",
        f"{big.one.path(server.web)}/frames/{big.frames}",
        {**server.headers, "Accept": PIXELS},
    )
    answer = HttpConnection(server.http_port).ask(last, keep=True)
    is_equal = answer.status == 200 and first_part(answer) == big.frame
    yield _figure(
        MEMORY_KIND,
        f"{label}, its last frame",
        server.name,
        "KB",
        answer.size_bytes / 1000,
        errors=not is_equal,
        compared=is_equal,
    )


def _send_big(server: Server, big: objects.BigMultiframe) -> Iterator[int]:
    contexts = {1: (big.one.sop_class_uid, (EXPLICIT_LITTLE,))}
    association = Association(server.port, server.ae_title, contexts)
    elements = {
        0x0002: uid(big.one.sop_class_uid),
        0x0100: C_STORE,
        0x0110: 1,
        0x0700: 0,
        0x1000: uid(big.one.sop_instance_uid),
    }
    head = encode(1, elements, big.one.data_set, association.peer_max)
    # Its data set ends with these bytes no more: the last fragment of the head is not the last.
    head = _not_last(head, len(big.one.data_set), association.peer_max)
    room = association.peer_max - 6
    pieces = [big.frame[start : start + room] for start in range(0, len(big.frame), room)]
    pdus = [_fragment(piece, is_last=False) for piece in pieces]
    frame = b"".join(pdus)
    last_frame = b"".join(pdus[:-1]) + _fragment(pieces[-1], is_last=True)
    yield 0
    association.send(head)
    for _ in range(big.frames - 1):
        association.send(frame)
    association.send(last_frame)
    yield big.size_bytes if association.message().status == 0 else FAILED
    association.release()


def _fragment(piece: bytes, *, is_last: bool) -> bytes:
    size = len(piece)
    return struct.pack(">BBIIBB", 4, 0, size + 6, size + 2, 1, 2 if is_last else 0) + piece


def _not_last(message: bytes, size: int, peer_max: int) -> bytes:
    """Clear the mark of the last fragment; the data set is short, so it is the only one."""
    if size > peer_max - 6:
        raise ValueError("The head of the big object must fit into one fragment.")
    return message[: -size - 1] + b"\0" + message[-size:]


# --- disk ----------------------------------------------------------------------------------------


def measure_disk(start: Start, scale: Scale, pattern: str = "") -> Iterator[Figure]:
    """Measure what small objects take in the database and on the disk, once the server is down."""
    count = 1000 if scale.is_quick else 4000
    batch = objects.w2(41, count)
    with tempfile.TemporaryDirectory(prefix="bench-disk-") as folder:
        with start(Path(folder)) as server:
            name = server.name
            errors = store(server, batch, 4).errors
            server.settle()
        files = [file for file in Path(folder).rglob("*") if file.is_file()]
        database = sum(_allocated(file) for file in files if "index" in file.name)
        whole = sum(_allocated(file) for file in files)
    sent = sum(len(one.data_set) for one in batch)
    yield _figure(
        DISK_KIND, "Database for each W2", name, "KB", database / count / 1000, errors=errors
    )
    yield _figure(DISK_KIND, "Data sets of each W2", name, "KB", sent / count / 1000)
    yield _figure(DISK_KIND, f"Disk in all for {count:,} W2", name, "MB", whole / 1e6)


def _allocated(file: Path) -> int:
    return file.stat().st_blocks * 512

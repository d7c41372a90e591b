"""Work that stores: C-STORE, dcmtk's dcmsend, STOW-RS. A sample is read back and compared."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final

from bench import objects
from bench.c_store import send
from bench.figure import Figure, rounded
from bench.http_client import HttpConnection, first_part, request
from bench.load import DEFAULT_TIMEOUT_S, FAILED, Load, run
from bench.objects import Encoded
from bench.scale import Scale
from bench.servers import Server, Start, fresh

KIND: Final = "store"
BOUNDARY: Final = "bench-boundary-7d3f"
PAUSE_S: Final = 4.0
"""Between two rounds, as between two examinations."""

SAMPLE: Final = 8
"""Objects of each work that are read back."""


@dataclass(frozen=True, slots=True)
class Work:
    """One kind of load."""

    name: str
    make: Callable[[int, int], list[Encoded]]
    send: Callable[[Server, Sequence[Encoded]], Load]
    count: int
    quick_count: int
    needs_web: bool = False


def store(server: Server, batch: Sequence[Encoded], associations: int) -> Load:
    """Send objects by C-STORE over so many associations at once."""
    return send(server.port, server.ae_title, batch, associations)


def stow(server: Server, batch: Sequence[Encoded], each: int, connections: int) -> Load:
    """Send objects by STOW-RS, so many in each request, over so many connections at once."""
    shares = [batch[start::connections] for start in range(connections)]
    load = run([partial(_stow_client, server, share, each) for share in shares])
    return load.counted_as(len(batch))


def _stow_client(server: Server, share: Sequence[Encoded], each: int) -> Iterator[int]:
    headers = {
        **server.headers,
        "Content-Type": f'multipart/related; type="application/dicom"; boundary={BOUNDARY}',
        "Accept": "application/dicom+json",
    }
    batches = [share[start : start + each] for start in range(0, len(share), each)]
    bodies = [
        request("POST", f"{server.web}/studies", headers, _multipart(batch)) for batch in batches
    ]
    connection = HttpConnection(server.http_port)
    yield 0
    for body, batch in zip(bodies, batches, strict=True):
        answer = connection.ask(body)
        yield sum(len(one.data_set) for one in batch) if answer.status == 200 else FAILED
    connection.close()


def _multipart(batch: Sequence[Encoded]) -> bytes:
    head = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    parts = b"".join(head + one.part10() + b"\r\n" for one in batch)
    return parts + f"--{BOUNDARY}--\r\n".encode()


def dcmsend(server: Server, batch: Sequence[Encoded], associations: int) -> Load:
    """Send objects by dcmtk's own program, with its own ways of using the network."""
    with tempfile.TemporaryDirectory(prefix="bench-dcmsend-") as folder:
        shares = [Path(folder) / str(number) for number in range(associations)]
        for share in shares:
            share.mkdir()
        for number, one in enumerate(batch):
            (shares[number % associations] / f"{number:06d}.dcm").write_bytes(one.part10())
        command = [_dcmsend(), "-q", "-aec", server.ae_title, "--max-send-pdu", "131072"]
        address = ["+sd", "127.0.0.1", str(server.port)]
        began = time.perf_counter()
        senders = [
            subprocess.Popen(
                [*command, *address, str(share)],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for share in shares
        ]
        errors = sum(_failed(sender) for sender in senders)
        seconds = time.perf_counter() - began
    size_bytes = sum(len(one.data_set) for one in batch)
    return Load(seconds, len(batch), size_bytes, errors, 0.0, 0.0, 0.0)


def _dcmsend() -> str:
    return shutil.which("dcmsend") or "/usr/bin/dcmsend"


def _failed(sender: subprocess.Popen[bytes]) -> bool:
    try:
        return sender.wait(timeout=DEFAULT_TIMEOUT_S) != 0
    except subprocess.TimeoutExpired:
        sender.kill()
        sender.wait()
        return True


WORKS: Final = (
    Work("C-STORE W1 x1", objects.w1, partial(store, associations=1), 600, 100),
    Work("C-STORE W1 x4", objects.w1, partial(store, associations=4), 1600, 200),
    Work("C-STORE W1 x16", objects.w1, partial(store, associations=16), 800, 200),
    Work("C-STORE W2 x4", objects.w2, partial(store, associations=4), 8000, 1000),
    Work("dcmsend W1 x1", objects.w1, partial(dcmsend, associations=1), 100, 30),
    Work("dcmsend W1 x4", objects.w1, partial(dcmsend, associations=4), 600, 80),
    Work(
        "STOW-RS W1, 1 a request, x4",
        objects.w1,
        partial(stow, each=1, connections=4),
        800,
        100,
        needs_web=True,
    ),
    Work(
        "STOW-RS W1, 10 a request, x4",
        objects.w1,
        partial(stow, each=10, connections=4),
        800,
        120,
        needs_web=True,
    ),
)
"""W1 are CT slices of 525 KB, W2 objects of 10 to 26 KB."""


def measure(start: Start, scale: Scale, pattern: str = "") -> Iterator[Figure]:
    """Measure each work whose name contains `pattern`, over fresh storage."""
    with fresh(start) as server:
        for index, work in enumerate(WORKS):
            if pattern in work.name and (server.has_web or not work.needs_web):
                yield measure_work(server, scale, index, work)


def measure_work(server: Server, scale: Scale, index: int, work: Work) -> Figure:
    """Warm up, then measure several times, with new UIDs each time."""
    work.send(server, work.make(900 + index, 40))
    _pause(server, scale)
    count = work.quick_count if scale.is_quick else work.count
    loads: list[Load] = []
    cpu: list[float] = []
    batch: list[Encoded] = []
    for number in range(scale.rounds):
        batch = work.make(10 * (index + 1) + number, count)
        before = server.cpu_seconds()
        loads.append(work.send(server, batch))
        # What it does for these objects after Success belongs to them as well.
        _pause(server, scale)
        cpu.append((server.cpu_seconds() - before) / count * 1000)
    compared, unequal = read_back(server, batch)
    return Figure(
        kind=KIND,
        work=work.name,
        server=server.name,
        unit="/s",
        rounds=rounded([load.rate for load in loads]),
        cpu_ms=median(cpu),
        p50_ms=median(load.latency_p50_ms for load in loads) or None,
        p95_ms=median(load.latency_p95_ms for load in loads) or None,
        p99_ms=median(load.latency_p99_ms for load in loads) or None,
        memory_mb=server.memory_bytes() / 1e6,
        safe=server.safe,
        errors=sum(load.errors for load in loads) + unequal,
        compared=compared,
    )


def _pause(server: Server, scale: Scale) -> None:
    if scale.is_quick:
        server.settle()
        return
    time.sleep(PAUSE_S)
    server.settle(to_the_disk=True)


def read_back(server: Server, batch: Sequence[Encoded], count: int = SAMPLE) -> tuple[int, int]:
    """Fetch a sample by WADO-RS; return how many were equal and how many were not.

    Of a server without DICOMweb the files are read that it wrote.
    """
    if not server.has_web:
        return _read_files(server, _sample(batch, count))
    headers = {
        **server.headers,
        "Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*',
    }
    equal = unequal = 0
    connection = HttpConnection(server.http_port)
    for one in _sample(batch, count):
        answer = connection.ask(request("GET", one.path(server.web), headers), keep=True)
        if answer.status == 200 and first_part(answer)[132:].endswith(one.data_set):
            equal += 1
        else:
            print(f"    read back: {one.sop_instance_uid} differs (HTTP {answer.status})")
            unequal += 1
    connection.close()
    return equal, unequal


def _sample(batch: Sequence[Encoded], count: int) -> Sequence[Encoded]:
    return batch[:: max(1, len(batch) // count)][:count]


def _read_files(server: Server, sample: Sequence[Encoded]) -> tuple[int, int]:
    """Return of how many objects a file was written that ends with their data set."""
    equal = 0
    for one in sample:
        found = server.folder.rglob(f"*{one.sop_instance_uid}*")
        equal += any(file.read_bytes().endswith(one.data_set) for file in found)
    return equal, len(sample) - equal

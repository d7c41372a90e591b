"""Several clients at once, a process each, started together.

A client is a generator: it connects and encodes until its first ``yield``, then does one request
for each further ``next`` and yields its bytes, or `FAILED`. Whatever it raises is a failure of the
request it was at and ends it. Nothing here waits without an end.
"""

from __future__ import annotations

import multiprocessing
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

FAILED: Final = -1
PREPARE_TIMEOUT_S: Final = 120.0
DEFAULT_TIMEOUT_S: Final = 300.0

Client = Callable[[], Iterator[int]]


@dataclass(frozen=True, slots=True)
class Load:
    """How a round went."""

    seconds: float
    requests: int
    size_bytes: int
    errors: int
    latency_p50_ms: float
    latency_p95_ms: float
    latency_p99_ms: float

    @property
    def rate(self) -> float:
        """Return requests per second."""
        return self.requests / self.seconds

    @property
    def mb_per_s(self) -> float:
        """Return megabytes per second."""
        return self.size_bytes / self.seconds / 1e6

    def counted_as(self, items: int) -> Load:
        """Return the same load, of which each request held several things that are counted."""
        return replace(self, requests=items)


def run(clients: Sequence[Client], *, timeout_s: float = DEFAULT_TIMEOUT_S) -> Load:
    """Run all clients at once; those that do not end in time count as an error each."""
    context = multiprocessing.get_context("fork")
    ready, results = context.Barrier(len(clients) + 1), context.Queue()
    workers = [
        context.Process(target=_work, args=(client, ready, results), daemon=True)
        for client in clients
    ]
    for worker in workers:
        worker.start()
    try:
        ready.wait(timeout=PREPARE_TIMEOUT_S)
        rows = _rows(results, len(clients), timeout_s)
    except threading.BrokenBarrierError:
        rows = []
    finally:
        for worker in workers:
            worker.join(timeout=10)
            if worker.is_alive():
                worker.kill()
                worker.join()
    return _together(rows, len(clients))


def _work(client, ready, results) -> None:  # type: ignore[no-untyped-def]
    errors, size_bytes = 0, 0
    latencies: list[float] = []
    began = ended = time.perf_counter()
    try:
        requests = client()
        next(requests)
        ready.wait(timeout=PREPARE_TIMEOUT_S)
        began = ended = last = time.perf_counter()
        for outcome in requests:
            now = time.perf_counter()
            latencies.append(now - last)
            last = ended = now
            if outcome == FAILED:
                errors += 1
            else:
                size_bytes += outcome
    except Exception as error:  # noqa: BLE001 - it is told, and counts
        print(f"    a client failed: {type(error).__name__}: {error}", flush=True)
        errors += 1
        if not latencies:
            ready.abort()
    results.put((began, ended, errors, size_bytes, latencies))


def _rows(results, count: int, timeout_s: float) -> list:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + timeout_s
    rows = []
    while len(rows) < count:
        try:
            rows.append(results.get(timeout=max(0.1, deadline - time.monotonic())))
        except queue.Empty:
            print(f"    {count - len(rows)} clients did not end in {timeout_s:.0f} s", flush=True)
            break
    return rows


def _together(rows, count: int) -> Load:  # type: ignore[no-untyped-def]
    latencies = sorted(latency for row in rows for latency in row[4]) or [0.0]
    seconds = max((row[1] for row in rows), default=0.0) - min(
        (row[0] for row in rows), default=0.0
    )
    return Load(
        seconds=max(seconds, 1e-9),
        requests=sum(len(row[4]) for row in rows),
        size_bytes=sum(row[3] for row in rows),
        errors=sum(row[2] for row in rows) + count - len(rows),
        latency_p50_ms=latencies[len(latencies) // 2] * 1000,
        latency_p95_ms=latencies[int(len(latencies) * 0.95)] * 1000,
        latency_p99_ms=latencies[int(len(latencies) * 0.99)] * 1000,
    )

"""The product under attack, and what must not happen to it meanwhile."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import httpx
import psutil

from pacsteward.web.settings import WebSettings
from tests.hardness.wire import Line
from tests.support.product import Product
from tests.support.samples import part10, small

T = TypeVar("T")
R = TypeVar("R")

GROWTH_MAX_BYTES = 256 * 1024**2
ECHO_MAX_S = 1.0
AT_ONCE = 8


@dataclass
class Target:
    """One running product."""

    product: Product
    outside: Path
    """Holds the product's home and temporary folder; nothing may be left there."""
    clients: dict[str, httpx.Client] = field(default_factory=dict)
    stranger: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=20))
    """Knows no token and keeps no cookies that would matter."""

    @property
    def port(self) -> int:
        return self.product.dimse_port

    def client(self, role: str = "administrator") -> httpx.Client:
        if role not in self.clients:
            self.clients[role] = self.product.client(role)
        return self.clients[role]

    def token(self, role: str = "administrator") -> str:
        return self.client(role).headers["authorization"].partition(" ")[2]

    def line(self) -> Line:
        return Line(self.port)

    def processes(self) -> list[psutil.Process]:
        assert self.product.process is not None
        supervisor = psutil.Process(self.product.process.pid)
        return [supervisor, *supervisor.children()]

    def pids(self) -> set[int]:
        return {process.pid for process in self.processes()}

    def memory_bytes(self) -> int:
        """Sum up what the whole family holds for itself, decoders included."""
        family = {process.pid: process for process in self.processes()}
        for process in list(family.values()):
            family.update({child.pid: child for child in process.children(recursive=True)})
        total = 0
        for process in family.values():
            try:
                total += process.memory_full_info().uss
            except psutil.NoSuchProcess:
                continue
        return total

    def echo_s(self) -> float:
        """Return how long a C-ECHO takes on a new association; the machine may hiccup once."""
        taken = []
        for _ in range(3):
            began = time.monotonic()
            with self.line() as line:
                line.associate()
                assert line.echo()
            taken.append(time.monotonic() - began)
            if taken[-1] <= ECHO_MAX_S:
                break
        return min(taken)

    @contextmanager
    def unharmed(self) -> Iterator[None]:
        """Look at everything before and after."""
        pids, memory = self.pids(), self.memory_bytes()
        log_size = self.product.log_file.stat().st_size
        files = files_of(self.outside)
        yield
        self.echo_s()
        # Another web process may have begun, when there were two callers for the first time.
        assert self.pids() >= pids, "a process ended and was started again"
        grown = self.memory_bytes() - memory
        assert grown <= GROWTH_MAX_BYTES, f"{grown >> 20} MiB more than before"
        with self.product.log_file.open("rb") as log:
            log.seek(log_size)
            faults = list(faults_in(log.read().decode(errors="replace").splitlines()))
        assert not faults, "\n".join(faults[:5])
        assert files_of(self.outside) == files, "something was written outside"


@contextmanager
def under_attack(root: Path) -> Iterator[Target]:
    """Give a running product that has done a little of everything, and end it."""
    outside = root / "outside"
    for name in ("home", "tmp"):
        (outside / name).mkdir(parents=True)
    places = {"HOME": str(outside / "home"), "TMPDIR": str(outside / "tmp")}
    running = Target(Product(root / "archive", places).start(), outside)
    try:
        _warm_up(running)
        yield running
    finally:
        for client in (*running.clients.values(), running.stranger):
            client.close()
        running.product.stop()


def _warm_up(target: Target) -> None:
    """Load what is loaded late, so that it does not count as growth."""
    stored = target.client().post(
        "/dicom-web/studies",
        content=part10(small(1)),
        headers={"content-type": "application/dicom"},
    )
    assert stored.status_code == 200, stored.text
    for path in ("instances/2.25.99.1.1.1/rendered", "instances/2.25.99.1.1.1"):
        answer = target.client().get(f"/dicom-web/studies/2.25.99.1/series/2.25.99.1.1/{path}")
        assert answer.status_code == 200, answer.text
    assert target.client().get("/studies").status_code == 200
    target.echo_s()
    _await_all_web_processes(target)


def _await_all_web_processes(target: Target) -> None:
    """Have those begin that come when two call at once; they are no growth either."""
    settings = WebSettings()
    wanted = len(target.processes()) + settings.process_count - 1
    address = ("127.0.0.1", target.product.http_port)
    deadline = time.monotonic() + 30
    while len(target.processes()) < wanted:
        with socket.create_connection(address), socket.create_connection(address):
            assert time.monotonic() < deadline
            time.sleep(0.1)


def files_of(folder: Path) -> set[str]:
    """Name all that is below a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def faults_in(lines: Iterable[str]) -> Iterator[str]:
    """Give the lines of the log that must not be there: what is no event, and our own faults."""
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            yield f"no event: {line[:300]}"
            continue
        if event.get("level") in ("error", "critical"):
            yield line[:6000]


def at_once(work: Callable[[T], R], cases: Iterable[T], *, threads: int = AT_ONCE) -> list[R]:
    """Do `work` for all cases, a few at a time, in their order."""
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, cases))

"""The servers that are compared, each started over fresh storage and stopped again."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import psutil
import psycopg
from tests.support.ports import free_port
from tests.support.postgres import running_cluster

from bench import catalogue

SINK: Final = "BENCHSINK"
"""AE title of the C-MOVE destination; each server is told of it."""

START_TIMEOUT_S: Final = 120.0
STOP_TIMEOUT_S: Final = 30.0
SETTLE_TIMEOUT_S: Final = 20.0

DURABLE_POSTGRES: Final = """
fsync = on
synchronous_commit = on
full_page_writes = on
shared_buffers = 256MB
max_wal_size = 2GB
autovacuum_naptime = 1min
"""


@dataclass
class Server:
    """A running server."""

    name: str
    safe: str
    """What is safe when it says Success."""
    ae_title: str
    port: int
    http_port: int
    sink_port: int
    folder: Path
    process: subprocess.Popen[bytes]
    started_in_s: float
    headers: dict[str, str] = field(default_factory=dict)
    helpers: tuple[int, ...] = ()
    """Processes that work for it outside its tree: its database."""
    web: str = "/dicom-web"

    @property
    def is_ours(self) -> bool:
        """Whether it is the product."""
        return self.ae_title == "PACSTEWARD"

    @property
    def has_web(self) -> bool:
        """Whether it speaks DICOMweb."""
        return self.http_port > 0

    def cpu_seconds(self) -> float:
        """Return the CPU time of its whole process tree."""
        total = 0.0
        for process in self.tree():
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system + times.children_user + times.children_system
        return total

    def memory_bytes(self) -> int:
        """Return the memory of its whole process tree, shared pages counted once."""
        total = 0
        for process in self.tree():
            with suppress(psutil.NoSuchProcess):
                total += process.memory_full_info().pss
        return total

    def tree(self) -> list[psutil.Process]:
        """Return its processes."""
        found = []
        for pid in (self.process.pid, *self.helpers):
            with suppress(psutil.NoSuchProcess):
                root = psutil.Process(pid)
                found += [root, *root.children(recursive=True)]
        return found

    def settle(self, *, to_the_disk: bool = False) -> None:
        """Wait until it has no more work of its own to do, so that it does not count as the next.

        Idle is a tenth of a core over a third of a second or two; it is waited for 20 s at most.

        Parameters
        ----------
        to_the_disk
            Whether it must also have stopped to write: some prepare room ahead while nobody
            sends.
        """
        deadline = time.monotonic() + SETTLE_TIMEOUT_S
        pause_s = 0.6 if to_the_disk else 0.3
        before = self.cpu_seconds(), self.folder_bytes() if to_the_disk else 0
        while time.monotonic() < deadline:
            time.sleep(pause_s)
            now = self.cpu_seconds(), self.folder_bytes() if to_the_disk else 0
            if now[0] - before[0] < 0.1 * pause_s and now[1] == before[1]:
                return
            before = now

    def folder_bytes(self) -> int:
        """Return what its folder takes on the disk."""
        total = 0
        for file in self.folder.rglob("*"):
            with suppress(OSError):
                total += file.stat().st_blocks * 512
        return total


class Start(Protocol):
    """What runs a server over a folder, with a catalogue of so many studies in it."""

    def __call__(self, folder: Path, *, studies: int = 0) -> AbstractContextManager[Server]:
        """Run it until the block ends."""
        ...


@contextmanager
def pacsteward(
    folder: Path,
    environment: Mapping[str, str] | None = None,
    name: str = "Pacsteward",
    helpers: tuple[int, ...] = (),
    studies: int = 0,
    headers: dict[str, str] | None = None,
) -> Iterator[Server]:
    """Run Pacsteward with its defaults over `folder`, which may hold an archive already.

    Parameters
    ----------
    studies
        Size of the catalogue to put into it before; 0 for none.
    headers
        Credentials that it knows from before; None makes new ones and registers the sink.
    """
    if studies:
        catalogue.copied(folder / "data", studies)
    port, http_port, sink_port = free_port(), free_port(), free_port()
    command = [sys.executable, "-m", "pacsteward"]
    data = ["--data", str(folder / "data")]
    ports = ["--dimse-port", str(port), "--http-port", str(http_port)]
    variables = {**os.environ, **(environment or {})}
    began = time.monotonic()
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [*command, "serve", *data, *ports],
            stdout=log,
            stderr=log,
            env=variables,
            start_new_session=True,
        )
    try:
        _await(f"http://127.0.0.1:{http_port}/readyz", process, folder / "log")
        started_in_s = time.monotonic() - began

        if headers is None:
            headers = _introduce(command, data, variables, sink_port)
        yield Server(
            name=name,
            safe="object, source of index",
            ae_title="PACSTEWARD",
            port=port,
            http_port=http_port,
            sink_port=sink_port,
            folder=folder,
            process=process,
            started_in_s=started_in_s,
            headers=headers,
            helpers=helpers,
        )
    finally:
        stop(process, whole_group=True)


def _introduce(
    command: Sequence[str], data: Sequence[str], variables: Mapping[str, str], sink_port: int
) -> dict[str, str]:
    """Register the sink and return the headers that let a client in."""

    def say(*words: str) -> str:
        return subprocess.run(
            [*command, *words, *data],
            capture_output=True,
            text=True,
            check=True,
            timeout=START_TIMEOUT_S,
            env=variables,
        ).stdout.strip()

    with suppress(subprocess.CalledProcessError):
        say("peers", "add", SINK, "127.0.0.1", str(sink_port))
    token = say("access", "token", f"bench-{secrets.token_hex(4)}", "--role", "administrator")
    return {"Authorization": f"Bearer {token}"}


@contextmanager
def pacsteward_on_postgresql(folder: Path, studies: int = 0) -> Iterator[Server]:
    """Run Pacsteward over a PostgreSQL server of its own, which syncs as it does by default."""
    with running_cluster(DURABLE_POSTGRES) as cluster:
        url = cluster.url
        with psycopg.connect(url) as connection:
            child = psutil.Process(connection.info.backend_pid)
            helpers = (child.ppid(),)
        if studies:
            catalogue.load(folder / "data", studies, {"database_url": url})
        environment = {"PACSTEWARD_DATABASE_URL": url}
        with pacsteward(folder, environment, "Pacsteward, PostgreSQL", helpers) as server:
            yield server


@contextmanager
def orthanc(folder: Path, studies: int = 0) -> Iterator[Server]:
    """Run Debian's Orthanc, its objects synced before Success.

    A catalogue goes in as objects, by C-STORE: it has no other way in.
    """
    port, http_port, sink_port = free_port(), free_port(), free_port()
    settings = {
        "Name": "bench",
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "DicomAet": "ORTHANC",
        "DicomPort": port,
        "HttpPort": http_port,
        "HttpThreadsCount": 50,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "SyncStorageArea": True,
        "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowFind": True,
        "DicomAlwaysAllowGet": True,
        "DicomAlwaysAllowMove": True,
        "DicomModalities": {"sink": [SINK, "127.0.0.1", sink_port]},
        "Plugins": ["/usr/share/orthanc/plugins/libOrthancDicomWeb.so"],
    }
    (folder / "db").mkdir(exist_ok=True)
    file = folder / "orthanc.json"
    file.write_text(json.dumps(settings))
    program = shutil.which("Orthanc") or "/usr/sbin/Orthanc"
    began = time.monotonic()
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen([program, str(file)], stdout=log, stderr=log)
    try:
        _await(f"http://127.0.0.1:{http_port}/system", process, folder / "log")
        server = Server(
            name="Orthanc",
            safe="object; index not",
            ae_title="ORTHANC",
            port=port,
            http_port=http_port,
            sink_port=sink_port,
            folder=folder,
            process=process,
            started_in_s=time.monotonic() - began,
        )
        if studies:
            catalogue.send(server.port, server.ae_title, studies)
            server.settle()
        yield server
    finally:
        stop(process)


@contextmanager
def storescp(folder: Path, studies: int = 0) -> Iterator[Server]:
    """Run dcmtk's storescp, which writes each object into a file and does nothing besides.

    It asks nobody, keeps no index, compares nothing and waits for no disk: what it reaches is
    about what this machine and these clients allow a program in C++.
    """
    port = free_port()
    program = shutil.which("storescp") or "/usr/bin/storescp"
    files = folder / "files"
    files.mkdir()
    began = time.monotonic()
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [program, "--fork", "-q", "-pdu", "131072", "-od", str(files), str(port)],
            stdout=log,
            stderr=log,
            env={**os.environ, "TCP_NODELAY": "1"},
            start_new_session=True,
        )
    try:
        _await_port(port, process, folder / "log")
        yield Server(
            name="dcmtk storescp",
            safe="nothing",
            ae_title="STORESCP",
            port=port,
            http_port=0,
            sink_port=0,
            folder=folder,
            process=process,
            started_in_s=time.monotonic() - began,
        )
    finally:
        stop(process, whole_group=True)


@contextmanager
def fresh(start: Start, *, studies: int = 0) -> Iterator[Server]:
    """Run a server over fresh storage that is thrown away."""
    with (
        tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder,
        start(Path(folder), studies=studies) as server,
    ):
        yield server


def stop(process: subprocess.Popen[bytes], *, whole_group: bool = False) -> None:
    """End a server, by force when it does not end by itself."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if whole_group:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _await(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    _await_call(lambda: urllib.request.urlopen(url, timeout=2).close(), url, process, log)


def _await_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    address = "127.0.0.1", port
    _await_call(lambda: socket.create_connection(address, 2).close(), str(port), process, log)


def _await_call(
    call: Callable[[], None], where: str, process: subprocess.Popen[bytes], log: Path
) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"The server ended at once:\n{log.read_text()[-2000:]}")
        try:
            call()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise RuntimeError(f"The server did not answer at {where}:\n{log.read_text()[-2000:]}")

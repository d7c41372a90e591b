"""A PostgreSQL server of the test run's own: started in seconds, gone afterwards.

It belongs to nobody else: a fresh cluster in a temporary folder, on a free port of this machine,
without any syncing, since a power cut may take a test's data.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy.engine import make_url

from tests.support.ports import free_port

START_TIMEOUT_S = 30.0
PR_SET_PDEATHSIG = 1

CONFIGURATION = """
listen_addresses = '127.0.0.1'
fsync = off
synchronous_commit = off
full_page_writes = off
shared_buffers = 32MB
max_connections = 100
max_wal_size = 256MB
autovacuum_naptime = 60min
log_min_messages = fatal
"""


class NotInstalled(Exception):
    """This machine has no PostgreSQL server; the words say what was looked for."""


def programs() -> Path:
    """Return the folder of the newest server's programs.

    Raises
    ------
    NotInstalled
        There is none.
    """
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if found:
        return max(found, key=lambda path: float(path.parent.name))
    on_path = shutil.which("initdb")
    if on_path is not None:
        return Path(on_path).resolve().parent
    raise NotInstalled("PostgreSQL is not installed: no initdb in /usr/lib/postgresql or PATH.")


@dataclass
class Cluster:
    """A server that can be stopped and started again.

    Parameters
    ----------
    url
        Of its database ``postgres``, with a superuser's rights.
    """

    folder: Path
    url: str
    _process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Return once it answers."""
        log = self.folder / "log"
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                [programs() / "postgres", "-D", self.folder / "data"],
                stdout=subprocess.DEVNULL,
                stderr=file,
                cwd="/",
                preexec_fn=_die_with_the_test_run,
                **_account_of(self.folder),
            )
        _await(self._process, self.url, log)

    def stop(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """End it: SIGINT in good order (fast), SIGQUIT as a crash does (immediate)."""
        assert self._process is not None
        self._process.send_signal(how)
        self._process.wait(timeout=60)

    def new_database(self) -> str:
        """Make an empty database; return its URL."""
        return new_database(self.url)


def new_database(server: str) -> str:
    """Make an empty database of a server; return its URL."""
    name = f"made_{secrets.token_hex(4)}"
    plain = server.replace("postgresql+psycopg://", "postgresql://", 1)
    with psycopg.connect(plain, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return make_url(plain).set(database=name).render_as_string(hide_password=False)


@contextmanager
def running_cluster(more: str = "") -> Iterator[Cluster]:
    """Run a server of our own.

    Parameters
    ----------
    more
        Lines of configuration that outdo those above.

    Raises
    ------
    NotInstalled
        There is none to run.
    """
    binaries = programs()
    # Not below pytest's folder: that may be closed to the server's user, and a socket's path may
    # have 107 bytes only.
    folder = Path(tempfile.mkdtemp(prefix="pacsteward-pg-", dir="/tmp"))
    account = _account_of(folder)
    try:
        data, port = folder / "data", free_port()
        subprocess.run(
            [
                *(binaries / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-N"),
                *("-E", "UTF8", "--locale=C.UTF-8"),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd="/",
            **account,
        )
        place = f"port = {port}\nunix_socket_directories = '{folder}'\n"
        with (data / "postgresql.conf").open("a") as file:
            file.write(CONFIGURATION + place + more)
        cluster = Cluster(folder, f"postgresql://postgres@127.0.0.1:{port}/postgres")
        cluster.start()
        try:
            yield cluster
        finally:
            # Immediate shutdown: the cluster is thrown away.
            cluster.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running_postgres() -> Iterator[str]:
    """Run a server and give the URL of its database ``postgres``, with a superuser's rights.

    Raises
    ------
    NotInstalled
        There is none to run.
    """
    with running_cluster() as cluster:
        yield cluster.url


def _account_of(folder: Path) -> dict[str, Any]:
    """The server refuses to run as root; then it is run by the account that Debian made for it."""
    if os.geteuid() != 0:
        return {}
    shutil.chown(folder, "postgres", "postgres")
    return {"user": "postgres", "group": "postgres", "extra_groups": []}


def _die_with_the_test_run() -> None:
    """Have the kernel end the server when the test run is killed (Linux)."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGQUIT, 0, 0, 0)


def _await(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            psycopg.connect(url, connect_timeout=5).close()
            return
        except psycopg.OperationalError as error:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start: {log.read_text()}") from error
        time.sleep(0.05)

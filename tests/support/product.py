"""The product as its user runs it: a process of its own, its ports, its command line."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from pacsteward.base.clock import SystemClock
from pacsteward.base.db import open_database
from pacsteward.security import Access, AuditBook, SecuritySettings
from tests.support.ports import free_port

PACSTEWARD = [sys.executable, "-m", "pacsteward"]


def _die_with_the_test_run() -> None:
    """Have the kernel end the product when the test run is ended, however that happens."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


@dataclass
class Product:
    """A running (or stopped) archive over `data`."""

    data: Path
    environment: dict[str, str] = field(default_factory=dict)
    ae_title: str = "PACSTEWARD"
    dimse_port: int = field(default_factory=free_port)
    http_port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    started_in_s: float = 0.0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def log_file(self) -> Path:
        return self.data.parent / f"{self.data.name}.log"

    def start(self, *options: str, **environment: str) -> Product:
        began = time.monotonic()
        self.launch(*options, **environment)
        self._await_ready()
        self.started_in_s = time.monotonic() - began
        return self

    def launch(self, *options: str, **environment: str) -> None:
        """Start it and wait for nothing; `environment` counts for this run alone."""
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *PACSTEWARD,
                    "serve",
                    *("--data", str(self.data)),
                    *("--dimse-port", str(self.dimse_port)),
                    *("--http-port", str(self.http_port)),
                    *options,
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.environment, **environment},
                start_new_session=True,
                preexec_fn=_die_with_the_test_run,
            )

    def _await_ready(self) -> None:
        deadline = time.monotonic() + 100
        # One client for all questions: to make one takes 30 ms of what the product needs to start.
        with httpx.Client(base_url=self.url, timeout=10) as client:
            while time.monotonic() < deadline:
                assert self.process is not None
                if self.process.poll() is not None:
                    raise AssertionError(f"The product ended at once:\n{self.output()[-3000:]}")
                try:
                    if client.get("/readyz").status_code == 200:
                        return
                except httpx.HTTPError:
                    pass
                time.sleep(0.05)
        raise AssertionError(f"The product did not get ready:\n{self.output()[-3000:]}")

    def output(self) -> str:
        return self.log_file.read_text(errors="replace")

    def password(self) -> str:
        """Return the administrator's one-time password, as it was printed at the first start."""
        deadline = time.monotonic() + 60
        # The process that watches the others prints it, and may learn after us that they are ready.
        while not (found := re.search(r"password\s+(\S+)", self.output())):
            assert time.monotonic() < deadline, self.output()
            time.sleep(0.05)
        return found.group(1)

    def stop(self) -> int:
        """End it as a service manager does; return the exit code."""
        if self.process is None or self.process.poll() is not None:
            return 0
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=15)

    def kill(self) -> None:
        """End it as a power cut does; harmless when it has ended by itself."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=10)

    def run(self, *words: str, stdin: str | None = None, ends_with: int = 0) -> str:
        """Run a command against this product's data folder and return what it printed."""
        done = subprocess.run(
            [*PACSTEWARD, *words, "--data", str(self.data)],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, **self.environment},
            check=False,
        )
        told = f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert done.returncode == ends_with, told
        return done.stdout.strip()

    def token(self, role: str = "administrator") -> str:
        """Make a token beside the running product, as its command does, which takes a second."""
        database = open_database(
            self.environment.get("PACSTEWARD_DATABASE_URL") or self.data / "index.db"
        )
        try:
            clock = SystemClock()
            settings = SecuritySettings.model_validate({})
            access = Access(database, clock, AuditBook(database, clock), settings)
            return access.make_token(f"test-{role}-{time.monotonic_ns()}", [role])
        finally:
            database.close()

    def stranger(self) -> httpx.Client:
        """Return an HTTP client that nobody knows; a machine with much to do may be slow."""
        return httpx.Client(base_url=self.url, timeout=60)

    def client(self, role: str = "administrator") -> httpx.Client:
        """Return an HTTP client with a token of `role`."""
        return httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {self.token(role)}"},
            timeout=30,
        )

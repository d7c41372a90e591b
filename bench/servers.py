"""The servers that are compared, each started over fresh storage and stopped again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from tests.support.ports import free_port


@dataclass
class Server:
    """A running server."""

    name: str
    safe: str
    """What is safe when it says Success."""
    ae_title: str
    port: int
    http_port: int
    process: subprocess.Popen[bytes]
    headers: dict[str, str]

    def cpu_seconds(self) -> float:
        """Return the CPU time of its whole process tree."""
        total = 0.0
        for process in self._tree():
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
        return total

    def memory_bytes(self) -> int:
        """Return the memory of its whole process tree, shared pages counted once."""
        return sum(process.memory_full_info().pss for process in self._tree())

    def _tree(self) -> list[psutil.Process]:
        root = psutil.Process(self.process.pid)
        return [root, *root.children(recursive=True)]


@contextmanager
def pacsteward(folder: Path) -> Iterator[Server]:
    """Run Pacsteward with its defaults."""
    port, http_port = free_port(), free_port()
    command = [sys.executable, "-m", "pacsteward"]
    data = ["--data", str(folder / "data")]
    ports = ["--dimse-port", str(port), "--http-port", str(http_port), "--mllp-port", "0"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "serve", *data, *ports], stdout=log, stderr=log, start_new_session=True
        )
    try:
        _await(f"http://127.0.0.1:{http_port}/readyz", process)
        made = [*command, "access", "token", "bench", "--role", "administrator", *data]
        token = subprocess.run(made, capture_output=True, text=True, check=True)
        headers = {"Authorization": f"Bearer {token.stdout.strip()}"}
        yield Server(
            "Pacsteward", "object, source of index", "PACSTEWARD", port, http_port, process, headers
        )
    finally:
        _stop(process)


@contextmanager
def orthanc(folder: Path) -> Iterator[Server]:
    """Run Debian's Orthanc, its objects synced before Success."""
    port, http_port = free_port(), free_port()
    plugin = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"
    settings = {
        "Name": "bench",
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "DicomAet": "ORTHANC",
        "DicomPort": port,
        "HttpPort": http_port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "SyncStorageArea": True,
        "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowFind": True,
        "Plugins": [plugin] if Path(plugin).exists() else [],
    }
    (folder / "db").mkdir()
    file = folder / "orthanc.json"
    file.write_text(json.dumps(settings))
    program = shutil.which("Orthanc") or "/usr/sbin/Orthanc"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, str(file)], stdout=log, stderr=log)
    try:
        _await(f"http://127.0.0.1:{http_port}/system", process)
        yield Server("Orthanc", "object; index not", "ORTHANC", port, http_port, process, {})
    finally:
        _stop(process)


def _await(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError("The server ended at once; see its log.")
        try:
            urllib.request.urlopen(url, timeout=2).close()
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"The server did not answer at {url}.")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
